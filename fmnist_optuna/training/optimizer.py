"""The optimizer of a training: the one that the architecture compiles, or another, with the options of the study."""

from collections.abc import Sequence

import keras

from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.options import Options
from fmnist_optuna.training.contract import optimizers_of
from fmnist_optuna.training.schedule import is_scheduled

# What another optimizer in the place of the compiled one would not have.
OF_THE_COMPILED = (
    *("weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "gradient_accumulation_steps", "use_ema"),
    "loss_scale_factor",
)
KEPT = ("bias", "gamma", "beta", "scale")  # variables that are not decayed, whatever their shape


def set_optimizer(model: keras.Model, options: Options) -> None:
    """Give a model that was just built the optimizer that its training asks for.

    Raises:
        SpecError: What the architecture compiled says otherwise already.
    """
    if options.ema and any(getattr(each, "use_ema", False) for each in optimizers_of(model.optimizer)):
        raise SpecError(
            "training.ema must be the only average of the weights, but the architecture compiles "
            f"{type(innermost(model.optimizer)).__name__} with use_ema; leave one of the two out."
        )
    if options.optimizer != "compiled":
        model.optimizer = _replace(model.optimizer, options)
    if options.weight_decay:
        _decay_weights(model, options.weight_decay)
    if is_scheduled(options):
        rate_variable(model.optimizer)  # there must be one


def check_rates(options: Options, callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Refuse a callback of Keras' that sets the learning rate beside a schedule, which sets it for every step.

    Raises:
        SpecError: There is one.
    """
    kinds = keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau
    for callback in callbacks:
        if is_scheduled(options) and isinstance(callback, kinds):
            raise SpecError(
                "training.callbacks must leave the learning rate to training.schedule and training.warmup_epochs, but "
                f"name {type(callback).__name__}; leave one of the two out."
            )


def rate_variable(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """The variable that holds the learning rate of an optimizer.

    Raises:
        SpecError: It has a schedule of its own, or a function.
    """
    rate: keras.Variable | object = getattr(innermost(optimizer), "_learning_rate", None)
    if not isinstance(rate, keras.Variable):
        raise SpecError(
            "training.schedule, training.warmup_epochs and training.optimizer need a learning rate that is a number, "
            f"but the architecture compiles with {type(rate).__name__}; leave the schedule to one of the two."
        )
    return rate


def _replace(compiled: keras.optimizers.Optimizer, options: Options) -> keras.optimizers.Optimizer:
    """An optimizer with the learning rate of the one that was compiled, and scaling the loss where that does."""
    inner = innermost(compiled)
    if further := [f"{name}={value}" for name in OF_THE_COMPILED if (value := getattr(inner, name, None))]:
        raise SpecError(
            f'training.optimizer = "{options.optimizer}" must take the place of one that has a learning rate only, but '
            f"the architecture compiles {type(inner).__name__} with {', '.join(further)}, which would be lost; leave "
            "it out there, or compile the other optimizer."
        )
    rate = float(rate_variable(compiled).numpy())
    replaced: keras.optimizers.Optimizer = (
        keras.optimizers.Adam(rate)
        if options.optimizer == "adam"
        else keras.optimizers.SGD(rate, momentum=float(options.momentum), nesterov=options.momentum > 0)
    )
    if isinstance(compiled, keras.optimizers.LossScaleOptimizer):
        scale, steps = compiled.initial_scale, compiled.dynamic_growth_steps
        replaced = keras.optimizers.LossScaleOptimizer(replaced, initial_scale=scale, dynamic_growth_steps=steps)
    return replaced


def _decay_weights(model: keras.Model, weight_decay: float) -> None:
    """Let each step take a share of every matrix and kernel; biases and normalisations keep theirs."""
    optimizer = innermost(model.optimizer)
    if optimizer.weight_decay is not None:
        raise SpecError(
            f"training.weight_decay must be left out, or {type(optimizer).__name__} be compiled without one, but the "
            f"architecture compiles it with weight_decay={optimizer.weight_decay}."
        )
    optimizer.weight_decay = weight_decay
    kept = [each for each in model.trainable_variables if len(each.shape) < 2 or each.name in KEPT]
    try:
        optimizer.exclude_from_weight_decay(var_list=kept)
    except ValueError as error:  # its state was made already
        raise SpecError(
            "training.weight_decay must be told to an optimizer before its first step, but the architecture has built "
            f"{type(optimizer).__name__} already; leave that to the training."
        ) from error


def innermost(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The one that takes the steps.

    Raises:
        SpecError: There are several.
    """
    chain = list(optimizers_of(optimizer))
    if any(isinstance(each, keras.optimizers.MultiOptimizer) for each in chain):
        raise SpecError(
            "training.optimizer, schedule, warmup_epochs and weight_decay are for one optimizer, but the architecture "
            "compiles a MultiOptimizer; give these to its parts there."
        )
    return chain[-1]
