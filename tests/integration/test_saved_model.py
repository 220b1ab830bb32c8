"""Models of users leave as SavedModel and `.keras`: what ends in logits answers with probabilities."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_study import make_spec

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import MismatchError, SpecError, StorageError
from fmnist_optuna.export.prediction import AT_ONCE, ExportedModel
from fmnist_optuna.results.evaluation import StoredWeights

PARAMS = {"width": 8}
MODEL = """
import keras

class Scale(keras.layers.Layer):
    def call(self, x):
        return x * 3.0

def make(width: int):
    model = keras.Sequential([
        keras.Input((28, 28), dtype="uint8"), keras.layers.Flatten(), keras.layers.Rescaling(1 / 255),
        {layers}
    ])
    model.compile("adam", {loss})
    return model
"""
SPARSE = "keras.losses.SparseCategoricalCrossentropy"
KINDS = {
    "logits": ("keras.layers.Dense(width), keras.layers.Dense(10)", f"{SPARSE}(from_logits=True)"),
    "logits, loss of one's own": ("keras.layers.Dense(width), keras.layers.Dense(10)", "lambda y, p: 0.0 * p[:, 0]"),
    "probabilities": ("keras.layers.Dense(width), keras.layers.Dense(10, activation='softmax')", f"{SPARSE}()"),
}

IN_FLOAT32 = "keras.layers.Activation('{}', dtype='float32')"

Modules = Callable[[str, str], str]


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_model_answers_with_probabilities(
    kind: str, make_module: Modules, one_thread: None, garments: Splits, tmp_path: Path
) -> None:
    """The SavedModel gives what the model in memory gives, whether it ends in logits or in probabilities."""
    import tensorflow as tf

    from fmnist_optuna.export.saved_model import write_models
    from fmnist_optuna.training.architecture import build_model, load_architecture
    from fmnist_optuna.training.batches import SCORING_BATCH
    from fmnist_optuna.training.probabilities import predict_probabilities
    from fmnist_optuna.training.weights import save_weights

    layers, loss = KINDS[kind]
    name = make_module("of_a_user", MODEL.replace("{layers}", layers).replace("{loss}", loss))
    spec = make_spec({"width": [8]}, model={"architecture": f"{name}:make"})
    model = build_model(load_architecture(spec.model.architecture), spec, PARAMS, FASHION_MNIST)
    sha256 = save_weights(model, tmp_path / "weights")
    images = garments.test_images[:50]
    expected = predict_probabilities(model, images, FASHION_MNIST)
    assert np.allclose(expected.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(expected.argmax(axis=1), model(images).numpy().argmax(axis=1))
    formats = ("savedmodel",) if "own" in kind else ("savedmodel", "keras")
    stored = StoredWeights(0, PARAMS, 0, tmp_path / "weights", sha256, 0.0, None)
    written = write_models(spec, FASHION_MNIST, [stored], tmp_path / "model", formats, n_test_images=10_000)
    assert written == (kind.startswith("logits"), SCORING_BATCH)
    serve = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    answer = serve(image=tf.constant(images))
    assert np.abs(answer["probabilities"].numpy() - expected).max() < 1e-6
    assert np.array_equal(answer["class_id"].numpy(), expected.argmax(axis=1))


def test_a_class_that_does_not_load_again_is_no_keras_file(
    make_module: Modules, one_thread: None, tmp_path: Path
) -> None:
    """A layer of one's own that is not registered is refused, with what to do."""
    from fmnist_optuna.export.saved_model import write_models
    from fmnist_optuna.training.architecture import build_model, load_architecture
    from fmnist_optuna.training.weights import save_weights

    layers = "Scale(), keras.layers.Dense(10, activation='softmax')"
    name = make_module("of_a_user", MODEL.replace("{layers}", layers).replace("{loss}", f"{SPARSE}()"))
    spec = make_spec({"width": [8]}, model={"architecture": f"{name}:make"})
    model = build_model(load_architecture(spec.model.architecture), spec, PARAMS, FASHION_MNIST)
    sha256 = save_weights(model, tmp_path / "weights")
    stored = StoredWeights(0, PARAMS, 0, tmp_path / "weights", sha256, 0.0, None)
    (tmp_path / "model").mkdir()
    with pytest.raises(MismatchError, match="register your own classes"):
        write_models(spec, FASHION_MNIST, [stored], tmp_path / "model", ("keras",), n_test_images=50)


@pytest.mark.parametrize(
    ("end", "loss", "expected"),
    [
        ("Dense(10, 'softmax')", "'sparse_categorical_crossentropy'", False),
        ("Dense(10), keras.layers.Softmax()", f"{SPARSE}()", False),
        ("Dense(10), keras.layers.Activation(lambda x: keras.ops.softmax(x))", f"{SPARSE}()", False),
        ("Dense(10, 'softmax'), keras.layers.Reshape((10,))", f"{SPARSE}()", False),
        ("Dense(10), keras.layers.Activation('linear', dtype='float32')", f"{SPARSE}(from_logits=True)", True),
        (f"Dense(10), {IN_FLOAT32.format('softmax')}, {IN_FLOAT32.format('linear')}", f"{SPARSE}()", False),
        (f"Dense(10, 'softmax'), keras.layers.Identity(), {IN_FLOAT32.format('linear')}", f"{SPARSE}()", False),
        (f"Dense(10, 'softmax'), {IN_FLOAT32.format('linear')}", f"{SPARSE}(from_logits=True)", None),
        (f"Dense(10), {IN_FLOAT32.format('linear')}", f"{SPARSE}()", None),
        ("Dense(10)", "functools.partial(keras.losses.sparse_categorical_crossentropy, from_logits=True)", True),
        ("Dense(10, 'softmax')", f"{SPARSE}(from_logits=True)", None),
        ("Dense(10)", "'sparse_categorical_crossentropy'", None),
        ("Dense(10), keras.layers.Activation('softplus')", f"{SPARSE}()", None),
        ("Dense(10, 'sigmoid')", "keras.losses.sparse_categorical_crossentropy", None),
        ("Dense(10, 'relu')", "lambda y, p: 0.0 * p[:, 0]", None),
    ],
)
def test_a_head_is_read_from_its_model(end: str, loss: str, expected: bool | None) -> None:
    """Logits, probabilities, or refused: from the last layer and the loss, by names, objects and functions."""
    import functools

    import keras

    from fmnist_optuna.training.probabilities import gives_logits

    names = {"keras": keras, "functools": functools}
    layers = eval(f"[keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.{end}]", names)
    model = keras.Sequential(layers)
    model.compile("adam", eval(loss, names))
    if expected is None:
        with pytest.raises(SpecError, match="must end in probabilities"):
            gives_logits(model, FASHION_MNIST)
    else:
        assert gives_logits(model, FASHION_MNIST) is expected


@pytest.mark.parametrize("activation", ["softmax", None])
def test_a_cast_is_no_end_of_a_model(activation: str | None) -> None:
    """`keras.ops.cast` to float32 changes no reading: what stands before it is the end."""
    import keras

    from fmnist_optuna.training.probabilities import gives_logits

    image = keras.Input((28, 28))
    output = keras.layers.Dense(10, activation, dtype="mixed_bfloat16")(keras.layers.Flatten()(image))
    model = keras.Model(image, keras.ops.cast(output, "float32"))
    model.compile("adam", lambda labels, answers: 0.0 * answers[:, 0])
    assert gives_logits(model, FASHION_MNIST) is (activation is None)


def test_an_ensemble_answers_with_the_mean_of_its_nets(one_thread: None, garments: Splits, tmp_path: Path) -> None:
    """In one SavedModel, with the mirror images where the study asks for them."""
    import tensorflow as tf

    from fmnist_optuna.export.saved_model import write_models
    from fmnist_optuna.training.cell_training import build_recorded
    from fmnist_optuna.training.probabilities import predict_probabilities
    from fmnist_optuna.training.weights import save_weights

    params = {"hidden_size": 8, "dropout_rate": 0.2, "learning_rate": 0.01}
    spec = make_spec({name: [value] for name, value in params.items()}, confirm={"flip": True})
    images, stored, answers = garments.test_images[:50], [], []
    for seed in (1, 2, 3):
        model = build_recorded(spec, FASHION_MNIST, params, seed)
        path = tmp_path / f"weights-{seed}"
        stored.append(StoredWeights(0, params, seed, path, save_weights(model, path), 0.0, None))
        for given in (images, images[:, :, ::-1]):
            answers.append(predict_probabilities(model, given, FASHION_MNIST))
    write_models(spec, FASHION_MNIST, stored, tmp_path / "model", ("savedmodel",), n_test_images=50)
    serve = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    probabilities = serve(image=tf.constant(images))["probabilities"].numpy()
    np.testing.assert_allclose(probabilities, np.mean(answers, axis=0), atol=1e-6)
    assert min(np.abs(probabilities - answer).max() for answer in answers) > 1e-3


@pytest.mark.parametrize("n_images", [0, 1, 600])
def test_many_images_are_answered_a_few_at_a_time(one_thread: None, n_images: int, tmp_path: Path) -> None:
    """All at once would take the memory of all; this model answers with how many it is asked about."""
    import tensorflow as tf

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        n = tf.shape(image)[0]
        answers = tf.ensure_shape(tf.fill([n, 2], tf.cast(n, tf.float32)), (None, 2))
        return {"probabilities": answers, "class_id": tf.argmax(answers, axis=1), "label": tf.fill([n], "a")}

    module, image = tf.Module(), tf.TensorSpec((None, 6, 5), tf.uint8, "image")
    module.serve = tf.function(serve, input_signature=[image])
    tf.saved_model.save(module, str(tmp_path), {"serving_default": module.serve})
    answers = ExportedModel(tmp_path).probabilities(np.zeros((n_images, 6, 5), np.uint8))
    assert answers.shape == (n_images, 2)
    assert (np.unique(answers) <= AT_ONCE).all()


def test_parity_is_measured_in_the_batches_of_the_opening(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The script answers as many images at once as it is told, then one and three."""
    import tensorflow as tf

    from fmnist_optuna.export import parity

    sizes = []

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        sizes.append(len(image))
        class_id = tf.argmax(image, axis=-1)
        return {"probabilities": image, "class_id": class_id, "label": tf.strings.as_string(class_id)}

    loaded = SimpleNamespace(signatures={"serving_default": serve})
    monkeypatch.setattr(tf.saved_model, "load", lambda folder: loaded)
    images = np.eye(10, dtype=np.float32)
    np.savez(tmp_path / "arrays.npz", images=images, probabilities=images, labels=np.arange(10))
    measured = parity.measure("folder", str(tmp_path / "arrays.npz"), 4)
    assert sizes == [4, 4, 2, 1, 3]
    assert (measured["accuracy"], measured["n_other_classes"], measured["n_odd_batches"]) == (1, 0, 0)


def test_a_full_disk_is_told_in_plain_words(
    garments: Splits, one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What TensorFlow says around it, such as the node of a graph, is left out."""
    import tensorflow as tf

    from fmnist_optuna.export import saved_model

    node = "{{function_node __wrapped__SaveV2_dtypes_10_device_/job:localhost/replica:0/task:0/device:CPU:0}}"
    full = tf.errors.ResourceExhaustedError(None, None, f"{node} /models/x; No space left on device [Op:SaveV2]")

    def write(*_: object) -> None:
        raise full

    monkeypatch.setattr(saved_model, "load_stored", lambda *_: None)
    monkeypatch.setattr(saved_model, "gives_logits", lambda *_: False)
    monkeypatch.setattr(saved_model, "_write_saved_model", write)
    stored = StoredWeights(0, {}, 0, tmp_path / "w", "0" * 64, 0.5, None)
    with pytest.raises(StorageError) as refused:
        saved_model.write_models(make_spec(), garments.info, [stored], tmp_path / "1", ("savedmodel",), 10)
    reason = "ResourceExhaustedError: /models/x; No space left on device ("  # and where in this file it was raised
    assert str(refused.value).startswith(f"{tmp_path} must have room for the model, but {reason}")
