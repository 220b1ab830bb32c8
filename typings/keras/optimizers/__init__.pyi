from typing import Any

from keras.optimizers import schedules as schedules

class Optimizer:
    learning_rate: Any
    weight_decay: float | None
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

class Adam(Optimizer):
    amsgrad: bool
    beta_1: float
    beta_2: float
    epsilon: float

class SGD(Optimizer):
    momentum: float
    nesterov: bool

def __getattr__(name: str) -> Any: ...
