"""What folds say of a point of a study, and its training on all training images: whose weights are tested and exported.

Such a training is a study of its own, `<name>/all-data`. It is read here; `fmnist_optuna.running.all_data` trains it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fmnist_optuna.errors import NotFoundError, UsageError
from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.records import Attempt, Cell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.results.all_data import check_epochs
from fmnist_optuna.results.seeds import Sample
from fmnist_optuna.search.cell import canonical_json
from fmnist_optuna.search.metric import VAL_ACCURACY
from fmnist_optuna.search.repeats import point_of
from fmnist_optuna.spec.study_names import ALL_DATA_SUFFIX, name_command_of
from fmnist_optuna.study.attempts import result_of
from fmnist_optuna.study.records import ALL_DATA
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import open_following


@dataclass(frozen=True)
class CrossValidation:
    """A point of a study with folds.

    Args:
        n_folds: Each of which validates one training.
        n_seeds: Over which each of these is repeated.
        values: What the study compares by, of each cell of the point, the folds of the first seed first.
        val_accuracies: Accuracies on the images that validate, likewise; the same where the study compares by them.
        study: Name of the study that trains it on all training images.
        trained: Its attempt there, complete; None before.
    """

    n_folds: int
    n_seeds: int
    values: Sample
    val_accuracies: Sample
    study: str
    trained: Attempt | None

    @property
    def described(self) -> str:
        """Over what the mean is, in words."""
        return f"{self.n_folds} folds" + (f" with {self.n_seeds} seeds each" if self.n_seeds > 1 else "")

    def figures(self) -> dict[str, Json]:
        """In figures, as `best --json` and a manifest have them; folds share images, so there is no interval."""
        trained = self.trained
        where: dict[str, Json] | None = None
        if trained is not None:
            where = {"study": self.study, "trial": trained.number, "epochs": trained.n_epochs}
        return {
            "folds": self.n_folds,
            "seeds": self.n_seeds,
            "mean": self.values.mean,
            "sd": self.values.sd,
            "values": list(self.values.values),
            "trained": where,
        }


def read_cross_validation(session: Session, first: Cell) -> CrossValidation:
    """What the folds say of a point whose cells are all complete; nothing is scored.

    Args:
        first: The first of its cells.

    Raises:
        MismatchError: It was not trained on all images for the number of epochs that was fixed before.
    """
    record, cells = session.record, session.history.repeats_of(first.cell_id)
    return CrossValidation(
        n_folds=record.spec.repeats.n_folds,
        n_seeds=record.spec.repeats.n_seeds,
        values=Sample(tuple(cell.value or 0.0 for cell in cells), record.metric),
        val_accuracies=Sample(tuple(cell.val_accuracy or 0.0 for cell in cells), VAL_ACCURACY),
        study=record.name + ALL_DATA_SUFFIX,
        trained=_find_trained(session, cells),
    )


def _find_trained(session: Session, cells: Sequence[Cell]) -> Attempt | None:
    training = open_following(session, ALL_DATA)
    if training is None:
        return None
    point = canonical_json(point_of(cells[0].params))
    for cell in training.history.finished():
        if cell.state is State.COMPLETE and canonical_json(point_of(cell.params)) == point:
            trained = result_of(training, cell)
            check_epochs(training, [trained])
            return trained
    return None


def open_training(session: Session, folds: CrossValidation) -> tuple[Session, Attempt]:
    """The study and the attempt that trained a point on all training images.

    Raises:
        NotFoundError: None has yet.
    """
    training = open_following(session, ALL_DATA)
    if training is None or folds.trained is None:
        name, noun = session.record.name, session.record.info.noun
        raise NotFoundError(
            f"study {name}: its best point must be trained on all training {noun}s first, but is not: "
            f"{name_command_of(name, session.record.spec.data.folds)} does that once all cells are done."
        )
    return training, folds.trained


def refuse_confirmation(session: Session) -> None:
    """Refuse fresh seeds for a study with folds, whose weights in the end are those of another training.

    Raises:
        UsageError: The study has folds.
    """
    record = session.record
    if record.is_cross_validated:
        raise UsageError(
            f"study {record.name}: must be one without folds to be confirmed, but has {record.spec.data.folds}, whose "
            "mean every point has already; for more certainty set search.repeats, in a study of another name."
        )
