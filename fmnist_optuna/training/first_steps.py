"""The built-in architecture's values tried out: some steps without a graph, a tenth of a second."""

import math
from functools import partial

import tensorflow as tf

from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.cell import Params
from fmnist_optuna.training.cell_training import build_cell
from fmnist_optuna.training.loop import has_finite_weights
from fmnist_optuna.training.loss import bind_loss
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.step import TrainingStep, forward
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.user_modules.functions import as_spec_error


def try_values(code: UserCode, params: Params, seed: int, data: ResidentData, batch_size: int, rule: str) -> None:
    """Take the steps of one short epoch and look at the losses and weights that they leave.

    That the architecture's epoch can be traced, and its weights stored and loaded, is known of ours.

    Args:
        data: A few images.
        rule: What must hold, as the beginning of a sentence.

    Raises:
        SpecError: A step fails, or what it leaves is not finite.
    """
    with as_spec_error(f"{rule}, but raised", "while it trains"):
        model = build_cell(code, params, seed)
        n_images = int(data.train_images.shape[0])
        n_steps = math.ceil(n_images / batch_size)
        options = code.spec.options_of(params, code.architecture.parameters)
        step = TrainingStep(model, data, options, code.spec.training.max_epochs, n_steps)
        drawn = {name: tf.constant(values) for name, values in step.draw(seed, 0).items()}
        rows = tf.range(n_images)
        losses = []
        for number in range(n_steps):
            batch = rows[number * batch_size : (number + 1) * batch_size]
            losses.append(float(step(batch, partial(tf.constant, number), drawn)[0]))
        compute_loss = bind_loss(model)
        images = data.validation_images
        losses.append(
            float(compute_loss(images, data.validation_labels, forward(model, images, training=False), False))
        )
        is_finite = all(map(math.isfinite, losses)) and has_finite_weights(model)
    if not is_finite:
        raise SpecError(f"{rule}, but its loss or its weights are not finite after its first steps.")
