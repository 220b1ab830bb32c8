"""The learning rate of every step, as a share of its peak: constant, a cosine, or one cycle of straight lines."""

import math

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.spec.options import Options

RISE = 0.25  # of all epochs, in which one cycle rises by default


def learning_rates(options: Options, epoch: int, n_steps: int, max_epochs: int) -> NDArray[np.float32]:
    """The learning rates of one epoch, float32 (n_steps,), as shares of the peak, 0..1.

    Over T steps, of which W are of the warm-up (of one cycle the first quarter, where no warm-up is given), step t has
    (t + 1) / (W + 1) of the peak while t < W. After that, with p = (t - W) / (T - W) and a floor f, a cosine has
    f + (1 - f) (1 + cos(pi p)) / 2 (Loshchilov and Hutter 2016, arXiv:1608.03983, without restarts) and a cycle
    f + (1 - f) (1 - p), a straight line (Smith 2018, arXiv:1803.09820).

    Args:
        epoch: 0-based.
        n_steps: Of each epoch.
        max_epochs: Cap on epochs: the schedule ends with it, whether the training does or not. A constant rate and its
            warm-up do not depend on it.
    """
    warmup_epochs = options.warmup_epochs or (RISE * max_epochs if options.schedule == "one-cycle" else 0.0)
    if options.schedule != "constant":  # whose warm-up ends where it does, however short a training on all data is
        warmup_epochs = min(warmup_epochs, max_epochs)
    n_total, n_warm = n_steps * max_epochs, warmup_epochs * n_steps
    step = np.arange(epoch * n_steps, (epoch + 1) * n_steps, dtype=np.float64)
    progress = np.clip((step - n_warm) / max(n_total - n_warm, 1.0), 0.0, 1.0)
    fallen = {
        "constant": np.ones_like(step),
        "cosine": (1 + np.cos(math.pi * progress)) / 2,
        "one-cycle": 1 - progress,
    }[options.schedule]
    floor = options.learning_rate_floor
    shares = np.where(step < n_warm, (step + 1) / (n_warm + 1), floor + (1 - floor) * fallen)
    return shares.astype(np.float32)


def is_scheduled(options: Options) -> bool:
    """Whether the learning rate changes from step to step."""
    return options.schedule != "constant" or options.warmup_epochs > 0
