"""The engine against stock `model.fit` on Fashion-MNIST: the same accuracy, within what a seed does.

Needs the four IDX files in the folder that FMNIST_OPTUNA_DATA names.
"""

import math
import os
import statistics
from pathlib import Path

import keras
import pytest
from one_training import train

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.source import load_splits
from fmnist_optuna.data.split import Splits
from fmnist_optuna.settings import DATA
from fmnist_optuna.training.dense import create_model
from fmnist_optuna.training.resident_data import ResidentData

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not os.environ.get(DATA), reason=f"{DATA} must name a folder with the four IDX files"),
]

SEEDS = range(5)
HIDDEN_SIZE, DROPOUT_RATE, LEARNING_RATE = 128, 0.2, 0.001
BATCH_SIZE, N_EPOCHS = 32, 5


def fit(seed: int, splits: Splits) -> float:
    """val_accuracy of the best epoch of stock Keras."""
    keras.utils.set_random_seed(seed)
    model = create_model(HIDDEN_SIZE, DROPOUT_RATE, LEARNING_RATE)
    history = model.fit(
        splits.train_images,
        splits.train_labels,
        validation_data=(splits.validation_images, splits.validation_labels),
        batch_size=BATCH_SIZE,
        epochs=N_EPOCHS,
        verbose=0,
    )
    return float(max(history.history["val_accuracy"]))


def run_engine(seed: int, data: ResidentData) -> float:
    keras.utils.set_random_seed(seed)
    model = create_model(HIDDEN_SIZE, DROPOUT_RATE, LEARNING_RATE)
    trained = train(model, data, batch_size=BATCH_SIZE, max_epochs=N_EPOCHS, patience=N_EPOCHS, seed=seed)
    return trained.val_accuracy


def test_engine_is_as_good_as_fit() -> None:
    """Over 5 seeds each, the means of val_accuracy differ by less than three standard errors of their difference."""
    splits = load_splits("fashion-mnist", 12_000, 0, Path(os.environ[DATA]))
    data = ResidentData.from_arrays(
        FASHION_MNIST, splits.train_images, splits.train_labels, splits.validation_images, splits.validation_labels
    )
    engine = [run_engine(seed, data) for seed in SEEDS]
    stock = [fit(seed, splits) for seed in SEEDS]
    error = math.sqrt((statistics.variance(engine) + statistics.variance(stock)) / len(SEEDS))
    difference = statistics.mean(engine) - statistics.mean(stock)
    print(f"engine {engine}\nfit    {stock}\ndifference {difference:+.5f}, standard error {error:.5f}")
    assert abs(difference) < 3 * error
