"""Which weights a training keeps: those of its best epoch, or those of its last."""

import math
from collections.abc import Mapping

import keras
import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.metric import VAL_ACCURACY, Metric
from fmnist_optuna.wording import count


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights with the best value of a metric, the first among equals, and stops when it gets no better.

    The weights are taken when the validation ends, first of all callbacks: they are the very ones that were validated,
    also where SwapEMAWeights, or the option `ema`, then puts others back.

    Args:
        patience: Epochs without a better value before training stops, >= 1.
        metric: Of the validation images.
    """

    def __init__(self, patience: int, metric: Metric = VAL_ACCURACY) -> None:
        super().__init__()
        self.best_epoch = 0
        self._patience = patience
        self._name, self._sign = metric.name_in_logs, metric.score(1.0)  # plain values, as a checkpoint has them
        self._epoch = 0
        self._best = -math.inf
        self._weights: list[NDArray[np.generic]] | None = None

    @property
    def n_bytes(self) -> int:
        """Memory of the weights that it keeps."""
        return sum(weights.nbytes for weights in self._weights or ())

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Note the epoch."""
        self._epoch = epoch

    def on_test_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Keep the weights if they are the best so far."""
        score = self._sign * float((logs or {})[self._name])
        if self._is_better(score):
            self._best, self.best_epoch, self._weights = score, self._epoch, self.model.get_weights()

    def _is_better(self, score: float) -> bool:
        return score > self._best

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Stop the training when the patience is over."""
        if epoch - self.best_epoch >= self._patience:
            self.model.stop_training = True

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Put the best weights into the model."""
        if self._weights is not None:
            self.model.set_weights(self._weights)

    def check_end(self, n_epochs: int, max_epochs: int) -> None:
        """Refuse an end that the weights to be kept do not allow; whatever callbacks do, the best ones allow it.

        Args:
            n_epochs: That were trained.
            max_epochs: That were to be trained.
        """


class LastWeights(BestWeights):
    """Keeps the weights of the last epoch, however they score; as none is worse, it never stops.

    A class of its own, so that a checkpoint of the one is none of the other.
    """

    def _is_better(self, score: float) -> bool:
        return True

    def check_end(self, n_epochs: int, max_epochs: int) -> None:
        """Refuse the end of a training that a callback stopped, or whose weights it replaced.

        The study may cut a training, which then keeps no weights: it stops none by `stop_training`.

        Raises:
            SpecError: A callback did so.
        """
        if n_epochs < max_epochs:
            if self.model.stop_training:
                raise _not_the_last(f"stopped it after {n_epochs} of {count(max_epochs, 'epoch')}")
        elif not self._are_held():
            raise _not_the_last("put other weights in when it ended")

    def _are_held(self) -> bool:
        """Whether the model has the very weights that were kept, which with averages are the averaged ones."""
        pairs = zip(self.model.get_weights(), self._weights or (), strict=True)
        return all(np.asarray(held).tobytes() == np.asarray(kept).tobytes() for held, kept in pairs)


def _not_the_last(what: str) -> SpecError:
    return SpecError(
        'With training.keep_weights = "last", as on all data, a training must run to its last epoch and keep the '
        f"weights of that, but a callback {what}; leave the callback out of training.callbacks."
    )
