"""Answers of an exported model for picture files. Needs nothing of the study: the exported folder alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.data.pictures import Picture, read_pictures
from fmnist_optuna.errors import DataError

OUTPUTS = {"probabilities", "class_id", "label"}


@dataclass(frozen=True)
class Answer:
    """What the model says of one picture.

    Args:
        name: File of the picture.
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
        is_synthetic: Whether it was trained on drawn garments; None where nothing says so.
        errors: File and reason of each picture without an answer.
    """

    model: Path
    is_synthetic: bool | None
    answers: tuple[Answer, ...]
    errors: tuple[tuple[str, str], ...]


def predict(model: Path, files: Sequence[Path]) -> Prediction:
    """Answer for several picture files in one batch.

    Args:
        model: An exported version, or the folder of several, of which the newest is taken.

    Raises:
        DataError: The folder holds no model that `export` writes.
    """
    folder = find_model(model)
    pictures: list[Picture] = []
    errors: list[tuple[str, str]] = []
    for file in files:
        try:
            pictures += read_pictures(file)
        except DataError as error:
            errors.append((str(file), str(error)))
    manifest = _read_manifest(folder)
    answers = tuple(_ask(ExportedModel(folder), pictures)) if pictures else ()
    return Prediction(folder, manifest.get("synthetic"), answers, tuple(errors))


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
    raise DataError(f"MODEL_DIR must be a folder that `fmnist-optuna export` wrote, but {folder} {there}.")


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, or nothing where a copy of the model came without."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


class ExportedModel:
    """A SavedModel that `export` wrote, loaded. Importing TensorFlow is part of loading the first one.

    Args:
        model: An exported version, or the folder of several, of which the newest is taken.

    Raises:
        DataError: The folder holds no model that `export` writes.
    """

    def __init__(self, model: Path) -> None:
        import tensorflow as tf

        self.folder = find_model(model)
        self.manifest = _read_manifest(self.folder)
        rule = f"MODEL_DIR must be a folder that `fmnist-optuna export` wrote, but {self.folder}"
        try:
            serve = tf.saved_model.load(str(self.folder)).signatures["serving_default"]
        except Exception as error:  # TensorFlow raises whatever a damaged file provokes
            cause = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{rule} does not load: {cause:.200}") from error
        inputs, outputs = serve.structured_input_signature[1], serve.structured_outputs
        if list(inputs) != ["image"] or inputs["image"].dtype != tf.uint8 or set(outputs) != OUTPUTS:
            raise DataError(f"{rule} takes {', '.join(inputs) or 'nothing'} and gives {', '.join(sorted(outputs))}.")
        self._serve = serve
        self._image_shape = tuple(inputs["image"].shape[1:])
        self._dtype = np.dtype(inputs["image"].dtype.as_numpy_dtype)
        n_classes = int(outputs["probabilities"].shape[-1])
        self.labels = tuple(self.manifest.get("labels") or map(str, range(n_classes)))

    def probabilities(self, images: NDArray[np.uint8 | np.float32]) -> NDArray[np.float32]:
        """What the model gives each class.

        Args:
            images: Of the shape and dtype that it was trained on, as uint8 (n, height, width).

        Returns:
            Shape (n, number of classes), in the order of `labels`; each row sums to 1.

        Raises:
            DataError: Images of another shape or dtype.
        """
        import tensorflow as tf

        if images.dtype != self._dtype or images.shape[1:] != self._image_shape:
            raise DataError(
                f"images must be {self._dtype} of shape (n, {', '.join(map(str, self._image_shape))}), but are "
                f"{images.dtype} of shape {images.shape}."
            )
        answer: NDArray[np.float32] = self._serve(image=tf.constant(images))["probabilities"].numpy()
        return answer

    def predict(self, images: NDArray[np.uint8 | np.float32]) -> list[str]:
        """The most likely label of each image; `probabilities` says what images must be."""
        return [self.labels[index] for index in self.probabilities(images).argmax(axis=1)]


def _ask(model: ExportedModel, pictures: Sequence[Picture]) -> list[Answer]:
    probabilities = model.probabilities(np.stack([picture.pixels for picture in pictures]))
    return [
        Answer(picture.name, picture.is_inverted, picture.is_mixed, _rank(row, model.labels))
        for picture, row in zip(pictures, probabilities, strict=True)
    ]


def _rank(probabilities: Any, labels: Sequence[str]) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-probabilities, kind="stable")
    return tuple((labels[index], float(probabilities[index])) for index in order)
