"""Stored weights as a model that other programs load. Imports TensorFlow, so it runs in a process of its own."""

from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.described_errors import describe_error
from fmnist_optuna.errors import MismatchError, StorageError
from fmnist_optuna.results.evaluation import StoredWeights
from fmnist_optuna.results.scoring import load_stored
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.training.probabilities import compute_probabilities, gives_logits, trace_probabilities
from fmnist_optuna.training.weights import hash_weights
from fmnist_optuna.wording import reason_of

KERAS_FILE = "model.keras"


def write_models(
    spec: StudySpec,
    info: DatasetInfo,
    stored: Sequence[StoredWeights],
    folder: Path,
    formats: Sequence[str],
    n_test_images: int,
) -> tuple[bool, int]:
    """Write a model with stored weights into a folder: a SavedModel, a `.keras` file, or both.

    The SavedModel's one endpoint is `serve`, also its `serving_default`: `image` (n, *image_shape) to `probabilities`
    float32 (n, n_classes), averaged over an image and its mirror image where the study says so, `class_id` int64 (n,)
    and `label` strings (n,), for any n.

    Args:
        stored: Of one model, or of several whose answers the SavedModel averages.
        formats: "savedmodel" and "keras"; the second for one model alone.
        n_test_images: Of the study's data.

    Returns:
        Whether the `.keras` model ends in logits (a SavedModel always answers with probabilities), and how many test
        images are scored at once when the weights are opened.

    Raises:
        MismatchError: The weights are damaged or altered, or the `.keras` file does not load with them again.
        StorageError: The folder takes no more.
    """
    models = [load_stored(spec, info, each) for each in stored]
    has_logits = gives_logits(models[0], info)
    try:
        if "savedmodel" in formats:
            _write_saved_model(models, info, has_logits, spec.confirm.flip, folder)
        if "keras" in formats:
            models[0].save(folder / KERAS_FILE)
            _check_reload(folder / KERAS_FILE, stored[0].sha256)
    except (OSError, tf.errors.OpError) as error:
        raise StorageError(f"{folder.parent} must have room for the model, but {describe_error(error)}.") from error
    return has_logits, trace_probabilities(models[0], n_test_images, info)[1]


def _check_reload(file: Path, weights_sha256: str) -> None:
    try:
        model = keras.models.load_model(file, safe_mode=True)
    except Exception as error:  # Keras raises whatever a class of the user's provokes
        raise MismatchError(
            f"{KERAS_FILE} must load again in Keras' safe mode, but {type(error).__name__}: {reason_of(error)}; "
            "register your own classes with keras.saving.register_keras_serializable, or export as savedmodel "
            "(--format savedmodel)."
        ) from error
    if hash_weights(model) != weights_sha256:
        raise MismatchError(f"{KERAS_FILE} must load again with the stored weights, but loads with others.")


def _write_saved_model(
    models: Sequence[keras.Model], info: DatasetInfo, has_logits: bool, flip: bool, folder: Path
) -> None:
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = compute_probabilities(models, image, has_logits, flip)
        class_id = tf.argmax(probabilities, axis=-1)
        return {
            "probabilities": probabilities,
            "class_id": class_id,
            "label": tf.gather(info.class_names, class_id),
        }

    archive = keras.export.ExportArchive()
    for model in models:
        archive.track(model)
    image = tf.TensorSpec((None, *info.image_shape), info.dtype, "image")
    archive.add_endpoint("serve", serve, input_signature=[image])
    archive.write_out(str(folder), verbose=False)
