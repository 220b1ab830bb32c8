"""One step of a training: a batch as the epoch has it, the loss, the gradients, the optimizer.

It is the step of Keras' own `train_step`, with what the options of the study add: nothing where they say nothing.
"""

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.options import Options
from fmnist_optuna.training.augmentation import SHARES, AugmentedImages, Drawn, mix, partners
from fmnist_optuna.training.averages import AveragedWeights
from fmnist_optuna.training.distillation import Teaching
from fmnist_optuna.training.label_smoothing import smoothing_of
from fmnist_optuna.training.loss import bind_loss
from fmnist_optuna.training.optimizer import innermost, rate_variable, set_optimizer
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.schedule import is_scheduled, learning_rates
from fmnist_optuna.user_modules.functions import as_spec_error

RATES = "rates"


def adapt(model: keras.Model, images: tf.Tensor) -> None:
    """Tell a model the training images, where it has a function `adapt_to` for that.

    Raises:
        SpecError: It raised.
    """
    if (adapt_to := getattr(model, "adapt_to", None)) is not None:
        with as_spec_error("adapt_to of the model must take the training images, but raised", "when it is called"):
            adapt_to(images)


class TrainingStep:
    """Takes the steps of one training, in a graph or outside of one.

    Args:
        model: Compiled and built, not trained yet. Where it has a function `adapt_to`, that is given the training
            images; its optimizer is told the options, and its state is made.
        data: Resident images and labels.
        options: Of the training.
        max_epochs: Cap on epochs, at which a schedule ends.
        n_steps: Of an epoch.

    Attributes:
        averages: Of the weights; None where they are not asked for.
        n_steps: Of an epoch.

    Raises:
        SpecError: An option does not go with the model or the images.
    """

    def __init__(self, model: keras.Model, data: ResidentData, options: Options, max_epochs: int, n_steps: int) -> None:
        adapt(model, data.train_images)
        set_optimizer(model, options)
        self.n_steps, self.averages = n_steps, AveragedWeights.of(model, options)
        self._model, self._options, self._max_epochs = model, options, max_epochs
        self._images, self._labels = AugmentedImages.of(options, data.info, data.train_images), data.train_labels
        self._weights = data.train_weights
        self._rate = rate_variable(model.optimizer) if is_scheduled(options) else None
        self._peak = 0.0 if self._rate is None else float(self._rate.numpy())
        self._teaching = Teaching.of(model, data, options)
        weight_of_labels = 1.0 if self._teaching is None else 1 - options.teacher_weight
        self._smoothing = smoothing_of(model, options, weight_of_labels)
        model.optimizer.build(model.trainable_variables)

    def draw(self, seed: int, epoch: int) -> Drawn:
        """What the options ask for in an epoch: what `Augmentation.draw` gives, and `rates` float32 (n_steps,).

        Args:
            epoch: 0-based.
        """
        n_images = int(self._labels.shape[0])
        drawn = dict(self._images.augmentation.draw(n_images, self.n_steps, seed, epoch))
        if self._rate is not None:
            drawn[RATES] = self._peak * learning_rates(self._options, epoch, self.n_steps, self._max_epochs)
        return drawn

    def check_rate(self, epoch: int) -> None:
        """Refuse a learning rate that somebody else has set, as the schedule would overrule it.

        Args:
            epoch: 0-based, the one that comes.

        Raises:
            SpecError: A callback did.
        """
        if self._rate is None:
            return
        left = self._peak
        if epoch:
            left *= float(learning_rates(self._options, epoch - 1, self.n_steps, self._max_epochs)[-1])
        is_same = getattr(innermost(self._model.optimizer), "_learning_rate", None) is self._rate
        held, left = (float(tf.cast(rate, self._rate.dtype)) for rate in (self._rate, left))  # it may be bfloat16
        if not is_same or not np.isclose(held, left, rtol=1e-5, atol=0):
            raise SpecError(
                "training.callbacks must leave the learning rate to training.schedule and training.warmup_epochs, but "
                f"one set it before epoch {epoch + 1}; leave one of the two out."
            )

    def __call__(
        self, rows: tf.Tensor, number: Callable[[], tf.Tensor], drawn: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Take one step.

        Args:
            rows: Places of the batch's images in the data, int32 (batch,).
            number: Gives that of the step in its epoch, int32 scalar, 0-based, where it is asked for.
            drawn: For the epoch.

        Returns:
            The mean loss of the batch, the model's output and the labels, those with the larger share where images are
            mixed.
        """
        model = self._model
        if self._rate is not None:
            self._rate.assign(drawn[RATES][number()])
        images, labels = self._images.take(rows, drawn), tf.gather(self._labels, rows)
        share = drawn[SHARES][number()] if SHARES in drawn else None
        if share is not None:
            images = mix(images, share)
        with tf.GradientTape() as tape:
            output = forward(model, images, training=True)
            loss = self._loss(images, labels, rows, output, share)
            scaled = model.optimizer.scale_loss(loss)
        weights = model.trainable_weights
        model.optimizer.apply_gradients(zip(tape.gradient(scaled, weights), weights, strict=True))
        if self.averages is not None and self._options.ema_after == "step":
            self.averages.update()
        return loss, output, labels

    def _loss(
        self, images: tf.Tensor, labels: tf.Tensor, rows: tf.Tensor, output: tf.Tensor, share: tf.Tensor | None
    ) -> tf.Tensor:
        loss = self._loss_of(images, labels, rows, output)
        if share is None:
            return loss
        share = tf.cast(share, loss.dtype)
        return share * loss + (1 - share) * self._loss_of(images, partners(labels), partners(rows), output)

    def _loss_of(self, images: tf.Tensor, labels: tf.Tensor, rows: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
        weights = None if self._weights is None else tf.gather(self._weights, rows)
        loss = bind_loss(self._model, weights is not None)(images, labels, output, True, weights)
        if self._smoothing is not None:
            loss += tf.cast(self._smoothing(labels, output, weights), loss.dtype)
        if self._teaching is not None:
            targets = tf.gather(self._teaching.targets, rows)
            loss += tf.cast(self._teaching.add(labels, targets, output, weights), loss.dtype)
        return loss


def forward(model: keras.Model, images: tf.Tensor, training: bool) -> tf.Tensor:
    """The model's output, with the argument `training` only where its call has it: as Keras' own steps do."""
    return model(images, training=training) if model._call_has_training_arg else model(images)
