"""Answers of an exported model for picture files. Needs nothing of the study: the exported folder alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
    answers = tuple(_ask(folder, manifest, pictures)) if pictures else ()
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


def _ask(folder: Path, manifest: dict[str, Any], pictures: Sequence[Picture]) -> list[Answer]:
    import tensorflow as tf

    rule = f"MODEL_DIR must be a folder that `fmnist-optuna export` wrote, but {folder}"
    try:
        serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    except Exception as error:  # TensorFlow raises whatever a damaged file provokes
        cause = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{rule} does not load: {cause:.200}") from error
    inputs, outputs = serve.structured_input_signature[1], serve.structured_outputs
    if list(inputs) != ["image"] or inputs["image"].dtype != tf.uint8 or set(outputs) != OUTPUTS:
        raise DataError(f"{rule} takes {', '.join(inputs) or 'nothing'} and gives {', '.join(sorted(outputs))}.")
    images = tf.constant(np.stack([picture.pixels for picture in pictures]))
    answer = {name: tensor.numpy() for name, tensor in serve(image=images).items()}
    labels = manifest.get("labels") or [str(index) for index in range(answer["probabilities"].shape[1])]
    return [
        Answer(picture.name, picture.is_inverted, picture.is_mixed, _rank(row, labels))
        for picture, row in zip(pictures, answer["probabilities"], strict=True)
    ]


def _rank(probabilities: Any, labels: Sequence[str]) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-probabilities, kind="stable")
    return tuple((labels[index], float(probabilities[index])) for index in order)
