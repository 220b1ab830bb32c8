"""The built-in architecture's values tried out: some steps without a graph, a tenth of a second."""

import math

import tensorflow as tf

from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.cell import Params
from fmnist_optuna.training.cell_training import build_cell
from fmnist_optuna.training.engine import ResidentData, forward
from fmnist_optuna.training.loop import has_finite_weights
from fmnist_optuna.training.loss import bind_loss
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
        compute_loss, optimizer = bind_loss(model), model.optimizer
        losses = []
        for begin in range(0, int(data.train_images.shape[0]), batch_size):
            images, labels = (part[begin : begin + batch_size] for part in (data.train_images, data.train_labels))
            with tf.GradientTape() as tape:
                loss = compute_loss(images, labels, forward(model, images, training=True), True)
                scaled = optimizer.scale_loss(loss)
            weights = model.trainable_weights
            optimizer.apply_gradients(zip(tape.gradient(scaled, weights), weights, strict=True))
            losses.append(float(loss))
        images = data.validation_images
        losses.append(
            float(compute_loss(images, data.validation_labels, forward(model, images, training=False), False))
        )
        is_finite = all(map(math.isfinite, losses)) and has_finite_weights(model)
    if not is_finite:
        raise SpecError(f"{rule}, but its loss or its weights are not finite after its first steps.")
