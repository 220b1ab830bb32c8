"""The settings of Keras, TensorFlow and NumPy in this process, read and set back as one.

A user's module may set a dtype policy, an epsilon or eager execution as it is imported. `clear_session` would lose some
of these, and what one trial's function sets would reach the next. Which settings exist is known here and nowhere else;
what they are set to is the user's business.
"""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend import config as keras_config
from keras.src.backend.common import global_state
from keras.src.saving import object_registration
from tensorflow.python.eager import context
from tensorflow.python.framework import config as tf_config
from tensorflow.python.framework.ops import gradient_registry

# Of `keras.config`, kept in variables of its module.
CONFIG_VARIABLES = (
    "_FLOATX",
    "_EPSILON",
    "_IMAGE_DATA_FORMAT",
    "_NNX_ENABLED",
    "_MAX_EPOCHS",
    "_MAX_STEPS_PER_EPOCH",
)
# Kept beside layer names and random seeds in what `clear_session` throws away.
SESSION_SETTINGS = (
    "dtype_policy",
    "flash_attention",
    "nnx_enabled",
    "distribution",
    "custom_objects_scope_dict",
    "safe_mode_saving",
    "traceback_filtering",
    "interactive_logging",
    "use_legacy_config",
)
NAMES = "object_name_uids"
# Classes and functions by name, names by class, gradients by name.
REGISTRIES: tuple[dict[Hashable, object], ...] = (
    object_registration.GLOBAL_CUSTOM_OBJECTS,
    object_registration.GLOBAL_CUSTOM_NAMES,
    gradient_registry._registry,
)


class _Setting(NamedTuple):
    """How one setting of TensorFlow or NumPy is read and set."""

    read: Callable[[], object]
    write: Callable[[Any], object]  # takes what `read` gives


GraphOptimizer = tuple[object, dict[str, object]]  # whether XLA compiles, and the options by name


def _set_op_determinism(is_on: bool) -> None:
    if is_on:
        tf_config.enable_op_determinism()
    else:
        tf_config.disable_op_determinism()


def _read_graph_optimizer() -> GraphOptimizer:
    present = context.context()
    return present._optimizer_jit, dict(present._optimizer_experimental_options)


def _set_graph_optimizer(value: GraphOptimizer) -> None:
    present = context.context()
    jit, options = value
    # The public function only adds options.
    present._optimizer_experimental_options.clear()
    tf.config.optimizer.set_experimental_options(options)
    tf.config.optimizer.set_jit(jit)


SETTINGS = {
    "eager_functions": _Setting(tf.config.functions_run_eagerly, tf.config.run_functions_eagerly),
    "op_determinism": _Setting(tf_config.is_op_determinism_enabled, _set_op_determinism),
    "tensor_float_32": _Setting(
        tf.config.experimental.tensor_float_32_execution_enabled,
        tf.config.experimental.enable_tensor_float_32_execution,
    ),
    "graph_optimizer": _Setting(_read_graph_optimizer, _set_graph_optimizer),
    "soft_placement": _Setting(tf.config.get_soft_device_placement, tf.config.set_soft_device_placement),
    "floating_point_errors": _Setting(np.geterr, lambda errors: np.seterr(**errors)),
}


@dataclass(frozen=True)
class FrameworkSettings:
    """What the settings were at one moment.

    Args:
        config: Variables of `keras.config`.
        session: Those that Keras keeps with its session; a name that is not there was not set.
        registered: What was registered with Keras and TensorFlow, a copy of each registry.
        names: How many layers of each name Keras has counted: a layer that an installed package keeps has one of them.
        others: TensorFlow's and NumPy's.
    """

    config: dict[str, object]
    session: dict[str, object]
    registered: tuple[dict[Hashable, object], ...]
    names: Counter[str]
    others: dict[str, object]

    @classmethod
    def read(cls, without: Collection[str] = ()) -> "FrameworkSettings":
        """The settings as they are now.

        Args:
            without: Modules whose classes and functions are left out of what is registered.
        """
        session = vars(global_state.GLOBAL_STATE_TRACKER)
        return cls(
            config={name: getattr(keras_config, name) for name in CONFIG_VARIABLES},
            session={name: session[name] for name in SESSION_SETTINGS if name in session},
            registered=tuple(
                {key: value for key, value in registry.items() if not _is_of(without, key, value)}
                for registry in REGISTRIES
            ),
            names=Counter(session.get(NAMES, {})),
            others={name: setting.read() for name, setting in SETTINGS.items()},
        )

    def set_back(self) -> None:
        """Set every setting to what it was; what was registered stays."""
        for name, value in self.config.items():
            setattr(keras_config, name, value)
        session = vars(global_state.GLOBAL_STATE_TRACKER)
        for name in SESSION_SETTINGS:
            session.pop(name, None)
        session.update(self.session)
        for name, setting in SETTINGS.items():
            if setting.read() != self.others[name]:  # most are as they were, and some writes are slow
                setting.write(self.others[name])

    def unregister(self) -> None:
        """Take back what was registered and named since, so that a module which does it can be executed again."""
        global_state.set_global_attribute(NAMES, self.names.copy())
        for registry, before in zip(REGISTRIES, self.registered, strict=True):
            registry.clear()
            registry.update(before)


def _is_of(modules: Collection[str], key: object, value: object) -> bool:
    registered = value.get("type") if isinstance(value, dict) else value  # TensorFlow keeps where it was registered
    return any(getattr(thing, "__module__", None) in modules for thing in (key, registered))


def clear_session(keep_compiled: bool = False) -> None:
    """Let Keras forget layer names, seeds and graphs, and keep every setting.

    Args:
        keep_compiled: Keep what TensorFlow has compiled: its kernels, and functions that somebody still holds.
    """
    settings = FrameworkSettings.read()
    if keep_compiled:
        vars(global_state.GLOBAL_STATE_TRACKER).clear()
        vars(global_state.GLOBAL_SETTINGS_TRACKER).clear()
        tf.compat.v1.reset_default_graph()
    else:
        keras.backend.clear_session(free_memory=False)  # which would collect as well
    settings.set_back()


def read_session() -> dict[str, object]:
    """All that Keras keeps for its models: layer names, the global seed generator, settings."""
    return dict(vars(global_state.GLOBAL_STATE_TRACKER))


def set_session(session: Mapping[str, object]) -> None:
    """Have a session again that `read_session` gave."""
    present = vars(global_state.GLOBAL_STATE_TRACKER)
    present.clear()
    present.update(session)
