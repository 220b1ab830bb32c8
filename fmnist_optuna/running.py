"""A whole study in one call: decide the data, create or join, start workers, wait, evaluate the winner.

What the `run` command and `fmnist_optuna.run_study` call. It prints nothing; an observer is told what happens.
"""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.data.sharing import share_arrays
from fmnist_optuna.data.source import ResolvedData, load_splits, resolve_source
from fmnist_optuna.errors import InterruptedBySignalError, NotFoundError, StoppedError, StorageError
from fmnist_optuna.ledger.codes import OfferedCode, list_codes
from fmnist_optuna.ledger.progress import CellCounts
from fmnist_optuna.ledger.records import Timing
from fmnist_optuna.ledger.storage import DEFAULT_PATIENCE_SECONDS, Storage
from fmnist_optuna.ledger.urls import check_url
from fmnist_optuna.log import LogFormat, bound_fields, log_event
from fmnist_optuna.pages.address import LOOPBACK, check_address
from fmnist_optuna.processes.children import Call, warm_up
from fmnist_optuna.processes.temporary import temporary_folder
from fmnist_optuna.results.winner import Winner, evaluate_winner, find_winner
from fmnist_optuna.search.cell import Params
from fmnist_optuna.settings import DEFAULT_STORAGE
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import create_or_join, find_study_or_none
from fmnist_optuna.work.environment import warn_of_environment
from fmnist_optuna.work.fresh_seeds import find_warnings_in_child
from fmnist_optuna.work.limits import Limits
from fmnist_optuna.work.local import TICK_SECONDS, Supervisor
from fmnist_optuna.work.order import WorkerOrder

Catching = Callable[[], AbstractContextManager[list[int]]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """How a study is run on this machine; none of it changes a result but `accepts_code`.

    Args:
        storage: URL, with its password if any.
        n_workers: Workers at once, >= 1.
        data_dir: The only folder to look for the IDX files in, or None for the search order.
        mirrors: Further base URLs to download from.
        timeout_seconds: After this the study is stopped and can be resumed; None for no limit.
        limits: Of each attempt.
        timing: Lease and intervals.
        patience_seconds: How long an outage of the database is waited for.
        log_folder: One log a worker; by default `logs` beside the artifacts.
        log_format: Of the workers' logs: "text" or "json".
        log_level: Of the records in the workers' logs.
        accepts_code: Whether the study goes on with the user's code as it is now, even if it differs from the study's.
        dashboard_port: Port of 127.0.0.1 to show the studies at while this one runs, 0 for any; None for no dashboard.
    """

    storage: str = field(default=DEFAULT_STORAGE, repr=False)
    n_workers: int = 1
    data_dir: Path | None = None
    mirrors: tuple[str, ...] = ()
    timeout_seconds: float | None = None
    limits: Limits = field(default_factory=Limits)
    timing: Timing = field(default_factory=Timing)
    patience_seconds: float = DEFAULT_PATIENCE_SECONDS
    log_folder: Path | None = None
    log_format: LogFormat = "text"
    log_level: int = logging.INFO
    accepts_code: bool = False
    dashboard_port: int | None = None


class Observer:
    """Is told what happens during a run; each method does nothing unless overridden."""

    def prepared(self, session: Session, data: ResolvedData, n_new_cells: int) -> None:
        """The study is there and its cells are seeded."""

    def opened(self, address: str) -> None:
        """The dashboard listens at this address."""

    def tick(self, session: Session) -> None:
        """The workers are at it; called about five times a second."""

    def stopping(self, how: str) -> None:
        """The workers were asked to give their cells back."""


@dataclass(frozen=True)
class StudyResult:
    """What a run ends with.

    Args:
        session: Of the study, for further questions.
        counts: Cells by state.
        winner: The winner with its test score; None when no cell is complete.
        log_folder: Where the workers' logs are.
    """

    session: Session
    counts: CellCounts
    winner: Winner | None
    log_folder: Path


@dataclass(frozen=True)
class PreparedStudy:
    """A study whose cells are seeded.

    Args:
        session: Of the study.
        data: Where the data is.
        n_new_cells: Cells that this call added.
        shared_data: Folder with the arrays for workers of this machine, if there was room.
    """

    session: Session
    data: ResolvedData
    n_new_cells: int
    shared_data: Path | None = None


def prepare_study(spec: StudySpec, options: RunOptions, *, has_workers: bool = True) -> PreparedStudy:
    """Decide the data, check the architecture, create or join the study and seed its cells.

    Args:
        has_workers: Whether workers of this machine follow, for whom the arrays are shared while a cell is left.

    Raises:
        SpecError: The architecture or a callback is wrong.
        DataError: The data is missing or corrupt.
        StorageError: The storage is unreachable or not writable.
        JoinRefusedError: The study exists with another specification or other code.

    Log records warn of a model that starts from the same weights whatever the seed, and of modules that load slowly.
    """
    check_url(options.storage, create=True)
    warm_up()  # TensorFlow is imported in the workers' server while we go on
    data = resolve_source(spec.data.source, options.data_dir, options.mirrors)
    splits = load_splits(data.source, spec.data.n_validation, spec.data.split_seed, data.data_dir)
    warnings = find_warnings_in_child(spec)
    bound, code = prepare_in_child(spec).result()
    bound, code = decide_data(bound, data), replace(code, is_wanted=options.accepts_code)
    storage = create_storage(  # after everything that may be refused, which leaves no file then
        options.storage,
        patience_seconds=options.patience_seconds,
        lease_seconds=options.timing.lease_seconds,
    )
    prepared = join(storage, bound, code, splits.fingerprint, data, options.timing)
    for event, reason in ({} if warnings is None else warnings.result()).items():
        log_event(logger, logging.WARNING, event, study=bound.name, reason=reason)
    if not has_workers or prepared.session.history.counts().is_over:
        return prepared
    return replace(prepared, shared_data=share_arrays(splits, temporary_folder()))


def decide_data(spec: StudySpec, data: ResolvedData) -> StudySpec:
    """The specification with its data source decided; a fall-back to synthetic garments goes by a name of its own."""
    return spec.model_copy(
        update={
            "name": f"{spec.name}-synthetic" if data.is_fallback else spec.name,
            "data": spec.data.model_copy(update={"source": data.source}),
        }
    )


def join(
    storage: Storage, spec: StudySpec, code: OfferedCode, fingerprint: str, data: ResolvedData, timing: Timing
) -> PreparedStudy:
    """Create or join the study in an open storage."""
    code = _of_the_same_cell(storage, spec, code)
    record, n_new = create_or_join(storage, spec, fingerprint, timing, code=code)
    warn_of_environment(record.name, list_codes(storage, record.study_id)[-1].environment, code.environment)
    return PreparedStudy(Session(storage, record, timing, "supervisor"), data, n_new)


def _of_the_same_cell(storage: Storage, spec: StudySpec, code: OfferedCode) -> OfferedCode:
    """The code with the model of the cell that the study has a model of: a grown grid may have a smaller cell."""
    record = find_study_or_none(storage, spec.name)
    accepted = [] if record is None else list_codes(storage, record.study_id)
    if not accepted or accepted[-1].code.cell == code.code.cell:
        return code
    cell = accepted[-1].code.cell
    if cell.keys() != code.code.cell.keys():  # another study in all but the name: its join is refused
        return code
    offered: OfferedCode = Call(_offer_code, spec, cell, doing="reading the model code").result()
    return replace(offered, is_wanted=code.is_wanted)


def prepare_in_child(spec: StudySpec, cell: Params | None = None) -> Call:
    """`work.preparation.prepare` in a child, which imports TensorFlow so that we need not."""
    return Call(_prepare, spec, cell, doing="checking the study file")


def _prepare(spec: StudySpec, cell: Params | None) -> tuple[StudySpec, OfferedCode]:
    from fmnist_optuna.work.preparation import prepare

    return prepare(spec, cell)


def _offer_code(spec: StudySpec, cell: Params) -> OfferedCode:
    from fmnist_optuna.training.user_code import UserCode
    from fmnist_optuna.work.preparation import offer_code

    return offer_code(UserCode(spec), cell)


@contextmanager
def no_signals() -> Iterator[list[int]]:
    """Leave signals to the program: none is caught. A KeyboardInterrupt ends the training in order all the same."""
    yield []


def run_study(
    spec: StudySpec, options: RunOptions, observer: Observer | None = None, catching: Catching = no_signals
) -> StudyResult:
    """Create or resume a study, run it until every cell is done, and evaluate the winner on the test set.

    On a finished study nothing is trained.

    Args:
        catching: Gives, while the cells are trained, the list of caught signals, which grows: at the first the workers
            finish their epoch and give their cells back, at the second they end at once.

    Raises:
        StoppedError: The timeout or `stop` came before every cell was done.
        InterruptedBySignalError: A signal did.
        WorkerFailedError: The workers crash again and again.
        MismatchError: The workers die with every cell that is left.
        FmnistOptunaError: Whatever `prepare_study` raises.
    """
    observer = observer or Observer()
    if options.dashboard_port is not None:
        check_address(LOOPBACK, options.dashboard_port)  # before anything is made
    prepared = prepare_study(spec, options)
    observer.prepared(prepared.session, prepared.data, prepared.n_new_cells)
    is_trained = not prepared.session.history.counts().is_over
    if is_trained:
        with (
            bound_fields(study=prepared.session.record.name),
            dashboard_beside(prepared.session, options, observer),
            catching() as caught,
        ):
            train_cells(prepared, options, observer, caught)
    counts = prepared.session.history.counts()
    is_known = not is_trained and counts.complete > 0 and find_winner(prepared.session).evaluation is not None
    winner = evaluate_winner(prepared.session, prepared.data.data_dir) if counts.complete else None
    if not is_known:  # workers started elsewhere may have trained it all
        decorate_study(prepared.session)
    return StudyResult(prepared.session, counts, winner, log_folder_of(prepared.session, options))


def log_folder_of(session: Session, options: RunOptions) -> Path:
    """Where the workers' logs go."""
    return options.log_folder or session.storage.artifacts.parent / "logs"


def train_cells(prepared: PreparedStudy, options: RunOptions, observer: Observer, caught: list[int]) -> None:
    """Let workers train a study's cells until none is left, the timeout comes, or a signal is caught.

    Args:
        caught: Signals that were caught; the list grows while this runs.

    Raises:
        StoppedError: The timeout or `stop` came before every cell was done.
        InterruptedBySignalError: A signal did.
        WorkerFailedError: The workers crash again and again.
        NotFoundError: The study was deleted meanwhile.
    """
    session = prepared.session
    supervisor = Supervisor(
        session=session,
        order=WorkerOrder(
            storage=options.storage,
            study_name=session.record.name,
            worker_id="",
            generation=session.record.generation,
            data_dir=prepared.data.data_dir,
            shared_data=prepared.shared_data,
            timing=options.timing,
            patience_seconds=options.patience_seconds,
            memory_limit_bytes=options.limits.memory_bytes,
            log_format=options.log_format,
            log_level=options.log_level,
        ),
        n_workers=options.n_workers,
        limits=options.limits,
        log_folder=log_folder_of(session, options),
    )
    deadline = None if options.timeout_seconds is None else time.monotonic() + options.timeout_seconds
    session.storage.patience.is_over = lambda: len(caught) > 1
    try:
        while supervisor.tick():
            observer.tick(session)
            if caught or (deadline is not None and time.monotonic() > deadline):
                break
            time.sleep(TICK_SECONDS)
        observer.tick(session)
        if caught:
            observer.stopping("signal")
        supervisor.stop()
        supervisor.wait(is_impatient=lambda: len(caught) > 1)
    except StorageError:
        supervisor.abandon()
        if caught:
            raise InterruptedBySignalError(
                "Stopped while the storage was away; run it again to go on.", caught[0]
            ) from None
        raise
    except KeyboardInterrupt:  # of a program that catches no signals, as a notebook
        observer.stopping("signal")
        _stop_in_order(supervisor)
        raise
    except BaseException:
        supervisor.stop(at_once=True)
        supervisor.wait()
        raise
    finally:
        session.storage.patience.is_over = lambda: False
    _check_finished(session, caught)


def _stop_in_order(supervisor: Supervisor) -> None:
    """Let the workers give their cells back; a second interruption ends them at once."""
    try:
        supervisor.stop()
        supervisor.wait()
    except KeyboardInterrupt:
        supervisor.stop(at_once=True)
        supervisor.wait()
        raise


def _check_finished(session: Session, caught: list[int]) -> None:
    if session.ledger.generation() is None:
        raise NotFoundError(f"study {session.record.name}: was deleted while it ran.")
    counts = session.history.counts()
    left = f"study {session.record.name}: {counts.done} of {counts.total} cells are done; run it again to go on."
    if caught:
        raise InterruptedBySignalError(f"Stopped by {signal.Signals(caught[0]).name}. {left}", caught[0])
    if not counts.is_over:
        raise StoppedError(f"Stopped before all cells were done. {left}")


@contextmanager
def dashboard_beside(session: Session, options: RunOptions, observer: Observer) -> Iterator[None]:
    """The studies in a browser meanwhile, if the options ask for it."""
    if options.dashboard_port is None:
        yield
        return
    from fmnist_optuna.pages.dashboard_process import DashboardProcess

    process = DashboardProcess(options.storage, session.record.name, LOOPBACK, options.dashboard_port)
    try:
        observer.opened(f"{process.address}/studies/{session.record.study_id}")
        yield
    finally:
        process.close()


def decorate_study(session: Session) -> None:
    """Let a dashboard show notes, figures and pictures of the study as it stands."""
    from fmnist_optuna.pages.notes import decorate  # plotly, after the training

    decorate(session)
