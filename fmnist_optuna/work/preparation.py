"""Before training: the study is tried out, and the user's code is compared with that of the study.

Imports Keras, so a process that only supervises calls it in a child.
"""

from dataclasses import replace
from pathlib import Path

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.sharing import TRAIN_WEIGHTS, map_arrays
from fmnist_optuna.errors import SpecError
from fmnist_optuna.ledger.codes import OfferedCode, join_as_worker, list_codes
from fmnist_optuna.search.cell import Params
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.session import Session
from fmnist_optuna.training.code import read_code
from fmnist_optuna.training.rehearsal import few_garments, few_of, rehearse, smallest_cell
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.work.environment import read_environment, warn_of_environment


def prepare(
    spec: StudySpec, info: DatasetInfo, folder: Path | None = None, cell: Params | None = None
) -> tuple[StudySpec, OfferedCode]:
    """Bind a specification to its architecture, read the user's code, and rehearse a training.

    Args:
        info: Of the study's data.
        folder: With the study's arrays, some of which are trained on; drawn garments without one.
        cell: Whose model stands for the code; the smallest without one.

    Raises:
        SpecError: Anything that would fail every trial.
    """
    if spec.confirm.flip and not info.is_of_pictures:
        raise SpecError(f"confirm.flip must be for pictures, but the data is {info.kind}; leave it out.")
    code = UserCode(spec, info)
    bound = code.bind()
    offered = offer_code(code, cell)  # before the training, as a worker has it: training may import more
    arrays = None if folder is None else map_arrays(folder)
    pauses = spec.pruner.name == "ladder"
    if arrays is None:
        rehearse(code, *few_garments(), pauses=pauses)
    else:
        few = few_of(arrays["train_images"], arrays["train_labels"], arrays.get(TRAIN_WEIGHTS))
        rehearse(code, *few, pauses=pauses)
    return bound, offered


def offer_code(code: UserCode, cell: Params | None = None) -> OfferedCode:
    """The user's code and the environment as they are in this process.

    Args:
        code: Its specification bound.
        cell: Whose model stands for the code; the smallest without one.
    """
    return OfferedCode(read_code(code, cell or smallest_cell(code.spec).params), read_environment())


def join_with_code(session: Session, offered: OfferedCode | None = None) -> Session:
    """The session of a process that trains with the study's code; where its environment differs, the log says so.

    Args:
        offered: The code and the environment here, where they are known.

    Raises:
        JoinRefusedError: The code here is not the study's.
    """
    record, storage = session.record, session.storage
    if offered is None:
        accepted = list_codes(storage, record.study_id)
        offered = offer_code(UserCode(record.spec, record.info), accepted[-1].code.cell if accepted else None)
    joined = join_as_worker(storage, record.study_id, record.name, offered)
    warn_of_environment(record.name, joined.environment, offered.environment)
    return replace(session, code=joined.fingerprint)
