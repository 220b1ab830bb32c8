"""Callbacks of a training: called as in Keras' own fit, and what they set is what the compiled epoch uses."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
from small_nets import Recorder, make_net, run

from fmnist_optuna.training.resident_data import ResidentData

pytestmark = pytest.mark.usefixtures("one_thread")


def test_callbacks_are_called_as_in_fit(few_garments: ResidentData) -> None:
    """Callbacks get Keras' hooks in Keras' order, Keras' names in the logs, and epochs, steps and model."""
    recorder = Recorder()
    model = make_net()
    result = run(model, few_garments, max_epochs=2, callbacks=[recorder])
    names = [(name, epoch) for name, epoch, _ in recorder.calls]
    hooks = [(name, epoch) for epoch in (0, 1) for name in ("epoch_begin", "epoch_end")]
    assert names == [("train_begin", None), *hooks, ("train_end", None)]
    last = result.epochs[1]
    logs = {"loss": last.train_loss, "accuracy": last.train_accuracy}
    logs |= {"val_loss": last.val_loss, "val_accuracy": last.val_accuracy}
    assert recorder.calls[4][2] == recorder.calls[5][2] == logs
    assert recorder.params["epochs"] == 2
    assert recorder.params["steps"] == math.ceil(len(few_garments.train_labels) / 32)
    assert recorder.model is model


def largest_step(model: keras.Model, data: ResidentData, callbacks: Sequence[keras.callbacks.Callback]) -> list[float]:
    """Largest change of a weight in each epoch of one full batch: at first exactly the learning rate, with Adam."""
    before = [np.concatenate([w.ravel() for w in model.get_weights()])]
    steps: list[float] = []

    def measure(epoch: int, logs: Any = None) -> None:
        now = np.concatenate([w.ravel() for w in model.get_weights()])
        steps.append(float(np.abs(now - before[0]).max()))
        before[0] = now

    measured = [*callbacks, keras.callbacks.LambdaCallback(on_epoch_end=measure)]
    run(model, data, max_epochs=4, batch_size=2_000, callbacks=measured)
    return steps


def test_learning_rate_scheduler_acts_in_the_graph(few_garments: ResidentData) -> None:
    """The rate that LearningRateScheduler sets is the one that the compiled epoch uses: 0 stands still."""
    rates = [0.001, 0.0, 0.002, 0.0]
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, _: rates[epoch])
    steps = largest_step(make_net(), few_garments, [scheduler])
    assert steps[0] == pytest.approx(0.001, rel=1e-2)  # Adam's first step is the rate, epsilon aside
    assert (steps[1], steps[3]) == (0.0, 0.0)
    assert steps[2] > 0.001


def test_reduce_on_plateau_acts_in_the_graph(few_garments: ResidentData) -> None:
    """The rate that ReduceLROnPlateau lowers is the one that the compiled epoch uses."""
    plateau = keras.callbacks.ReduceLROnPlateau(
        monitor="val_loss", patience=1, factor=1e-6, min_delta=1e9, min_lr=0.0, cooldown=0
    )
    model = make_net()
    steps = largest_step(model, few_garments, [plateau])
    assert steps[0] == pytest.approx(0.001, rel=1e-2)
    assert max(steps[2:]) < 1e-8  # lowered after the second epoch, as no loss falls by 1e9
    assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(1e-3 * 1e-6**3, rel=1e-3)
