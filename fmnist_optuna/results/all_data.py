"""The chosen cell's confirmed seeds trained once more, on the validation images too: what the test set says of them.

Such a training is a study of its own, `<name>/all-data`. It is read here; `fmnist_optuna.running.all_data` trains it.
The validation images are trained on, so that nothing can be chosen by them any more, and nothing is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmnist_optuna.errors import MismatchError
from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.records import Attempt, Cell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.results.confirmation import Confirmation
from fmnist_optuna.results.evaluation import find_opening
from fmnist_optuna.results.seeds import OpenedSeeds, open_seeds
from fmnist_optuna.spec.study_names import command_of
from fmnist_optuna.study.attempts import result_of
from fmnist_optuna.study.records import ALL_DATA
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import open_following
from fmnist_optuna.wording import count


@dataclass(frozen=True)
class AllData(OpenedSeeds):
    """The chosen cell trained on training and validation images, and what the test images say of it over its seeds.

    Args:
        study: Name of the study that trained it.
        n_epochs: Of each training, fixed before.
        runs: Complete attempts, one a confirmed seed, the smallest training_seed first.
    """

    study: str
    n_epochs: int
    runs: tuple[Attempt, ...]

    def figures(self) -> dict[str, Json]:
        """In figures, as `best --json` and a manifest have them; accuracies are fractions."""
        return {
            "study": self.study,
            "seeds": len(self.runs),
            "epochs": self.n_epochs,
            **self.figures_of_test(),
        }


def find_all_data(session: Session, confirmation: Confirmation | None) -> AllData | None:
    """The trainings on all data of a study's confirmed cell, if every seed has its own; nothing is scored.

    Raises:
        MismatchError: One of them was not trained for the number of epochs that was fixed before.
    """
    training = None if confirmation is None else open_following(session, ALL_DATA)
    if confirmation is None or training is None:
        return None
    complete = _complete_cells(training)
    if any(run.cell_id not in complete for run in confirmation.chosen.runs):
        return None
    runs = tuple(result_of(training, complete[run.cell_id]) for run in confirmation.chosen.runs)
    check_epochs(training, runs)
    record = training.record
    found = AllData(record.name, record.spec.training.max_epochs, runs, metric=record.metric)
    return found.with_openings([find_opening(training, run) for run in runs])


def count_trained(session: Session, confirmation: Confirmation) -> int | None:
    """How many of the chosen cell's confirmed seeds are trained on all data; None where none was to be."""
    training = open_following(session, ALL_DATA)
    if training is None:
        return None
    complete = _complete_cells(training)
    return sum(run.cell_id in complete for run in confirmation.chosen.runs)


def _complete_cells(training: Session) -> dict[str, Cell]:
    return {cell.cell_id: cell for cell in training.history.finished() if cell.state is State.COMPLETE}


def open_all_data(
    session: Session,
    confirmation: Confirmation,
    data_dir: Path | None,
    scoring: Callable[[str], object] = lambda what: None,
) -> AllData | None:
    """The same, with the weights of every seed scored once on the test images.

    Args:
        data_dir: Folder with the IDX files, or None for the search order.
        scoring: As `open_seeds` has it.

    Raises:
        MismatchError: Stored weights are missing or altered; or a seed was not trained for all epochs.
        DataError: The data is not there.
    """
    found, training = find_all_data(session, confirmation), open_following(session, ALL_DATA)
    if found is None or training is None or found.test is not None:
        return found
    return found.with_openings(open_seeds(training, found.runs, data_dir, ALL_DATA, scoring))


def check_epochs(training: Session, runs: Sequence[Attempt]) -> None:
    """Refuse seeds that ended early: what ended them saw the validation images, which they were trained on."""
    name, spec = training.record.name, training.record.spec
    n_epochs, command = spec.training.max_epochs, command_of(name, spec.data.folds)
    for run in runs:
        if run.n_epochs != n_epochs:
            raise MismatchError(
                f"study {name}: every seed must be trained for {count(n_epochs, 'epoch')}, but trial {run.number} was "
                f"for {run.n_epochs}; leave out the callback that ended it, and train them anew: fmnist-optuna delete "
                f"{name}, then fmnist-optuna {command}"
            )
