"""An open study, and how one opens it."""

from types import TracebackType
from typing import Self

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.ledger.connecting import open_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.records import CellCounts, WorkerRow
from fmnist_optuna.results.winner import Winner, find_winner
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.attempts import find_attempt, flat_table, list_attempts
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study, raise_generation
from fmnist_optuna.study.verification import Verification


class Study:
    """A study of a storage. `run_study` and `open_study` make it; a `with` block closes its connections.

    What reads from the storage or writes to it waits out an outage.

    Raises:
        StorageError: In each of its methods: the storage stays away, or what it says is damaged.

    Example:
        with open_study("fashion-mnist") as study:
            print(study.status().done, study.best().params)
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def name(self) -> str:
        """Of the study; where drawn garments stand in for the data, it ends in "-synthetic"."""
        return self._session.record.name

    @property
    def spec(self) -> StudySpec:
        """What is searched; the grid is the newest that was accepted."""
        return self._session.record.spec

    @property
    def dataset(self) -> DatasetInfo:
        """What its images and labels are."""
        return self._session.record.info

    @property
    def is_demo(self) -> bool:
        """Whether its images only stand in for real ones, as drawn garments do: its numbers say nothing about those."""
        return self._session.record.info.is_demo

    @property
    def is_on_all_data(self) -> bool:
        """Whether it trains on the validation images too, as NAME/all-data does: no val_accuracy of it is a score."""
        return self._session.record.is_on_all_data

    def status(self) -> CellCounts:
        """Number of cells by state."""
        return self._session.history.counts()

    def workers(self) -> list[WorkerRow]:
        """The workers that were seen of late, wherever they run."""
        return self._session.history.workers()

    def trials(self) -> list[dict[str, object]]:
        """All attempts, the best first, as rows that `pandas.DataFrame` takes.

        Returns:
            A dictionary for each attempt: trial (its number), cell, state, val_accuracy (0..1 or None), epochs,
            seconds, attempt (from 1), worker, reason, error, rung (the epoch at which it is parked or was cut, or
            None), foreign, value and metric (what the study compares by), trained_on_validation (as `is_on_all_data`),
            and a column "params_NAME" for each parameter.

        Example:
            pandas.DataFrame(study.trials()).groupby("params_hidden_size").val_accuracy.max()
        """
        _, rows = flat_table(list_attempts(self._session), self._session.record)
        return [dict(row) for row in rows]

    def curve(self, trial: int) -> list[Epoch]:
        """What the epochs of a trial measured.

        Args:
            trial: Its number.

        Raises:
            NotFoundError: The study has no such trial.
        """
        return self._session.history.curve(find_attempt(self._session, trial).trial_id)

    def best(self) -> Winner:
        """The winner so far, with its score on the test set once there is one; nothing is scored.

        Raises:
            NotFoundError: No trial is complete yet.
            UsageError: It trains on its validation images, by which nothing may be chosen.
        """
        return find_winner(self._session)

    def verify(self) -> Verification:
        """Whether every cell has exactly one result, with what contradicts it; no study needs to be finished for it."""
        return verify_study(self._session)

    def stop(self) -> None:
        """Let every worker of the study leave after its epoch, wherever it runs; `run_study` goes on with it."""
        raise_generation(self._session.storage, self._session.record.study_id)

    def close(self) -> None:
        """Close the connections to the storage."""
        self._session.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Study {self.name} in {self._session.storage.name}>"


def open_study(name: str | None = None, *, storage: str | None = None) -> Study:
    """A study that is there, to be read, confirmed or exported; nothing is created.

    Args:
        name: Of the study; None for the only one of the storage.
        storage: As `run_study` has it.

    Raises:
        NotFoundError: No such study, or no storage there.
        UsageError: No name, and several studies.
        StorageError: The storage cannot be read, or an earlier version made it (`fmnist-optuna upgrade`).

    Example:
        pandas.DataFrame(open_study("fashion-mnist").trials())
    """
    opened = open_storage(StorageOptions.from_environment(storage))
    try:
        return Study(Session(opened, find_study(opened, name)))
    except BaseException:
        opened.close()
        raise
