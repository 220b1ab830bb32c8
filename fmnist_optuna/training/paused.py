"""Trainings that wait in memory until they go on: at no cost but their memory, which is bounded."""

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import keras

from fmnist_optuna.described_errors import describe_error
from fmnist_optuna.errors import is_ctrl_c
from fmnist_optuna.log import log_event
from fmnist_optuna.training.running_cell import CellTraining
from fmnist_optuna.training.user_code import Surroundings, UserCode

logger = logging.getLogger(__name__)

N_AT_MOST = 16
BYTES_AT_MOST = 512 * 2**20
BYTES_OF_GRAPHS = 8 * 2**20  # of a training beside its variables


@dataclass(frozen=True)
class _Paused:
    cell: CellTraining
    surroundings: Surroundings
    n_bytes: int


class PausedTrainings:
    """Keeps trainings of one process by their cells; the least recently kept one goes first when there are too many.

    A training that was let go must be had from its checkpoint: write that before `keep`.

    Args:
        code: What all of them were begun with.
        n_at_most: Trainings.
        bytes_at_most: Of their variables and best weights, with `BYTES_OF_GRAPHS` each for the graphs.
    """

    def __init__(self, code: UserCode, n_at_most: int = N_AT_MOST, bytes_at_most: float = BYTES_AT_MOST) -> None:
        self._code, self._n_at_most, self._bytes_at_most = code, n_at_most, bytes_at_most
        self._kept: OrderedDict[str, _Paused] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, cell_id: str) -> bool:
        return cell_id in self._kept

    def cells(self) -> list[str]:
        """Whose they are."""
        return list(self._kept)

    def keep(self, cell_id: str, cell: CellTraining) -> None:
        """Take over a training that has just run, before anything else begins or `UserCode.end` is called.

        The caller need not close it any more.
        """
        self.drop(cell_id)
        n_bytes = cell.n_bytes + BYTES_OF_GRAPHS
        self._kept[cell_id] = _Paused(cell, self._code.leave(), n_bytes)
        while len(self._kept) > self._n_at_most or self._n_bytes() > self._bytes_at_most:
            self.drop(next(iter(self._kept)))

    def take(
        self, cell_id: str, watchers: Sequence[keras.callbacks.Callback], n_epochs: int = 0
    ) -> CellTraining | None:
        """Give a training back, ready to run on; None if it is not here. It is the caller's to close.

        Args:
            watchers: Its callers' callbacks from here on, as many as it had.
            n_epochs: Drop it if it has fewer: it went on elsewhere.
        """
        paused = self._kept.get(cell_id)
        if paused is None or paused.cell.n_epochs < n_epochs:
            self.drop(cell_id)
            return None
        del self._kept[cell_id]
        self._code.enter(paused.surroundings)
        paused.cell.go_on(watchers)
        return paused.cell

    def drop(self, cell_id: str) -> None:
        """Let a training go, if it is here."""
        if (paused := self._kept.pop(cell_id, None)) is not None:
            paused.cell.close()

    def end(self, n_epochs: Mapping[str, int]) -> None:
        """End the trainings of cells that were cut, and let them go: their callbacks are told, as `fit` does.

        What a callback raises then is logged: the trial has its result.

        Args:
            n_epochs: By cell, the epochs after which it was cut. A training with others went on elsewhere.
        """
        ended = [each for each, n in n_epochs.items() if each in self._kept and self._kept[each].cell.n_epochs == n]
        for cell_id in ended:
            self._code.enter(self._kept[cell_id].surroundings)
            try:
                self._kept[cell_id].cell.end()
            except BaseException as error:  # sys.exit in a callback
                if is_ctrl_c(error):
                    raise
                log_event(logger, logging.WARNING, "not_ended", error, cell=cell_id, error=describe_error(error))
            self.drop(cell_id)
        if ended:
            self._code.end(keep_models=True)  # others are kept here

    def drop_idle(self, cell_ids: Iterable[str], n_epochs: Mapping[str, int]) -> None:
        """Let those of some cells go that nobody will take.

        Args:
            n_epochs: By cell, of those that may go on from here. A training with others went on elsewhere.
        """
        for cell_id in cell_ids:
            if (paused := self._kept.get(cell_id)) is not None and n_epochs.get(cell_id) != paused.cell.n_epochs:
                self.drop(cell_id)

    def drop_all(self) -> None:
        """Let all of them go."""
        for cell_id in list(self._kept):
            self.drop(cell_id)

    def _n_bytes(self) -> int:
        return sum(paused.n_bytes for paused in self._kept.values())
