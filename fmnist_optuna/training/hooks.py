"""The hooks of callbacks that the loop cannot call, and the quantities that they monitor: refused by name.

The loop calls what `fit` calls around training, epochs and validations. Batches run inside the graph, and nothing
predicts in a training.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import keras

from fmnist_optuna.errors import SpecError

BATCH_HOOKS = (
    *("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end"),
    *("on_test_batch_begin", "on_test_batch_end"),
)
RATE = "learning_rate"  # what Keras' callbacks for it add to the logs


def _saves_each_epoch(callback: keras.callbacks.Callback) -> bool:
    return bool(callback.save_freq == "epoch")


def _writes_each_epoch(callback: keras.callbacks.Callback) -> bool:
    is_profiling = callback._start_batch or callback._stop_batch
    return bool(callback.update_freq == "epoch" and not callback.write_steps_per_second and not is_profiling)


# Batch hooks of Keras' own that do nothing as long as this holds of their callback.
IDLE_HOOKS: tuple[tuple[type[keras.callbacks.Callback], Callable[[keras.callbacks.Callback], bool]], ...] = (
    (keras.callbacks.ModelCheckpoint, _saves_each_epoch),
    (keras.callbacks.BackupAndRestore, _saves_each_epoch),
    (keras.callbacks.OrbaxCheckpoint, _saves_each_epoch),
    (keras.callbacks.TensorBoard, _writes_each_epoch),
)


def check_hooks(callback: keras.callbacks.Callback, source: str) -> None:
    """Refuse a callback with a batch hook that would do something, inherited ones included.

    Args:
        source: The function that returned it, for the error.

    Raises:
        SpecError: It has one.
    """
    for hook in BATCH_HOOKS:
        if not (_is_empty(callback, hook) or _is_idle(callback, hook)):
            raise SpecError(
                f"training.callbacks must have epoch hooks only, as batches run inside the graph, but {source} "
                f"returned {type(callback).__name__} with {hook}."
            )


def _is_empty(callback: keras.callbacks.Callback, hook: str) -> bool:
    """Whether it is Keras' own empty hook: Keras marks them so that it need not call them."""
    return bool(getattr(getattr(callback, hook), "_is_default", False))


def _is_idle(callback: keras.callbacks.Callback, hook: str) -> bool:
    """Whether it is a hook of one of Keras' classes, unchanged, that does nothing in this callback."""
    function = getattr(getattr(callback, hook), "__func__", None)
    return any(function is getattr(kind, hook) and does_nothing(callback) for kind, does_nothing in IDLE_HOOKS)


class MonitorCheck(keras.callbacks.Callback):
    """Stands before a callback and refuses it when no log has what it monitors, with all names that there are."""

    def __init__(self, watched: keras.callbacks.Callback) -> None:
        super().__init__()
        self._watched = watched

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Look into the logs as the callback will see them.

        Raises:
            SpecError: They do not have what it monitors.
        """
        if self._watched.monitor not in (logs or {}):
            raise _unknown_monitor(self._watched, logs or {})


def check_monitors(
    callbacks: Sequence[keras.callbacks.Callback], measured: Collection[str]
) -> list[keras.callbacks.Callback]:
    """Refuse callbacks that monitor what nobody measures, and tell the others which way val_accuracy is better.

    A callback of the user's own may add to the logs what those after it monitor: then the logs of the first epoch
    decide.

    Args:
        measured: Names in the logs at the end of an epoch.

    Returns:
        The callbacks, in front of some a check.

    Raises:
        SpecError: A callback monitors something else.
    """
    checked: list[keras.callbacks.Callback] = []
    known, may_have_more = set(measured), False
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if isinstance(callback, keras.callbacks.LearningRateScheduler | keras.callbacks.ReduceLROnPlateau):
            known.add(RATE)
        if isinstance(monitor, str):
            if monitor not in known:
                if not may_have_more:
                    raise _unknown_monitor(callback, known)
                checked.append(MonitorCheck(callback))
            if monitor.removeprefix("val_") == "accuracy" and getattr(callback, "mode", None) == "auto":
                callback.mode = "max"  # Keras would look for it among the compiled metrics, which need not have it
        checked.append(callback)
        may_have_more = may_have_more or _may_add_to_logs(callback)
    return checked


def check_evaluation(model: keras.Model) -> None:
    """Refuse a validation that a callback would end early: the score is one of all validation images.

    Raises:
        SpecError: `stop_evaluating` was set in on_test_begin.
    """
    if model.stop_evaluating:
        raise SpecError(
            "training.callbacks must let every validation see all images, but one set model.stop_evaluating in "
            "on_test_begin, which ends it after one batch; set model.stop_training to end the training."
        )


def _may_add_to_logs(callback: keras.callbacks.Callback) -> bool:
    """Whether its epoch hook is the user's code."""
    hook = callback.on_epoch_end
    return not _is_empty(callback, "on_epoch_end") and not getattr(hook, "__module__", "").startswith(
        ("keras.", "fmnist_optuna.")
    )


def _unknown_monitor(callback: keras.callbacks.Callback, known: Collection[str]) -> SpecError:
    return SpecError(
        f"training.callbacks must monitor what the training measures ({', '.join(sorted(known))}), but "
        f"{type(callback).__name__} monitors {callback.monitor}; metrics that the model is compiled with are measured "
        "on the validation images, as val_ and their name."
    )
