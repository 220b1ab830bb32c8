"""What the package and its tests use of TensorFlow by type; of every other name nothing is known.

TensorFlow 2.21 has no types of its own. Only what is stated here is checked.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, overload

P = ParamSpec("P")
R = TypeVar("R")

class _Function(Generic[P, R]):
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def get_concrete_function(self, *args: Any, **kwargs: Any) -> Callable[P, R]: ...

@overload
def function(
    func: Callable[P, R], input_signature: Sequence[Any] | None = ..., *, autograph: bool = ..., **options: Any
) -> _Function[P, R]: ...
@overload
def function(
    func: None = ..., input_signature: Sequence[Any] | None = ..., *, autograph: bool = ..., **options: Any
) -> Callable[[Callable[P, R]], _Function[P, R]]: ...
def __getattr__(name: str) -> Any: ...
