"""Ids of Optuna's trials and studies, which Optuna keeps in private attributes. Nobody else reads those."""

from dataclasses import dataclass

import optuna
from optuna.storages import BaseStorage
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, Trial


def trial_id_of(trial: Trial | FrozenTrial) -> int:
    """Id of a trial in the storage; its number counts within the study."""
    return trial._trial_id


def study_id_of(study: optuna.Study | FrozenStudy) -> int:
    """Id of a study in the storage."""
    return study._study_id


@dataclass(frozen=True)
class TrialReference:
    """What optuna-dashboard asks of the trial that a note is for; an `optuna.Trial` would sample again."""

    storage: BaseStorage
    study: optuna.Study
    _trial_id: int
