"""What the package and its tests use of Keras by type; of every other name nothing is known.

Keras 3.15 has no types of its own. Only what is stated here is checked.
"""

from collections.abc import Callable
from typing import Any

from keras import callbacks as callbacks
from keras import layers as layers
from keras import losses as losses
from keras import metrics as metrics
from keras import optimizers as optimizers
from keras import utils as utils
from numpy.typing import NDArray

class Variable:
    name: str
    path: str
    trainable: bool
    def numpy(self) -> NDArray[Any]: ...
    def __getattr__(self, name: str) -> Any: ...

class KerasTensor:
    def __init__(self, shape: tuple[int | None, ...], dtype: str = ...) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

class Model(layers.Layer):
    optimizer: Any  # None before compile()
    loss: Any
    stop_training: bool
    stop_evaluating: bool
    compiled: bool
    layers: list[layers.Layer]
    adapt_to: Callable[[Any], None]  # where an architecture gives it
    metrics: list[metrics.Metric]
    variables: list[Variable]
    trainable_variables: list[Variable]
    trainable_weights: list[Variable]
    # Whatever these take in a subclass, and on an instance where they are replaced.
    compute_loss: Callable[..., Any]
    compute_metrics: Callable[..., Any]
    fit: Callable[..., Any]
    make_train_function: Callable[..., Any]
    test_step: Callable[..., Any]
    train_step: Callable[..., Any]
    def get_weights(self) -> list[NDArray[Any]]: ...
    def set_weights(self, weights: list[NDArray[Any]]) -> None: ...

class Sequential(Model):
    def __init__(self, layers: list[Any] | None = ..., name: str | None = ...) -> None: ...

def __getattr__(name: str) -> Any: ...
