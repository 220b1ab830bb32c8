"""The user's Keras callbacks: made anew for every training run, and refused where the loop could not honour them."""

import keras

from fmnist_optuna.errors import SpecError
from fmnist_optuna.learning.functions import load_function
from fmnist_optuna.spec import StudySpec
from fmnist_optuna.wording import describe_error


def load_callbacks(spec: StudySpec) -> list[keras.callbacks.Callback]:
    """Fresh callbacks of the user's functions, for one training run.

    Raises:
        SpecError: A function does not return Keras callbacks, or one has a batch hook: the epoch runs inside the graph.
    """
    callbacks: list[keras.callbacks.Callback] = []
    for name in spec.training.callbacks:
        try:
            made = load_function(name, "training.callbacks")()
        except SpecError:
            raise
        except Exception as error:
            raise SpecError(
                f"training.callbacks must return a callback, but {name} raised {describe_error(error)}."
            ) from error
        for callback in made if isinstance(made, list | tuple) else [made]:
            if not isinstance(callback, keras.callbacks.Callback):
                raise SpecError(
                    f"training.callbacks must return keras.callbacks.Callback, but {name} "
                    f"returned {type(callback).__name__}."
                )
            _refuse_batch_hook(callback, name)
            callbacks.append(callback)
    return callbacks


def _refuse_batch_hook(callback: keras.callbacks.Callback, name: str) -> None:
    if "epoch" in (getattr(callback, "save_freq", None), getattr(callback, "update_freq", None)):
        return  # Keras' ModelCheckpoint and TensorBoard: their batch hooks do nothing then
    for hook in ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end"):
        # Keras marks its own empty hooks so that it need not call them.
        if not getattr(getattr(callback, hook), "_is_default", False):
            raise SpecError(
                f"training.callbacks must have epoch hooks only, as batches run inside the graph, but {name} "
                f"returned {type(callback).__name__} with {hook}."
            )
