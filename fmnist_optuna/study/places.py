"""Where a study keeps its artifacts: decided when it is made, and the same for whoever joins it."""

from fmnist_optuna.artifacts.place import Place
from fmnist_optuna.errors import JoinRefusedError
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.settings import ARTIFACTS, Here
from fmnist_optuna.study.records import StudyRecord


def place_of_new(storage: Storage, parent: StudyRecord | None) -> Place | None:
    """Where the artifacts of a new study go; None for the folder beside the storage.

    Args:
        storage: Whose options may name a place.
        parent: The study that it follows from, whose place it shares; None for a search.
    """
    wanted = storage.options.artifacts if parent is None else parent.place
    return None if wanted is None else wanted.for_study(Here.from_environment())


def check_same_place(record: StudyRecord, wanted: Place | None) -> None:
    """Refuse a place of artifacts that is not the study's: half of them would be in each.

    Args:
        wanted: None for none in particular.

    Raises:
        JoinRefusedError: It is another.
    """
    if wanted is None or (record.place is not None and wanted.is_met_by(record.place)):
        return
    found = "the folder beside the storage" if record.place is None else record.place.described
    raise JoinRefusedError(
        f"study {record.name}: keeps its artifacts in {found}, but artifacts (--artifacts, {ARTIFACTS}) names "
        f"{wanted.described}; leave it out, or choose another name (--name NEW)."
    )
