"""What a model must leave to Keras, so that the loop may stand in for `fit`: refused by name where it does not."""

from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from fmnist_optuna.errors import SpecError

# Parts of `fit` whose place the compiled epoch takes. `compute_loss`, `reset_metrics`, `metrics` and `compile` are
# called as `fit` calls them, and may be the user's.
STEPS = (
    *("fit", "evaluate", "train_on_batch", "test_on_batch"),
    *("train_step", "test_step", "make_train_function", "make_test_function"),
    *("compute_metrics", "get_metrics_result", "_compute_loss"),
)
# Taken before any code of the user's is imported, which may put others in their place.
STOCK_STEPS = {step: getattr(keras.Model, step) for step in STEPS}
FIT_LIMITS = {"max_epochs": keras.config.max_epochs, "max_steps_per_epoch": keras.config.max_steps_per_epoch}
STOCK_LOSS = keras.Model.compute_loss


def check_steps(model: keras.Model, call: str) -> None:
    """Refuse a model that replaces a part of `fit`, or asks for something of it that the epoch cannot follow.

    Args:
        call: What returned it, for the error.

    Raises:
        SpecError: It does.
    """
    for name, limit in FIT_LIMITS.items():
        if (value := limit()) is not None:
            raise SpecError(
                f"keras.config.set_{name} and KERAS_{name.upper()} must be left alone, as they limit fit alone, but "
                f"{call} has a limit of {value}; set training.max_epochs in the study file."
            )
    if (step := find_own_step(model)) is not None:
        raise SpecError(
            f"model.architecture must leave {step} to Keras, as an epoch is one graph of its own, but {call} "
            f"returned a {type(model).__name__} with a {step} of its own; put what it does into compute_loss, "
            "add_loss, a layer or a callback."
        )
    if model.run_eagerly:
        raise SpecError(
            f"model.architecture must compile without run_eagerly, as an epoch is one graph, but {call} returned a "
            "model with run_eagerly=True; leave it out."
        )
    # By default it is on with a GPU and off without one, where it can only have been asked for.
    if model.jit_compile and all(device.device_type == "CPU" for device in tf.config.list_physical_devices()):
        raise SpecError(
            f"model.architecture must compile without jit_compile, as an epoch is one graph, but {call} returned a "
            "model with jit_compile=True; leave it out."
        )
    if model._distribute_strategy is not None:
        raise SpecError(
            f"model.architecture must build outside of a tf.distribute strategy, but {call} built in "
            f"{type(model._distribute_strategy).__name__}; workers are how a study uses several devices."
        )


def find_own_step(model: keras.Model) -> str | None:
    """Name of a part of `fit` that the model, its class or a patch of Keras itself replaces."""
    for step, stock in STOCK_STEPS.items():
        if step in vars(model) or getattr(type(model), step) is not stock:
            return step
    return None


def has_own_loss(model: keras.Model) -> bool:
    """Whether `compute_loss` is the user's, so that what the model was compiled with need not be its loss."""
    return getattr(model.compute_loss, "__func__", None) is not STOCK_LOSS


def check_averaging(model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Refuse an optimizer that averages weights only for the end of `fit`: the weights kept are those of an epoch.

    Raises:
        SpecError: Its averages would never be used.
    """
    if any(isinstance(callback, keras.callbacks.SwapEMAWeights) for callback in callbacks):
        return
    for optimizer in optimizers_of(model.optimizer):
        if getattr(optimizer, "use_ema", False) and optimizer.ema_overwrite_frequency is None:
            raise SpecError(
                f"An optimizer with use_ema must say when its averages are used, but {type(optimizer).__name__} has "
                "no ema_overwrite_frequency, and Keras would use them after the last epoch only; name a function "
                "that returns keras.callbacks.SwapEMAWeights() in training.callbacks, so that every epoch is "
                "validated with them, and the best ones are kept."
            )


def optimizers_of(optimizer: keras.optimizers.Optimizer) -> Iterator[keras.optimizers.Optimizer]:
    """The optimizer, and those inside of it."""
    yield optimizer
    inner = getattr(optimizer, "inner_optimizer", None)
    for part in [*([] if inner is None else [inner]), *getattr(optimizer, "optimizers", [])]:
        yield from optimizers_of(part)
