"""The events that a run tells of itself: its begin, its winner, its end."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from fmnist_optuna.described_errors import describe_failure
from fmnist_optuna.errors import InterruptedBySignalError, StoppedError, StorageError
from fmnist_optuna.log import bound_fields, log_event
from fmnist_optuna.results.winner import Winner
from fmnist_optuna.study.session import Session

logger = logging.getLogger(__name__)

STOPS = (StoppedError, InterruptedBySignalError, KeyboardInterrupt)


@contextmanager
def telling_of_study(session: Session, n_new_cells: int) -> Iterator[None]:
    """Tell that a run begins, and how it ended; what happens in between carries the name of the study."""
    record, began = session.record, time.monotonic()
    with bound_fields(study=record.name):
        how: dict[str, object] = {"metric": record.metric.name, "data": record.data_fingerprint}
        log_event(logger, logging.INFO, "study_started", cells=_count(session), new_cells=n_new_cells, **how)
        try:
            yield
        except BaseException as error:
            _tell_end(session, began, error)
            raise
        _tell_end(session, began)


def _tell_end(session: Session, began: float, error: BaseException | None = None) -> None:
    how = "finished" if error is None else "stopped" if isinstance(error, STOPS) else "failed"
    words = error and describe_failure(error)
    seconds = round(time.monotonic() - began, 3)
    log_event(logger, logging.INFO, "study_ended", how=how, cells=_count(session), seconds=seconds, error=words)


def _count(session: Session) -> dict[str, int] | None:
    """Cells by state; None where the storage is what failed."""
    try:
        return dict(vars(replace(session, storage=session.storage.impatient()).history.counts()))
    except StorageError:
        return None


def tell_winner(winner: Winner) -> None:
    """Tell which trial has won, or with folds which point."""
    evaluation, trial = winner.evaluation, winner.own_trial
    log_event(
        logger,
        logging.INFO,
        "winner",
        cell=None if trial is None else winner.attempt.cell_id,
        trial=trial,
        params=winner.params,
        value=winner.value,
        val_accuracy=winner.val_accuracy,
        test_accuracy=None if evaluation is None else evaluation.accuracy,
    )
