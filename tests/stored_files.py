"""Where the files of a study are whose artifacts lie in the folder beside its storage."""

from pathlib import Path

from optuna.trial import FrozenTrial

from fmnist_optuna.bridge.artifacts import find_weights_artifact
from fmnist_optuna.study.session import Session


def weights_path(session: Session, trial: FrozenTrial) -> Path:
    """The file with the weights of a finished trial."""
    return Path(
        session.store.describe(find_weights_artifact(session.storage, session.store, session.optuna_storage, trial))
    )
