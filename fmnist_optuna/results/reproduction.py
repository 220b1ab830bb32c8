"""A recorded trial trained once more: the same curve and the same weights, or what differs and why."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmnist_optuna.artifacts.soft_labels import SoftLabels
from fmnist_optuna.data.sharing import arrays_of
from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.states import State
from fmnist_optuna.processes.children import Call
from fmnist_optuna.results.changed_code import find_recorded_code
from fmnist_optuna.results.evaluation import recorded_seed
from fmnist_optuna.results.winner import finished_attempt
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.spec.code import CodeRecord, code_differences
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.environment import differences
from fmnist_optuna.work.splits import DataPlace, find_place

COMPARED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "objective")


@dataclass(frozen=True)
class Reproduction:
    """A trial and its repetition.

    Args:
        recorded: Epochs of the trial.
        repeated: Epochs of the repetition.
        recorded_sha256: Of the kept weights; None for a trial that was pruned, which keeps none.
        repeated_sha256: The same of the repetition.
        environment_differences: A line each: what the trial was trained with, what is here. Without a record of it, one
            line that says so.
        code_differences: Lines of a diff of the user's code, the trial's and that which was used here.
    """

    trial: int
    params: Params
    seed: int
    recorded: tuple[Epoch, ...]
    repeated: tuple[Epoch, ...]
    recorded_sha256: str | None
    repeated_sha256: str | None
    environment_differences: tuple[str, ...]
    code_differences: tuple[str, ...] = ()

    @property
    def first_difference(self) -> int | None:
        """The first epoch (0-based) in which the curves differ in any bit; None when they agree to the end."""
        for epoch, (then, now) in enumerate(zip(self.recorded, self.repeated, strict=False)):
            if not all(_same(getattr(then, name), getattr(now, name)) for name in COMPARED):
                return epoch
        n_epochs = len(self.recorded), len(self.repeated)
        return None if n_epochs[0] == n_epochs[1] else min(n_epochs)

    @property
    def matches(self) -> bool:
        """Whether curve and weights are the same, bit for bit."""
        return self.first_difference is None and self.recorded_sha256 == self.repeated_sha256


def _same(first: float | None, second: float | None) -> bool:
    """Whether two numbers are equal; tables have none for one that was not finite."""
    return first == second or not any(each is not None and math.isfinite(each) for each in (first, second))


def reproduce_trial(session: Session, number: int, data_dir: Path | None) -> Reproduction:
    """Train a finished trial again from its recorded seed, specification and data, in a process of its own.

    A pruned trial is trained for as many epochs as it had. Nothing is written to the study.

    Args:
        number: Of the trial, 0-based.
        data_dir: Folder with the IDX files, or None for the search order.

    Raises:
        NotFoundError: The study has no such trial.
        UsageError: The trial has not finished, or has failed.
        DataError: The data is not there.
    """
    attempt = finished_attempt(session, number)
    recorded = session.history.curve(attempt.trial_id)
    record, seed, told = session.record, recorded_seed(attempt), attempt.attributes.told_number
    repeated, sha256, present, code_lines = Call(
        _train_again,
        *(record.spec, attempt.params, number if told is None else told, seed, len(recorded)),
        *(find_place(record, data_dir, attempt.params), find_recorded_code(session, attempt), session.soft_labels),
        doing="training the trial again",
    ).result()
    is_complete = attempt.state is State.COMPLETE
    environment = attempt.attributes.environment
    return Reproduction(
        trial=number,
        params=attempt.params,
        seed=seed,
        recorded=tuple(recorded),
        repeated=tuple(repeated),
        recorded_sha256=attempt.attributes.weights_sha256 if is_complete else None,
        repeated_sha256=sha256 if is_complete else None,
        environment_differences=tuple(
            differences(environment, present) if environment else ["the trial recorded no environment"]
        ),
        code_differences=tuple(code_lines),
    )


def _train_again(
    spec: StudySpec,
    params: Params,
    trial: int,
    seed: int,
    n_epochs: int,
    place: DataPlace,
    code: CodeRecord | None,
    soft_labels: SoftLabels | None,
) -> tuple[Sequence[Epoch], str, Mapping[str, Json], list[str]]:
    """In a process of its own: the epochs, the hash of the kept weights, the environment, and how the code differs.

    Args:
        trial: Number that the callbacks were told.
    """
    # These load TensorFlow.
    from fmnist_optuna.training.cell_training import train_cell
    from fmnist_optuna.training.engine import use_threads
    from fmnist_optuna.training.resident_data import ResidentData
    from fmnist_optuna.training.user_code import UserCode
    from fmnist_optuna.training.weights import hash_weights
    from fmnist_optuna.work.preparation import offer_code

    use_threads(spec.training.threads)
    splits = place.load()
    data = ResidentData.from_arrays(splits.info, **arrays_of(splits))
    data = data if soft_labels is None else data.with_soft_labels(soft_labels.load())

    offered = offer_code(UserCode(spec, splits.info), params if code is None else code.cell)
    code_lines = [] if code is None else code_differences(code, offered.code)

    model, result = train_cell(UserCode(spec, splits.info), params, seed, data, [], trial, max(1, n_epochs))
    return result.epochs, hash_weights(model), offered.environment, code_lines
