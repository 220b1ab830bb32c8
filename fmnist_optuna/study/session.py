"""A handle of one study in an open storage: its parts, each made when it is first asked for.

Who needs one part only, as the ledger or the history, is given that part.

Optuna is imported when it is first asked for, as many a reading command does without.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from fmnist_optuna.artifacts.bucket import Bucket
from fmnist_optuna.artifacts.bucket_checkpoints import BucketCheckpoints
from fmnist_optuna.artifacts.checkpoints import Checkpoints
from fmnist_optuna.artifacts.soft_labels import SoftLabels
from fmnist_optuna.bridge.own_trials import is_made_under
from fmnist_optuna.ledger.cells import Ledger
from fmnist_optuna.ledger.holders import Presence
from fmnist_optuna.ledger.openings import Openings
from fmnist_optuna.ledger.points import Points
from fmnist_optuna.ledger.progress import History
from fmnist_optuna.ledger.rungs import Rungs
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.search.ladder import LadderRule
from fmnist_optuna.study.records import StudyRecord, UnreadableStudy

if TYPE_CHECKING:
    import optuna

    from fmnist_optuna.artifacts.store import Store
    from fmnist_optuna.bridge.storage import PatientStorage
    from fmnist_optuna.study.new_trial import KnownRanges
    from fmnist_optuna.study.recovery import Recovery


@dataclass(frozen=True)
class Session:
    """One process at work on one study.

    Args:
        storage: Open storage.
        record: The study.
        name: Who this is: a worker's id, or the supervisor's.
        code: Fingerprint of the accepted code that this process trains with; None in one that does not.
        given_up: cell_ids that this process leaves alone, as they killed their workers again and again in this run.
    """

    storage: Storage
    record: StudyRecord
    name: str = "reader"
    code: str | None = None
    given_up: frozenset[str] = frozenset()

    @cached_property
    def optuna_storage(self) -> "PatientStorage":
        """Optuna's storage over the same engine."""
        from fmnist_optuna.bridge.storage import open_optuna  # loads Optuna

        return open_optuna(self.storage)

    @cached_property
    def optuna_study(self) -> "optuna.Study":
        """The study as Optuna has it."""
        # These load Optuna.
        import optuna

        from fmnist_optuna.bridge.spaces import sampler_of
        from fmnist_optuna.bridge.trials import make_pruner

        return optuna.load_study(
            study_name=self.record.name,
            storage=self.optuna_storage,
            sampler=sampler_of(self.record.spec),
            pruner=make_pruner(self.record.spec),
        )

    @cached_property
    def ledger(self) -> Ledger:
        """The cells."""
        return Ledger(self.storage, self.record.study_id, is_made_under)

    @cached_property
    def history(self) -> History:
        """Progress and curves."""
        record = self.record
        return History(self.storage, record.study_id, record.metric, record.spec.repeats.n_cells)

    @property
    def ladder(self) -> LadderRule | None:
        """The rule of the study's rungs; None where its pruner is another."""
        spec = self.record.spec
        return spec.ladder_rule() if spec.pruner.name == "ladder" else None

    @cached_property
    def store(self) -> "Store":
        """Where its artifacts are."""
        from fmnist_optuna.bridge.stores import open_store  # loads Optuna

        return open_store(self.storage.artifacts, self.record.place)

    @cached_property
    def checkpoints(self) -> Checkpoints | BucketCheckpoints:
        """Where trainings that go on later are kept."""
        return checkpoints_of(self.storage, self.record)

    @property
    def soft_labels(self) -> SoftLabels | None:
        """The answers that the study learns from; None where it has no teacher.

        Raises:
            MismatchError: The file is not there, or its name leads out of the store of the artifacts.
        """
        teacher = self.record.teacher
        if teacher is None:
            return None
        from fmnist_optuna.bridge.artifacts import read_soft_labels  # loads Optuna

        return read_soft_labels(self.storage, self.store, teacher.artifact, teacher.sha256)

    @cached_property
    def points(self) -> Points:
        """What is known before the point of a cell is decided."""
        return Points(self.storage, self.record.study_id, self.record.metric)

    @cached_property
    def rungs(self) -> Rungs:
        """Decisions over parked cells."""
        record = self.record
        return Rungs(self.storage, record.study_id, record.metric, record.spec.repeats.n_cells)

    @cached_property
    def openings(self) -> Openings:
        """The openings of the test set."""
        return Openings(self.storage, self.record.study_id)

    @cached_property
    def presence(self) -> Presence:
        """The workers."""
        return Presence(self.storage, self.record.study_id)

    @cached_property
    def known_ranges(self) -> "KnownRanges":
        """The ranges of its trials."""
        from fmnist_optuna.study.new_trial import KnownRanges  # loads Optuna

        return KnownRanges(self.storage, self.record.study_id)

    @cached_property
    def recovery(self) -> "Recovery":
        """Healing."""
        from fmnist_optuna.study.recovery import Recovery  # loads Optuna

        return Recovery(self.ledger, self.optuna_storage, self.presence, self.name, self.store)


def checkpoints_of(storage: Storage, record: StudyRecord | UnreadableStudy) -> Checkpoints | BucketCheckpoints:
    """Where the checkpoints of a study are."""
    if record.place is None:
        return Checkpoints(storage.artifacts, record.study_id)
    return BucketCheckpoints(Bucket(record.place))
