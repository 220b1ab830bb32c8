"""Says beside a failure that the user's code is no longer the one that a trial was trained with."""

from collections.abc import Iterator
from contextlib import contextmanager

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.errors import FmnistOptunaError, MismatchError, SpecError
from fmnist_optuna.ledger.codes import list_codes
from fmnist_optuna.ledger.progress import FinishedCell
from fmnist_optuna.processes.children import Call
from fmnist_optuna.search.cell import Params
from fmnist_optuna.spec.code import CodeRecord, changed_parts
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.session import Session


@contextmanager
def explained_by_code(session: Session, cell: FinishedCell) -> Iterator[None]:
    """Let an error within this block name what of the user's code has changed since the cell was trained, if any."""
    try:
        yield
    except (MismatchError, SpecError) as error:
        parts = find_changed_parts(session, cell)
        if not parts:
            raise
        raise type(error)(
            f"{error} The model code is not the one that trial {cell.trial_number} was trained with: "
            f"{', '.join(parts)}; `fmnist-optuna reproduce {cell.trial_number} {session.record.name}` shows the "
            "difference."
        ) from error


def find_changed_parts(session: Session, cell: FinishedCell) -> list[str]:
    """Names of modules, settings and models that differ from the trial's; none for a trial that recorded no code."""
    fingerprint = session.trials.get_trial(cell.trial_id).user_attrs.get("code")
    accepted = {code.fingerprint: code.code for code in list_codes(session.storage, session.record.study_id)}
    trained_with = accepted.get(str(fingerprint))
    if trained_with is None:
        return []
    try:
        present: CodeRecord = Call(
            _read_code, session.record.spec, session.record.info, trained_with.cell, doing="reading the model code"
        ).result()
    except FmnistOptunaError:
        return ["it cannot be loaded any more"]
    return changed_parts(trained_with, present)


def _read_code(spec: StudySpec, info: DatasetInfo, cell: Params) -> CodeRecord:
    from fmnist_optuna.training.code import read_code
    from fmnist_optuna.training.user_code import UserCode

    return read_code(UserCode(spec, info), cell)
