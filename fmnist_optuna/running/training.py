"""The training of a study's cells by workers that are watched here, until none is left or somebody stops it."""

import math
import signal
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from fmnist_optuna.errors import InterruptedBySignalError, NotFoundError, StoppedError, StorageError
from fmnist_optuna.ledger.states import UNFINISHED
from fmnist_optuna.processes.cores import workers_for
from fmnist_optuna.running.launching import Launcher
from fmnist_optuna.running.observer import Observer
from fmnist_optuna.running.options import RunOptions
from fmnist_optuna.running.preparation import PreparedStudy
from fmnist_optuna.running.rung_note import RungNote
from fmnist_optuna.study.session import Session
from fmnist_optuna.wording import format_params
from fmnist_optuna.work.limits import WorkerLimits
from fmnist_optuna.work.order import WorkerOrder
from fmnist_optuna.work.supervisor import TICK_SECONDS, Supervisor

LEAVE_SECONDS = 10.0  # for workers whose storage is away: those of `worker` have as much by default


def train_cells(
    prepared: PreparedStudy,
    options: RunOptions,
    observer: Observer,
    caught: list[int],
    launcher: Launcher | None = None,
) -> tuple[str, ...]:
    """Let workers train a study's cells until none is left, the timeout comes, or a signal is caught.

    Args:
        caught: Signals that were caught; the list grows while this runs.
        launcher: Starts the workers; by default on this machine.

    Returns:
        A line for each cell that was given up, as its workers died again and again; it still waits.

    Raises:
        StoppedError: The timeout or `stop` came before every cell was done.
        InterruptedBySignalError: A signal did.
        WorkerFailedError: The workers crash again and again.
        NotFoundError: The study was deleted meanwhile.
    """
    session = prepared.session
    supervisor = _make_supervisor(prepared, options, launcher or Launcher())
    with session.storage.giving_up_when(lambda: len(caught) > 1):
        _supervise_to_the_end(supervisor, observer, caught, options.timeout_seconds)
    _check_finished(session, caught, supervisor.given_up)
    return _describe_given_up(session, supervisor.given_up)


def _describe_given_up(session: Session, given_up: Mapping[str, int]) -> tuple[str, ...]:
    """What was given up and has no result by now, in words.

    Args:
        given_up: Deaths of their workers, by cell_id.
    """
    return tuple(
        f"{format_params(cell.params)}: its worker died {given_up[cell.cell_id]} times, while nothing else was "
        "finished; often for want of memory, see --memory-limit"
        for cell in session.history.cells()
        if cell.cell_id in given_up and cell.state in UNFINISHED
    )


def _make_supervisor(prepared: PreparedStudy, options: RunOptions, launcher: Launcher) -> Supervisor:
    session = prepared.session
    order = WorkerOrder(
        storage=options.storage,
        study_name=session.record.name,
        worker_id="",
        generation=session.record.generation,
        data_dir=prepared.data.data_dir,
        shared_data=prepared.shared_data,
        code=prepared.code,
        limits=WorkerLimits(options.limits.memory_bytes),
        log_format=options.log_format,
        log_level=options.log_level,
        events_file=options.events_file,
    )
    n_workers = launcher.n_workers or options.n_workers or workers_for(session.record.spec.training.threads)
    return Supervisor(session, order, n_workers, options.limits, log_folder_of(session, options), launcher.launch)


def _supervise_to_the_end(
    supervisor: Supervisor, observer: Observer, caught: list[int], timeout_seconds: float | None
) -> None:
    """Supervise the workers and leave none behind, whatever ends it."""
    try:
        _supervise(supervisor, observer, caught, timeout_seconds)
    except StorageError:
        _leave_storage(supervisor, caught)
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


def _supervise(supervisor: Supervisor, observer: Observer, caught: list[int], timeout_seconds: float | None) -> None:
    """Keep the workers at work until nothing is left, the time is over or a signal was caught; then let them leave."""
    deadline = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
    note = RungNote(supervisor.session)
    while supervisor.tick():
        observer.tick(supervisor.session)
        note.tick()
        if caught or time.monotonic() > deadline:
            break
        time.sleep(TICK_SECONDS)
    observer.tick(supervisor.session)
    if caught:
        observer.stopping("signal")
    supervisor.stop()
    supervisor.wait(is_impatient=lambda: len(caught) > 1)


def _leave_storage(supervisor: Supervisor, caught: list[int]) -> None:
    """Let the workers give their cells back as long as the database answers, else end them; the next run goes on.

    It answers where the place of the artifacts does not. Then what is taken from a worker that does not leave in time
    counts for nothing, as little as what it gives back.
    """
    until = time.monotonic() + LEAVE_SECONDS
    try:
        with supervisor.session.storage.giving_up_when(lambda: True):
            supervisor.stop()
            supervisor.wait(is_impatient=lambda: len(caught) > 1 or time.monotonic() > until)
    except StorageError:
        supervisor.abandon()


def _stop_in_order(supervisor: Supervisor) -> None:
    """Let the workers give their cells back; a second interruption ends them at once."""
    try:
        supervisor.stop()
        supervisor.wait()
    except KeyboardInterrupt:
        supervisor.stop(at_once=True)
        supervisor.wait()
        raise


def _check_finished(session: Session, caught: list[int], given_up: Collection[str]) -> None:
    if session.ledger.generation() is None:
        raise NotFoundError(f"study {session.record.name}: was deleted while it ran.")
    counts = session.history.counts()
    left = f"study {session.record.name}: {counts.done} of {counts.total} cells are done; run it again to go on."
    if caught:
        raise InterruptedBySignalError(f"Stopped by {signal.Signals(caught[0]).name}. {left}", caught[0])
    if not session.history.counts(given_up).is_over:
        raise StoppedError(f"Stopped before all cells were done. {left}")


def log_folder_of(session: Session, options: RunOptions) -> Path:
    """Where the workers' logs go."""
    return options.log_folder or session.storage.artifacts.parent / "logs"
