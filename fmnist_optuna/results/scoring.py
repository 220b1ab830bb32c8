"""Scores stored weights on the test images. Imports TensorFlow, so it runs in a process of its own."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.grid import Params
from fmnist_optuna.learning.cell_training import build_recorded
from fmnist_optuna.learning.data import load_splits
from fmnist_optuna.learning.probabilities import predict_probabilities
from fmnist_optuna.learning.weights import load_weights
from fmnist_optuna.spec import StudySpec


def score_weights(
    spec: StudySpec,
    params: Params,
    seed: int,
    weights: Path,
    weights_sha256: str,
    data_dir: Path | None,
    data_fingerprint: str,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Score one set of weights on the test images of a study.

    Args:
        seed: Of the trial: what its function draws beside its weights is the same then.

    Returns:
        Probabilities float32 (n, 10) and labels uint8 (n,).

    Raises:
        MismatchError: The weights are damaged or altered.
        DataError: The data is not that of the study.
    """
    source: Literal["fashion-mnist", "synthetic"] = "synthetic" if spec.data.source == "synthetic" else "fashion-mnist"
    splits = load_splits(source, spec.data.n_validation, spec.data.split_seed, data_dir, data_fingerprint)
    model = build_recorded(spec, params, seed)
    load_weights(model, weights, weights_sha256)
    return predict_probabilities(model, splits.test_images), splits.test_labels
