"""A study from its specification to its tested winner, in one call.

It prints nothing: an observer is told what happens.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fmnist_optuna.events.file import recording
from fmnist_optuna.ledger.records import CellCounts
from fmnist_optuna.pages.address import LOOPBACK, check_address
from fmnist_optuna.results.winner import Winner, evaluate_winner, find_winner_or_none
from fmnist_optuna.running.all_data import train_best_point
from fmnist_optuna.running.catching import Catching, no_signals
from fmnist_optuna.running.launching import Launcher, launching
from fmnist_optuna.running.observer import Observer
from fmnist_optuna.running.options import RunOptions
from fmnist_optuna.running.preparation import PreparedStudy, prepare_study
from fmnist_optuna.running.telling import tell_winner, telling_of_study
from fmnist_optuna.running.training import log_folder_of, train_cells
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.session import Session


@dataclass(frozen=True)
class StudyResult:
    """What a run ends with.

    Args:
        session: Of the study, for further questions.
        counts: Cells by state.
        winner: The winner with its test score; None when no cell is complete.
        log_folder: Where the workers' logs are.
        given_up: A line for each cell that this run gave up, as its workers died again and again; it still waits.
    """

    session: Session
    counts: CellCounts
    winner: Winner | None
    log_folder: Path
    given_up: tuple[str, ...] = ()


def run_study(
    spec: StudySpec, options: RunOptions, observer: Observer | None = None, catching: Catching = no_signals
) -> StudyResult:
    """Create or resume a study, run it until every cell is done, and evaluate the winner on the test set.

    With folds the winner is trained once more before that, on all training images. On a finished study nothing is
    trained.

    Args:
        catching: Gives, while the cells are trained, the list of caught signals, which grows: at the first the workers
            finish their epoch and give their cells back, at the second they end at once.

    Raises:
        StoppedError: The timeout or `stop` came before every cell was done.
        InterruptedBySignalError: A signal did.
        WorkerFailedError: The workers crash again and again.
        FmnistOptunaError: Whatever `prepare_study` raises.
    """
    observer, began = observer or Observer(), time.monotonic()
    if options.dashboard_port is not None:
        check_address(LOOPBACK, options.dashboard_port)  # before anything is made
    with launching(spec, options) as launcher:
        prepared = prepare_study(spec, options, meanwhile=launcher.begin, asking=observer.asking)
        launcher.tell(prepared, observer)
        observer.prepared(prepared.session, prepared.data, prepared.n_new_cells)
        with recording(options.events_file), telling_of_study(prepared.session, prepared.n_new_cells):
            return _run(prepared, options, observer, catching, began, launcher)


def _run(
    prepared: PreparedStudy,
    options: RunOptions,
    observer: Observer,
    catching: Catching,
    began: float,
    launcher: Launcher,
) -> StudyResult:
    """Train what is not trained yet, and evaluate the winner.

    Args:
        began: When the time limit began to run, by the monotonic clock.
    """
    is_trained = not prepared.session.history.counts().is_over
    given_up: tuple[str, ...] = ()
    if is_trained:
        with dashboard_beside(prepared.session, options, observer), catching() as caught:
            given_up = train_cells(prepared, options, observer, caught, launcher)
        launcher.close()
    else:  # whoever trained the last cell may have died before this
        prepared.session.checkpoints.remove_all()
    counts = prepared.session.history.counts()
    found = find_winner_or_none(prepared.session)
    is_known = not is_trained and found is not None and found.evaluation is not None
    rest = options.with_rest_since(began)
    winner = None if found is None else _test(prepared, found, rest, observer, catching)
    if winner is not None:
        tell_winner(winner)
    if not is_known:  # workers started elsewhere may have trained it all
        decorate_study(prepared.session)
    return StudyResult(prepared.session, counts, winner, log_folder_of(prepared.session, options), given_up)


def _test(
    prepared: PreparedStudy, found: Winner, options: RunOptions, observer: Observer, catching: Catching
) -> Winner:
    """The winner with its score on the test set; with folds it is trained on all training images first."""
    session, data_dir = prepared.session, prepared.data.data_dir
    if session.record.is_cross_validated:
        if not session.history.is_over():  # cells that were given up may still change who it is
            return found
        train_best_point(session, replace(options, data_dir=data_dir, ray=None), observer, catching)
    return evaluate_winner(session, data_dir, observer.scoring)


@contextmanager
def dashboard_beside(session: Session, options: RunOptions, observer: Observer) -> Iterator[None]:
    """The studies in a browser meanwhile, if the options ask for it."""
    if options.dashboard_port is None:
        yield
        return
    from fmnist_optuna.pages.dashboard_process import DashboardProcess  # loads optuna-dashboard, plotly and waitress

    process = DashboardProcess(options.storage, session.record.name, LOOPBACK, options.dashboard_port)
    try:
        observer.opened(f"{process.address}/studies/{session.record.study_id}")
        yield
    finally:
        process.close()


def decorate_study(session: Session) -> None:
    """Let a dashboard show notes, figures and pictures of the study as it stands."""
    from fmnist_optuna.pages.notes import decorate  # plotly

    decorate(session)
