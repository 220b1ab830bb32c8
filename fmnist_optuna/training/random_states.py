"""The state of all random generators that belong to the process: Python's, NumPy's and TensorFlow's.

Keras' own generator is a variable. What TensorFlow's operations keep within a graph, as `tf.random.normal` does there,
cannot be read.
"""

import random
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR, global_seed_generator
from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED
from tensorflow.python.eager import context

EAGER_RANDOM = "_rng"  # attribute of TensorFlow's context: gives each operation outside of graphs a seed


@dataclass(frozen=True)
class RandomStates:
    """The states at one moment.

    Args:
        python: Of `random`.
        numpy: Of `np.random`.
        seed: Of TensorFlow's operations outside of graphs; None without one.
        tensorflow: Of the generator that gives each such operation its own; None without a seed.
    """

    python: tuple[object, ...]
    numpy: dict[str, Any]
    seed: int | None
    tensorflow: tuple[object, ...] | None

    @classmethod
    def read(cls) -> "RandomStates":
        """The states as they are now."""
        present = context.context()
        seed = present._seed
        return cls(
            random.getstate(),
            np.random.get_state(legacy=False),
            None if seed is None else int(seed),
            None if seed is None else getattr(present, EAGER_RANDOM).getstate(),
        )

    def set_back(self) -> None:
        """Let every generator go on from here; operations of TensorFlow that were compiled stay so."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        eager = _seed_tensorflow(self.seed)
        if self.tensorflow is not None:
            eager.setstate(self.tensorflow)


def set_seeds(seed: int, keep_compiled: bool = False) -> None:
    """`keras.utils.set_random_seed`.

    Args:
        keep_compiled: Keep what TensorFlow has compiled, which that function throws away: 0.07 s of the next training,
            and half of what it takes a paused one to go on. Operations that were compiled with this very seed would go
            on where they were.
    """
    if not keep_compiled:
        keras.utils.set_random_seed(seed)
        return
    global_state.set_global_attribute(GLOBAL_RANDOM_SEED, seed)
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)
    random.seed(seed)
    np.random.seed(seed)
    _seed_tensorflow(seed)


def _seed_tensorflow(seed: int | None) -> random.Random:
    """`tf.random.set_seed`, with what is compiled left alone; returns what operations outside of graphs draw from."""
    present = context.context()
    present._seed = seed
    eager = random.Random(seed)
    setattr(present, EAGER_RANDOM, eager)
    return eager


def find_global_generator() -> tf.Variable | None:
    """The variable of the generator that `keras.random` draws from without a seed; None before its first use."""
    generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    return None if generator is None else generator.state.value


def make_global_generator() -> tf.Variable:
    """The same, made where it is not there."""
    return global_seed_generator().state.value


def forget_global_generator() -> None:
    """Let it be made anew at its next use."""
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)
