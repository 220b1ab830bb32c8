"""Says beside a failure that the user's code is no longer the one that a trial was trained with."""

from collections.abc import Iterator
from contextlib import contextmanager

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.errors import FmnistOptunaError, MismatchError, SpecError
from fmnist_optuna.ledger.codes import list_codes
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.processes.children import Call
from fmnist_optuna.search.cell import Params
from fmnist_optuna.spec.code import CodeRecord, changed_parts
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.session import Session


@contextmanager
def explained_by_code(session: Session, attempt: Attempt) -> Iterator[None]:
    """Let an error within this block name what of the user's code has changed since an attempt was trained, if any."""
    try:
        yield
    except (MismatchError, SpecError) as error:
        parts = find_changed_parts(session, attempt)
        if not parts:
            raise
        raise type(error)(
            f"{error} The model code is not the one that trial {attempt.number} was trained with: "
            f"{', '.join(parts)}; `fmnist-optuna reproduce {attempt.number} {session.record.name}` shows the "
            "difference."
        ) from error


def find_recorded_code(session: Session, attempt: Attempt) -> CodeRecord | None:
    """The code that an attempt was trained with; None for one that recorded none."""
    accepted = {code.fingerprint: code.code for code in list_codes(session.storage, session.record.study_id)}
    return accepted.get(attempt.attributes.code or "")


def find_changed_parts(session: Session, attempt: Attempt) -> list[str]:
    """Names of modules, settings and models that differ from the trial's; none for one that recorded no code."""
    trained_with = find_recorded_code(session, attempt)
    if trained_with is None:
        return []
    try:
        present = Call(
            _read_code, session.record.spec, session.record.info, trained_with.cell, doing="reading the model code"
        ).result()
    except FmnistOptunaError:
        return ["it cannot be loaded any more"]
    return changed_parts(trained_with, present)


def _read_code(spec: StudySpec, info: DatasetInfo, cell: Params) -> CodeRecord:
    # These load TensorFlow.
    from fmnist_optuna.training.code import read_code
    from fmnist_optuna.training.user_code import UserCode

    return read_code(UserCode(spec, info), cell)
