"""`LadderPruner` in an objective of stock Optuna and Keras, driven by a callback as people write them."""

from collections.abc import Mapping

import keras
import optuna
import pytest

from fmnist_optuna import LadderPruner
from fmnist_optuna.training.resident_data import ResidentData

pytestmark = pytest.mark.usefixtures("one_thread")


class PruningCallback(keras.callbacks.Callback):
    """Reports each epoch and ends the training where the pruner says so."""

    def __init__(self, trial: optuna.Trial) -> None:
        super().__init__()
        self._trial = trial

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._trial.report((logs or {})["val_accuracy"], epoch)
        if self._trial.should_prune():
            raise optuna.TrialPruned


@pytest.mark.more
def test_a_keras_callback_drives_the_pruner(few_garments: ResidentData) -> None:
    """Of two rates the one that learns nothing is cut at the second epoch, by stock fit."""

    def objective(trial: optuna.Trial) -> float:
        keras.utils.set_random_seed(0)
        rate = trial.suggest_categorical("learning_rate", [0.003, 1e-9])
        model = keras.Sequential(
            [keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Rescaling(1 / 255), keras.layers.Dense(10)]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        data = few_garments
        history = model.fit(
            data.train_images,
            data.train_labels,
            batch_size=64,
            validation_data=(data.validation_images, data.validation_labels),
            epochs=3,
            verbose=0,
            callbacks=[PruningCallback(trial)],
        ).history
        return float(max(history["val_accuracy"]))

    pruner = LadderPruner(margin=1.0, n_validation=2_400, max_reports=3)
    sampler = optuna.samplers.GridSampler({"learning_rate": [0.003, 1e-9]}, seed=0)
    study = optuna.create_study(direction="maximize", pruner=pruner, sampler=sampler)
    study.enqueue_trial({"learning_rate": 0.003})
    study.enqueue_trial({"learning_rate": 1e-9})
    study.optimize(objective, n_trials=2)
    assert [(trial.state.name, len(trial.intermediate_values)) for trial in study.trials] == [
        ("COMPLETE", 3),
        ("PRUNED", 2),
    ]
