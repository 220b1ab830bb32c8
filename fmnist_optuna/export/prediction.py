"""Answers of an exported model for files. Needs nothing of the study: the exported folder alone."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import DatasetInfo, Images
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.pictures import Picture, read_pictures
from fmnist_optuna.data.rows import read_rows
from fmnist_optuna.data.synthetic import SYNTHETIC
from fmnist_optuna.errors import DataError
from fmnist_optuna.json_value import Json
from fmnist_optuna.wording import format_shape, reason_of

if TYPE_CHECKING:
    import tensorflow as tf

Serve = Callable[..., "Mapping[str, tf.Tensor]"]  # what a SavedModel answers by: its outputs, by their names
AT_ONCE = 256  # images: a net of convolutions takes a hundred kilobytes and more for each
OUTPUTS = {"probabilities", "class_id", "label"}


@dataclass(frozen=True)
class Answer:
    """What the model says of one picture, or of one row.

    Args:
        name: File of it.
        is_inverted: Whether the picture was dark on light, and was turned round.
        is_mixed: Whether its border is neither light nor dark, so that it was taken as light on dark.
        ranking: Labels with their probabilities, the most likely first.
    """

    name: str
    is_inverted: bool
    is_mixed: bool
    ranking: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Prediction:
    """Answers, and what could not be read.

    Args:
        model: The folder that was loaded.
        info: Of the data that it was trained on.
        is_synthetic: Whether that is for demonstration; None where nothing says so.
        errors: File and reason of each picture without an answer.
    """

    model: Path
    info: DatasetInfo
    is_synthetic: bool | None
    answers: tuple[Answer, ...]
    errors: tuple[tuple[str, str], ...]


def predict(model: Path, files: Sequence[Path]) -> Prediction:
    """Answer for several files in one batch: of pictures, or of rows where the model was trained on those.

    Args:
        model: An exported version, or the folder of several, of which the newest is taken.

    Raises:
        DataError: The folder holds no model that `export` writes, or does not say what its images are.
    """
    exported = ExportedModel(model)
    info = exported.info or exported.load().info
    if info is None:
        raise DataError(
            "The model must hold the manifest.json that `fmnist-optuna export` wrote, which says how a file becomes "
            f"what the model takes, but {exported.folder} has none."
        )
    pictures: list[Picture] = []
    errors: list[tuple[str, str]] = []
    for file in files:
        try:
            pictures += _read(file, info)
        except DataError as error:
            errors.append((str(file), str(error)))
    answers = tuple(_ask(exported.load(), pictures)) if pictures else ()
    synthetic = exported.manifest.get("synthetic")
    is_synthetic = synthetic if isinstance(synthetic, bool) else None
    return Prediction(exported.folder, info, is_synthetic, answers, tuple(errors))


def _read(file: Path, info: DatasetInfo) -> list[Picture]:
    if info.is_of_pictures:
        return read_pictures(file, info)
    rows = read_rows(file, info)
    names = [str(file)] if len(rows) == 1 else [f"{file}[{k}]" for k in range(len(rows))]
    return [Picture(name, row, is_inverted=False) for name, row in zip(names, rows, strict=True)]


def find_model(folder: Path) -> Path:
    """The folder of a version.

    Raises:
        DataError: There is none.
    """
    versions = [path for path in folder.glob("*") if path.name.isdecimal() and (path / "saved_model.pb").is_file()]
    for candidate in (folder, *sorted(versions, key=lambda path: -int(path.name))):
        if (candidate / "saved_model.pb").is_file():
            return candidate
    there = "has no saved_model.pb" if folder.is_dir() else "is no folder"
    raise DataError(f"The model must be a folder that `fmnist-optuna export` wrote, but {folder} {there}.")


def _read_manifest(folder: Path) -> Mapping[str, Json]:
    """The manifest, or nothing where a copy of the model came without."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


class ExportedModel:
    """A SavedModel that `export` wrote.

    Args:
        model: An exported version, or the folder of several, of which the newest is taken.

    Attributes:
        folder: Of the version.
        manifest: What `export` says of it; empty where a copy of the model came without.
        info: What its images are and how its classes are called; None where no manifest says it.

    Raises:
        DataError: The folder holds no model that `export` writes.
    """

    def __init__(self, model: Path) -> None:
        self.folder = find_model(model)
        self.manifest = _read_manifest(self.folder)
        self.info = _read_info(self.manifest, self.folder)
        self._serve: Serve | None = None
        self._n_classes = 0

    def load(self) -> Self:
        """Load it, unless it is loaded; importing TensorFlow is part of loading the first one.

        Raises:
            DataError: It does not load, or takes and gives something else than its manifest says.
        """
        if self._serve is None:
            self._serve = self._load()
        return self

    def _load(self) -> Serve:
        import tensorflow as tf  # heavy

        rule = _rule(self.folder)
        try:
            serve = tf.saved_model.load(str(self.folder)).signatures["serving_default"]
        except Exception as error:  # TensorFlow raises whatever a damaged file provokes
            raise DataError(f"{rule} does not load: {reason_of(error)}") from error
        inputs, outputs = serve.structured_input_signature[1], serve.structured_outputs
        if list(inputs) != ["image"] or set(outputs) != OUTPUTS:
            raise DataError(f"{rule} takes {', '.join(inputs) or 'nothing'} and gives {', '.join(sorted(outputs))}.")
        self._dtype, self._image_shape = inputs["image"].dtype.name, tuple(inputs["image"].shape[1:])
        self._n_classes = int(outputs["probabilities"].shape[-1])
        if self.info is None and self._has_form_of(FASHION_MNIST):  # what there was before a manifest said it
            self.info = replace(SYNTHETIC if self.manifest.get("synthetic") else FASHION_MNIST, class_names=self.labels)
        if self.info is not None and not self._has_form_of(self.info):
            raise DataError(
                f"{rule} takes {self._describe_images()} and gives {self._n_classes} classes, while its manifest.json "
                f"says {self.info.form} and {self.info.n_classes} classes."
            )
        taken: Serve = serve
        return taken

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities; their numbers where nothing says the names."""
        if self.info is not None:
            return self.info.class_names
        labels = self.manifest.get("labels")
        return tuple(map(str, labels if isinstance(labels, list) and labels else range(self._n_classes)))

    def _has_form_of(self, info: DatasetInfo) -> bool:
        form = self._dtype, self._image_shape, self._n_classes
        return form == (info.dtype, info.image_shape, info.n_classes)

    def _describe_images(self) -> str:
        return f"{self._dtype} {format_shape(self._image_shape)}"

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """What the model gives each class.

        Args:
            images: Of the shape, dtype and range that it was trained on, as uint8 (n, height, width).

        Returns:
            Shape (n, number of classes), in the order of `labels`; each row sums to 1.

        Raises:
            DataError: Images of another shape or dtype.
        """
        import tensorflow as tf  # heavy

        serve = self._serve = self._serve or self._load()
        if images.dtype != self._dtype or images.shape[1:] != self._image_shape:
            shape = format_shape(self._image_shape)
            raise DataError(
                f"images must be {self._dtype} of shape {shape}, but are {images.dtype} of shape {images.shape}."
            )
        parts = [images[begin : begin + AT_ONCE] for begin in range(0, max(1, len(images)), AT_ONCE)]
        return np.concatenate([serve(image=tf.constant(part))["probabilities"].numpy() for part in parts])

    def predict(self, images: Images) -> list[str]:
        """The most likely label of each image; `probabilities` says what images must be."""
        answers = self.probabilities(images).argmax(axis=1)
        return [self.labels[index] for index in answers]


def _rule(folder: Path) -> str:
    return f"The model must be a folder that `fmnist-optuna export` wrote, but {folder}"


def _read_info(manifest: Mapping[str, Json], folder: Path) -> DatasetInfo | None:
    """What a manifest says of the images and classes; nothing where it is missing or of an earlier version.

    Raises:
        DataError: What it says is none of that.
    """
    if "dataset" not in manifest:
        return None
    try:
        return DatasetInfo.from_content(manifest["dataset"])
    except DataError as error:
        raise DataError(f"{_rule(folder)} has a manifest.json that was altered: {error}") from error


def _ask(model: ExportedModel, pictures: Sequence[Picture]) -> list[Answer]:
    probabilities = model.probabilities(np.stack([picture.pixels for picture in pictures]))
    return [
        Answer(picture.name, picture.is_inverted, picture.is_mixed, _rank(row, model.labels))
        for picture, row in zip(pictures, probabilities, strict=True)
    ]


def _rank(probabilities: NDArray[np.float32], labels: Sequence[str]) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-probabilities, kind="stable")
    return tuple((labels[index], float(probabilities[index])) for index in order)
