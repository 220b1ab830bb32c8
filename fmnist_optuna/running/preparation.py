"""What comes before the training: data decided, model checked, study made or joined, cells seeded."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fmnist_optuna.artifacts.bucket import check_place
from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.data.built_in import BUILT_IN, expect_info
from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.sharing import share_arrays
from fmnist_optuna.data.source import ResolvedData, check_split, load_splits, resolve_source, with_source
from fmnist_optuna.data.split import Splits
from fmnist_optuna.data.summary import check_content, summarise
from fmnist_optuna.errors import UsageError
from fmnist_optuna.ledger.codes import OfferedCode, list_codes
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.urls import check_url
from fmnist_optuna.log import log_event
from fmnist_optuna.processes.children import Call, warm_up
from fmnist_optuna.processes.temporary import temporary_folder
from fmnist_optuna.running.loading import load_creation
from fmnist_optuna.running.options import RunOptions
from fmnist_optuna.running.teaching import prepare_lesson
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.sampling import sequence_version
from fmnist_optuna.spec.data_spec import DataSpec
from fmnist_optuna.spec.idle_options import describe_idle
from fmnist_optuna.spec.study_names import searched_study
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.places import check_same_place
from fmnist_optuna.study.records import StudyRecord
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study_or_none
from fmnist_optuna.study.teacher import Lesson
from fmnist_optuna.work.environment import warn_of_environment
from fmnist_optuna.work.fresh_seeds import find_warnings_in_child
from fmnist_optuna.work.own_data import check_same, load_own, load_own_again

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedStudy:
    """A study whose cells are seeded.

    Args:
        session: Of the study.
        data: Where the data is.
        n_new_cells: Cells that this call added.
        shared_data: Folder with the arrays for children of this process, if there was room.
        code: What the study was joined with, if none of it is the user's.
    """

    session: Session
    data: ResolvedData
    n_new_cells: int
    shared_data: Path | None = None
    code: OfferedCode | None = None


def prepare_study(
    spec: StudySpec,
    options: RunOptions,
    *,
    has_workers: bool = True,
    meanwhile: Callable[[], object] = lambda: None,
    asking: Callable[[str], object] = lambda teacher: None,
) -> PreparedStudy:
    """Decide the data, check the architecture, create or join the study and seed its cells.

    Args:
        has_workers: Whether workers of this machine follow, for whom the arrays are shared.
        meanwhile: Called while TensorFlow is imported: what takes a second and is needed later.
        asking: Is told which teacher is asked for its answers, before it takes its time.

    Raises:
        SpecError, DataError: The architecture or a callback is wrong; there is no data, or its function fails.
        UsageError, NotFoundError: The study follows from another; or its teacher cannot teach, or is not there.
        MismatchError, JoinRefusedError: The study exists with other data, another specification or other code.
        StorageError: The storage is unreachable or not writable, or so is the bucket of the artifacts.

    Log records warn of what `Summary` says, equal weights whatever the seed, slow modules, a pruner, idle options.
    """
    _check_names(spec.name, options.storage)
    warm_up()  # TensorFlow is imported in the workers' server while we go on
    data = resolve_source(spec.data.source, options.data_dir, options.mirrors)
    splits, again = load_twice(decide_data(spec, data).data, data.data_dir)
    shared = share_arrays(splits, temporary_folder()) if has_workers else None
    load_creation()
    meanwhile()
    warnings, prepared = find_warnings_in_child(spec, splits.info), prepare_in_child(spec, splits.info, splits.folder)
    of_data = check_in_passing(splits)
    bound, code = prepared.result()
    bound, code = decide_data(bound, data), replace(code, is_wanted=options.accepts_code)
    again()
    lesson = prepare_lesson(bound, splits.fingerprint, options.storage, data.data_dir, asking)
    storage = create_storage(options.storage)  # after everything that may be refused, which leaves no file then
    joined = replace(join(storage, bound, code, splits, data, lesson), shared_data=shared)
    _warn(bound, of_data | _find_idle(bound) | ({} if warnings is None else warnings.result()))
    return joined


def _check_names(name: str, storage: StorageOptions) -> None:
    """Refuse names of study, storage and bucket that lead nowhere, before anything else takes its time."""
    if "/" in name:
        raise UsageError(
            f"study {name}: must be one of a grid, but it follows from another; to go on with it: "
            f"fmnist-optuna confirm {searched_study(name)}, or confirm_study."
        )
    check_url(storage.url, create=True)
    check_place(storage.artifacts)


def _find_idle(spec: StudySpec) -> dict[str, str]:
    note = describe_idle(spec)
    return {} if note is None else {"idle_options": note}


def _warn(spec: StudySpec, reasons: Mapping[str, str]) -> None:
    if spec.pruner.name != "none" and spec.pruner_note is not None:
        reasons = {**reasons, "pruner_and_schedule": spec.pruner_note}
    for event, reason in reasons.items():
        log_event(logger, logging.WARNING, event, study=spec.name, reason=reason)


def check_study(spec: StudySpec, data_dir: Path | None = None) -> StudySpec:
    """What `spec check` does: whatever would fail every trial is refused; nothing is made.

    Args:
        data_dir: As `RunOptions` has it.

    Returns:
        The specification with every value in its declared type.

    Raises:
        SpecError: The architecture or a callback is wrong.
        UsageError: Too few or too many images would be held out.
        DataError: Data of the user's own is missing, or none to train on, or its function gives other data each time.
    """
    warm_up()
    bound: StudySpec
    if not spec.data.is_own:
        check_split(spec.data)
        bound, _ = prepare_in_child(spec, expect_info(spec.data.source)).result()
        return bound.model_copy(update={"data": with_source(spec.data, spec.data.source)})
    splits, again = load_twice(spec.data, data_dir)
    prepared = prepare_in_child(spec, splits.info, splits.folder)
    of_data = check_in_passing(splits)
    bound, _ = prepared.result()
    again()
    _warn(bound, of_data)
    return bound


def check_in_passing(splits: Splits) -> dict[str, str]:
    """What everybody should know of the user's own data, counted in this process while a child imports TensorFlow.

    Raises:
        DataError: Nobody should train on it.
    """
    if splits.source in BUILT_IN:  # of which it is known
        return {}
    summary = summarise(splits)
    check_content(splits.source, summary)
    return summary.warnings


def load_twice(data: DataSpec, data_dir: Path | None) -> tuple[Splits, Callable[[], None]]:
    """The data of a study that is about to begin, and a function that waits for the proof that it can be had again.

    Of a function of the user's own the proof is a second call, in another process meanwhile; files are as they are.

    Args:
        data: Its source decided.
        data_dir: Folder with the IDX files, or in which files of the user's own are; None for the search order.
    """
    if not data.is_own:
        how = data.n_validation, data.split_seed, data_dir
        return load_splits(data.source, *how, n_folds=data.folds), lambda: None
    if not data.is_function:
        return load_own(data, None, data_dir), lambda: None
    splits, again = load_own(data), load_own_again(data)
    return splits, lambda: check_same(data, splits.fingerprint, again.result())


def decide_data(spec: StudySpec, data: ResolvedData) -> StudySpec:
    """The specification with its data decided; a fall-back to synthetic garments goes by a name of its own."""
    return spec.model_copy(
        update={
            "name": f"{spec.name}-synthetic" if data.is_fallback else spec.name,
            "data": with_source(spec.data, data.source),
        }
    )


def join(
    storage: Storage,
    spec: StudySpec,
    code: OfferedCode,
    splits: Splits,
    data: ResolvedData,
    lesson: Lesson | None = None,
) -> PreparedStudy:
    """Create or join the study in an open storage."""
    code = _of_the_same_cell(storage, spec, splits.info, code)
    if (there := find_study_or_none(storage, spec.name)) is not None and there.place is not None:
        check_same_place(there, storage.options.artifacts)
        check_place(there.place, checked=storage.options.artifacts)
    record, n_new = create_or_join(storage, spec, splits.fingerprint, code=code, info=splits.info, lesson=lesson)
    warn_of_environment(record.name, list_codes(storage, record.study_id)[-1].environment, code.environment)
    _warn_of_sequence(record)
    return PreparedStudy(Session(storage, record, "supervisor"), data, n_new, None, _known(spec, code))


def _warn_of_sequence(record: StudyRecord) -> None:
    """Say where another version of SciPy drew the first points: what it has not drawn may lie too close to them."""
    first = next(iter(record.drawn_by), "")
    if first and first != (here := sequence_version()):
        text = f"scipy: the study began with {first}, here it is {here}"
        log_event(logger, logging.WARNING, "environment_differs", study=record.name, differences=text)


def _known(spec: StudySpec, code: OfferedCode) -> OfferedCode | None:
    """What a worker need not read again, as it comes from the same server and none of it is the user's."""
    return None if spec.has_own_code else replace(code, is_wanted=False)


def _of_the_same_cell(storage: Storage, spec: StudySpec, info: DatasetInfo, code: OfferedCode) -> OfferedCode:
    """The code with the model of the cell that the study has a model of: a grown grid may have a smaller cell."""
    record = find_study_or_none(storage, spec.name)
    accepted = [] if record is None else list_codes(storage, record.study_id)
    if not accepted or accepted[-1].code.cell == code.code.cell:
        return code
    cell = accepted[-1].code.cell
    if cell.keys() != code.code.cell.keys():  # another study in all but the name: its join is refused
        return code
    offered = Call(_offer_code, spec, info, cell, doing="reading the model code").result()
    return replace(offered, is_wanted=code.is_wanted)


def prepare_in_child(
    spec: StudySpec, info: DatasetInfo, folder: Path | None = None, cell: Params | None = None
) -> Call[tuple[StudySpec, OfferedCode]]:
    """`work.preparation.prepare` in a child, which imports TensorFlow so that we need not."""
    return Call(_prepare, spec, info, folder, cell, doing="checking the study file")


def _prepare(
    spec: StudySpec, info: DatasetInfo, folder: Path | None, cell: Params | None
) -> tuple[StudySpec, OfferedCode]:
    from fmnist_optuna.work.preparation import prepare  # loads TensorFlow

    return prepare(spec, info, folder, cell)


def _offer_code(spec: StudySpec, info: DatasetInfo, cell: Params) -> OfferedCode:
    # These load TensorFlow.
    from fmnist_optuna.training.user_code import UserCode
    from fmnist_optuna.work.preparation import offer_code

    return offer_code(UserCode(spec, info), cell)
