"""Everything that a process needs to work on one study: its record, ledger, trials, workers and recovery."""

from dataclasses import dataclass
from functools import cached_property

import optuna
from optuna.storages import BaseStorage

from fmnist_optuna.grid import Params
from fmnist_optuna.study.history import History
from fmnist_optuna.study.ledger import Ledger, Timing
from fmnist_optuna.study.openings import Openings
from fmnist_optuna.study.optuna_storage import open_optuna
from fmnist_optuna.study.presence import Presence
from fmnist_optuna.study.recovery import Recovery
from fmnist_optuna.study.storage import Storage
from fmnist_optuna.study.studies import StudyRecord
from fmnist_optuna.study.trials import LedgerGridSampler, make_pruner, make_sampler


@dataclass(frozen=True)
class Session:
    """One process at work on one study.

    Args:
        storage: Open storage.
        record: The study.
        timing: Lease and intervals.
        name: Who this is: a worker's id, or the supervisor's.
    """

    storage: Storage
    record: StudyRecord
    timing: Timing
    name: str

    @cached_property
    def trials(self) -> BaseStorage:
        """Optuna's storage over the same engine."""
        return self.storage.patience.call(lambda: open_optuna(self.storage), "open_optuna")

    @cached_property
    def study(self) -> optuna.Study:
        """The study as Optuna has it."""

        def load() -> optuna.Study:
            return optuna.load_study(
                study_name=self.record.name,
                storage=self.trials,
                sampler=make_sampler(self.record.spec.grid),
                pruner=make_pruner(self.record.spec.pruner),
            )

        return self.storage.patience.call(load, "load_study")

    @cached_property
    def ledger(self) -> Ledger:
        """The cells."""
        return Ledger(self.storage, self.record.study_id, self.timing)

    @cached_property
    def history(self) -> History:
        """Progress and curves."""
        return History(self.storage, self.record.study_id)

    @cached_property
    def openings(self) -> Openings:
        """The openings of the test set."""
        return Openings(self.storage, self.record.study_id)

    @cached_property
    def presence(self) -> Presence:
        """The workers."""
        return Presence(self.storage, self.record.study_id)

    @cached_property
    def recovery(self) -> Recovery:
        """Healing."""
        return Recovery(self.ledger, self.trials, self.presence, self.name)

    def sampler_for(self, params: Params) -> LedgerGridSampler:
        """The sampler of the newest accepted grid that has this point."""
        return make_sampler(self.record.grid_of(params))
