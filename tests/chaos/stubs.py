"""Worker processes that train nothing, and the study that they work on."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess

from commands import NAME
from proof import prove
from small_study import create_study, make_spec
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from victims import StubObjective, start

from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.ledger.connecting import open_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.records import Claim, Timing
from fmnist_optuna.ledger.tables import cells
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study
from fmnist_optuna.work.loop import LeaveRequest, work

PATIENCE_SECONDS = 60.0


class Stubs:
    """A study and its workers; at the end of the `with` block none is left.

    Args:
        url: The storage.
        n_cells: Of the study.
        timing: Of everybody.
    """

    def __init__(self, url: str, n_cells: int, timing: Timing) -> None:
        storage = create_storage(StorageOptions(url, patience_seconds=PATIENCE_SECONDS, timing=timing))
        record = create_study(storage, make_spec({"hidden_size": list(range(1, n_cells + 1))}, NAME))
        self.session = Session(storage, record, "tests")
        self._url, self._n_cells, self._timing = url, n_cells, timing
        self._processes: list[BaseProcess] = []

    def start(self, target: Callable[..., None], name: str, *more: object) -> BaseProcess:
        """One more worker."""
        self._processes.append(start(target, self._url, NAME, name, self._timing, *more))
        return self._processes[-1]

    @property
    def n_done(self) -> int:
        """Cells that are done."""
        return self.session.history.counts().done

    @property
    def claims(self) -> list[int]:
        """How often each cell was claimed, the fewest first."""
        with self.session.storage.read() as connection:
            return sorted(connection.execute(select(cells.c.claims)).scalars())

    def prove(self, tally: Callable[..., None], **done: int) -> None:
        """Assert that the study is finished and sound, and note what was done to it."""
        found = prove(self.session, self._n_cells)
        tally(
            cells=found.n_cells, **done, lost=found.n_missing, doubled=found.n_duplicates,
            stuck=found.n_running + found.n_surplus,
        )  # fmt: skip

    def __enter__(self) -> "Stubs":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        self.session.storage.close()


def freeze_in_transaction(url: str, study: str, name: str, timing: Timing) -> None:
    """A worker that stops itself once, in a transaction at its first epoch: its cell's row is locked then."""
    storage = open_storage(StorageOptions(url, patience_seconds=PATIENCE_SECONDS, timing=timing))
    session = Session(storage, find_study(storage, study), name)
    session.presence.register(name, fresh_seconds=timing.lease_seconds)

    record_epoch = session.ledger.record_epoch

    def stop_and_record(claim: Claim, trial_id: int, epoch: Epoch) -> int | None:
        vars(session.ledger)["record_epoch"] = record_epoch
        with suppress(DBAPIError), storage.write() as connection:
            connection.execute(session.ledger._renewal(claim))
            os.kill(os.getpid(), signal.SIGSTOP)
        return record_epoch(claim, trial_id, epoch)

    vars(session.ledger)["record_epoch"] = stop_and_record
    work(session, StubObjective(), LeaveRequest(), session.record.generation)
