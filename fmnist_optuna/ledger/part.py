"""What every view of one study in a storage has: the storage, the study's id, and the storage's patience."""

from fmnist_optuna.ledger.outages import Patience
from fmnist_optuna.ledger.storage import Storage


class StudyPart:
    """Rows of one study.

    Args:
        storage: Where the study lives.
        study_id: Optuna's id of the study.
    """

    def __init__(self, storage: Storage, study_id: int) -> None:
        self.storage = storage
        self.study_id = study_id

    @property
    def patience(self) -> Patience:
        """How long its operations wait for the database."""
        return self.storage.patience
