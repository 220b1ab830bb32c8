"""The running average of a training's weights: beside its rule in NumPy, where it is scored, and what is kept."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
from one_training import BATCH_SIZE, SEED, are_equal, make_net, train

from fmnist_optuna.spec.options import Options
from fmnist_optuna.training.averages import AveragedWeights
from fmnist_optuna.training.resident_data import ResidentData

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("one_thread")]


def test_averages_are_those_of_the_rule(few_garments: ResidentData) -> None:
    """All weights, the statistics of batch normalisation included, with the faster forgetting of the beginning."""
    model = make_net()
    averages = AveragedWeights(model, 0.5)
    expected = model.get_weights()
    for number in range(1, 15):
        model.set_weights([weight + number for weight in model.get_weights()])
        averages.update()
        kept = min(0.5, number / (number + 9))
        expected = [kept * old + (1 - kept) * new for old, new in zip(expected, model.get_weights(), strict=True)]
    own = model.get_weights()
    with averages.in_place():
        for found, weight in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_allclose(found, weight, rtol=1e-5)
    for found, weight in zip(model.get_weights(), own, strict=True):
        np.testing.assert_array_equal(found, weight)


class Watch(keras.callbacks.Callback):
    """Keeps the weights that the model has at three moments of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[list[Any]]] = {"begin": [], "validated": [], "end": []}

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.seen["begin"].append(self.model.get_weights())

    def on_test_end(self, logs: Mapping[str, float] | None = None) -> None:
        self.seen["validated"].append(self.model.get_weights())

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.seen["end"].append(self.model.get_weights())


@pytest.mark.parametrize("after", ["step", "epoch"])
def test_averages_are_validated_and_kept(few_garments: ResidentData, after: str) -> None:
    """Callbacks at an epoch's end see them, and so does whoever restores the best; training goes on with its own."""
    model, options = make_net(), Options.model_validate({"ema": 0.9, "ema_after": after})
    settings: dict[str, Any] = {"batch_size": BATCH_SIZE, "max_epochs": 2, "patience": 2, "seed": SEED}
    watch = Watch()
    stopping = keras.callbacks.EarlyStopping("val_accuracy", mode="max", patience=2, restore_best_weights=True)
    result = train(model, few_garments, options=options, callbacks=[stopping, watch], **settings)
    averaged, ended, begun = (watch.seen[moment] for moment in ("validated", "end", "begin"))
    assert are_equal(model.get_weights(), averaged[result.best_epoch])
    assert [are_equal(*pair) for pair in zip(averaged, ended, strict=True)] == [True, True]
    assert not are_equal(begun[1], averaged[0])
    hits = np.argmax(model(few_garments.validation_images).numpy(), axis=1) == few_garments.validation_labels.numpy()
    assert result.val_accuracy == pytest.approx(hits.mean(), abs=1e-3)
    plain = train(make_net(), few_garments, **settings)
    assert plain.epochs[1].train_loss == pytest.approx(result.epochs[1].train_loss, rel=1e-5)


def test_averages_begin_with_what_callbacks_have_loaded(few_garments: ResidentData) -> None:
    """Not with the weights that the model was built with: a frozen layer stays what it is, validated too."""
    model, seen = make_net(), list[float]()
    bias = model.layers[-1].bias
    bias.trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy")
    load = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: bias.assign(keras.ops.full((10,), 5.0)),
        on_epoch_end=lambda epoch, logs: seen.extend(bias.numpy()),
    )
    settings: dict[str, Any] = {"batch_size": BATCH_SIZE, "max_epochs": 1, "patience": 2, "seed": SEED}
    options = Options.model_validate({"ema": 0.999, "ema_after": "epoch"})
    train(model, few_garments, options=options, callbacks=[load], **settings)
    assert seen == [5.0] * 10


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_averages_are_precise_whatever_the_weights_are(dtype: str) -> None:
    """They come to where the weights stay, also past validations; a callback may change what is validated."""
    layer = keras.layers.Dense(1, dtype=dtype, bias_initializer="ones")
    averages = AveragedWeights(keras.Sequential([keras.Input((1,)), layer]), 0.99)
    averages.variables[-1].assign(100_000)  # updates so far: each takes its full share from now on
    layer.bias.assign([2.0])
    seen = []
    for _ in range(100):
        for _ in range(10):
            averages.update()
        with averages.in_place():
            seen.append(float(layer.bias.value[0]))
        assert float(layer.bias.value[0]) == 2.0
    assert seen[0] == pytest.approx(2 - 0.99**10, abs=0.01)
    assert seen[-1] == pytest.approx(2 - 0.99**1000, abs=1e-3)
    with averages.in_place():
        layer.bias.assign([4.0])
    with averages.in_place():
        assert float(layer.bias.value[0]) == 4.0


def test_last_averages_are_kept_where_the_last_weights_are(few_garments: ResidentData) -> None:
    """With the statistics of batch normalisation that belong to them: they score what the last epoch did."""
    model, watch = make_net(), Watch()
    settings: dict[str, Any] = {"batch_size": BATCH_SIZE, "max_epochs": 2, "patience": 1, "seed": SEED}
    options = Options(ema=0.9)
    result = train(model, few_garments, options=options, keep_weights="last", callbacks=[watch], **settings)
    assert are_equal(model.get_weights(), watch.seen["validated"][-1])
    assert not are_equal(model.get_weights(), watch.seen["validated"][0])
    assert (result.best_epoch, result.val_accuracy) == (1, result.epochs[-1].val_accuracy)
