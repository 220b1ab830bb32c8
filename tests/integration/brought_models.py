"""What people bring: models, layers, losses, metrics and callbacks of many kinds."""

from typing import Any

import keras

LOSS = "sparse_categorical_crossentropy"
L, O, C = keras.layers, keras.optimizers, keras.callbacks  # noqa: E741


# Models


def layers(*hidden: keras.layers.Layer, head: str | None = "softmax") -> list[keras.layers.Layer]:
    return [L.Flatten(), L.Rescaling(1 / 255), L.Dense(16, "relu"), *hidden, L.Dense(10, head)]


def net(*hidden: keras.layers.Layer, head: str | None = "softmax", **options: Any) -> keras.Model:
    """784 - 16 - hidden layers - 10 as a Sequential with an Input; keywords go to compile()."""
    model = keras.Sequential([keras.Input((28, 28), dtype="uint8"), *layers(*hidden, head=head)])
    model.compile(**{"optimizer": O.Adam(0.003), "loss": LOSS, "metrics": ["accuracy"], **options})
    return model


def functional(cls: type[keras.Model] = keras.Model, **options: Any) -> keras.Model:
    """The same as a functional model of a given class."""
    image = keras.Input((28, 28), dtype="uint8")
    output = image
    for layer in layers(L.Dropout(0.2)):
        output = layer(output)
    model = cls(image, output)
    model.compile(**{"optimizer": O.Adam(0.003), "loss": LOSS, "metrics": ["accuracy"], **options})
    return model


def mixed_precision(**options: Any) -> keras.Model:
    """The end of the model in Keras' guide to mixed precision: a softmax, and a layer that only sees to float32."""
    half = keras.DTypePolicy("mixed_bfloat16")
    image = keras.Input((28, 28), dtype="uint8")
    hidden = L.Dense(16, "relu", dtype=half)(L.Rescaling(1 / 255)(L.Flatten()(image)))
    output = L.Activation("softmax", dtype="float32")(L.Dense(10, dtype=half)(hidden))
    model = keras.Model(image, L.Activation("linear", dtype="float32")(output))
    model.compile(**{"optimizer": O.SGD(0.05), "loss": LOSS, "metrics": ["accuracy"], **options})
    return model


def image_net(*first: keras.layers.Layer, last: keras.layers.Layer | None = None, **options: Any) -> keras.Model:
    """Layers on (28, 28, 1) images in 0..1, then a dense head."""
    start = [keras.Input((28, 28), dtype="uint8"), L.Rescaling(1 / 255), L.Reshape((28, 28, 1))]
    model = keras.Sequential([*start, *first, last or L.Flatten(), L.Dense(10, "softmax")])
    model.compile(**{"optimizer": O.Adam(0.003), "loss": LOSS, "metrics": ["accuracy"], **options})
    return model


def no_input() -> keras.Model:
    model = keras.Sequential(layers(L.Dropout(0.2), L.BatchNormalization()))
    model.compile(O.Adam(0.003), LOSS, metrics=["accuracy"])
    return model


class Subclassed(keras.Model):
    """Builds its weights at its first call; dropout knows of training."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = layers(L.Dropout(0.3))

    def call(self, x: Any, training: bool = False) -> Any:
        for layer in self.parts:
            x = layer(x, training=training) if isinstance(layer, L.Dropout) else layer(x)
        return x


class WithoutTraining(keras.Model):
    """Its call has no `training`: in `fit` its dropout never drops."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = layers(L.Dropout(0.5))

    def call(self, x: Any) -> Any:
        for layer in self.parts:
            x = layer(x)
        return x


class Lazy(keras.Model):
    """Makes its layers in its first call."""

    parts = None

    def call(self, x: Any, training: bool = False) -> Any:
        if self.parts is None:
            self.parts = layers()
        for layer in self.parts:
            x = layer(x)
        return x


def compiled(cls: type[keras.Model], **options: Any) -> keras.Model:
    model = cls()
    model.compile(**{"optimizer": O.Adam(0.003), "loss": LOSS, "metrics": ["accuracy"], **options})
    return model


class AddsLoss(L.Layer):
    def call(self, x: Any) -> Any:
        self.add_loss(0.01 * keras.ops.mean(keras.ops.square(x)))
        return x


class Tracks(L.Layer):
    """Has a metric of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.size = keras.metrics.Mean(name="size")

    def call(self, x: Any) -> Any:
        self.size.update_state(keras.ops.mean(x))
        return x


def frozen() -> keras.Model:
    return net(L.Dense(8, trainable=False), L.BatchNormalization(trainable=False))


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((16,)), L.Dense(8, "relu"), L.Dropout(0.2), L.BatchNormalization()])
    return net(inner)


def untrainable() -> keras.Model:
    model = net()
    model.trainable = False
    return model


class AlwaysNoisy(L.Layer):
    """Draws outside of training too."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = keras.random.SeedGenerator(0)

    def call(self, x: Any) -> Any:
        return x + keras.random.normal(keras.ops.shape(x), seed=self.generator)


# compute_loss


class FullLoss(keras.Model):
    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        factor = 2.0 if training else 0.5
        return factor * super().compute_loss(x, y, y_pred, sample_weight, training)


class OldLoss(keras.Model):
    """As before Keras 3.3: without `training`."""

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        return 3.0 * keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred))


class KeywordLoss(keras.Model):
    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any, **options: Any) -> Any:
        assert not options
        return 3.0 * keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred))


class ShortLoss(keras.Model):
    """A signature that `fit` cannot call; here it means what it says."""

    def compute_loss(self, x: Any, y: Any, y_pred: Any) -> Any:
        return 3.0 * keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred))


class OwnTracker(keras.Model):
    """The example in Keras' documentation of compute_loss."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.tracker = keras.metrics.Mean(name="entropy")

    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, training: bool = True) -> Any:
        loss = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred))
        self.tracker.update_state(loss)
        return loss


class VectorLoss(keras.Model):
    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, training: bool = True) -> Any:
        return keras.losses.sparse_categorical_crossentropy(y, y_pred)


def own_loss_on_instance() -> keras.Model:
    """Its loss is on the instance, so that what it was compiled with says nothing of its logits."""
    model = net(head=None)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compute_loss = lambda x=None, y=None, y_pred=None, sample_weight=None, training=True: loss(y, y_pred)
    return model


class FocalLoss(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        share = keras.ops.sum(keras.ops.one_hot(keras.ops.cast(y_true, "int32"), 10) * y_pred, axis=-1)
        return -keras.ops.square(1 - share) * keras.ops.log(share + 1e-7)


def smoothed(y_true: Any, y_pred: Any) -> Any:
    """Label smoothing for integer labels."""
    return keras.losses.categorical_crossentropy(
        keras.ops.one_hot(keras.ops.cast(y_true, "int32"), 10), y_pred, label_smoothing=0.1
    )


# Metrics


class SparseF1(keras.metrics.F1Score):
    """Makes its variables in its first update; its result is one number a class."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
        return super().update_state(keras.ops.one_hot(labels, 10), y_pred, sample_weight)


class Several(keras.metrics.Mean):
    """Its result has names of its own."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().update_state(keras.ops.max(y_pred, axis=-1))

    def result(self) -> Any:
        mean = super().result()
        return {"sure": mean, "unsure": 1 - mean}


# Steps that are refused


class TrainStep(keras.Model):
    def train_step(self, data: Any) -> Any:
        raise NotImplementedError


class TestStep(keras.Model):
    __test__ = False

    def test_step(self, data: Any) -> Any:
        return super().test_step(data)


class InheritedStep(TrainStep):
    pass


class Fit(keras.Model):
    def fit(self, *given: Any, **named: Any) -> Any:
        return super().fit(*given, **named)


class ComputeMetrics(keras.Model):
    def compute_metrics(self, *given: Any, **named: Any) -> Any:
        return super().compute_metrics(*given, **named)


class MakeTrainFunction(keras.Model):
    def make_train_function(self, force: bool = False) -> Any:
        return super().make_train_function(force)


def patched() -> keras.Model:
    model = functional()
    model.train_step = lambda data: {}
    return model


def patched_keras() -> keras.Model:
    """Keras itself is patched; the fixture after each test takes it back."""
    keras.Model.test_step = lambda self, data: {}
    return functional()


# Callbacks


class SetRateBefore(C.Callback):
    def on_train_begin(self, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = 0.03


class FreezeBefore(C.Callback):
    """Acts at the last moment at which `fit` has not traced its step."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.layers[2].trainable = False


class DropMore(C.Callback):
    def on_train_begin(self, logs: Any = None) -> None:
        next(layer for layer in self.model.layers if isinstance(layer, L.Dropout)).rate = 0.7


class AroundTests(C.Callback):
    """Halves the weights for every validation."""

    def on_test_begin(self, logs: Any = None) -> None:
        self.weights = self.model.get_weights()
        self.model.set_weights([weight * 0.5 for weight in self.weights])

    def on_test_end(self, logs: Any = None) -> None:
        assert set(logs or {}) >= {"loss", "accuracy"}
        self.model.set_weights(self.weights)


class StopsBefore(C.Callback):
    """Stops the training at the beginning of an epoch: `fit` still takes one step, validates and ends the epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = epoch == self.epoch


class StopsAtOnce(C.Callback):
    def on_train_begin(self, logs: Any = None) -> None:
        self.model.stop_training = True


class StopsValidation(C.Callback):
    def on_test_begin(self, logs: Any = None) -> None:
        self.model.stop_evaluating = True


class AddsToLogs(C.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        (logs or {})["val_own"] = float(epoch)


class Recompiles(C.Callback):
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.model.compile("sgd", LOSS)


class CompilesBefore(C.Callback):
    """What `fit` would end on: it has made its train function by then."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.model.compile("sgd", LOSS, metrics=["accuracy"])


class StepsBefore(C.Callback):
    def on_train_begin(self, logs: Any = None) -> None:
        self.model.train_step = lambda data: {}


class InnerRateLater(C.Callback):
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.model.optimizer.learning_rate = O.schedules.CosineDecay(0.01, 60)


class BatchHook(C.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        pass


class TestBatchHook(C.Callback):
    __test__ = False

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        pass


class BusyCheckpoint(C.ModelCheckpoint):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        pass
