"""What a person sees while a study runs: a live view on a terminal, plain lines elsewhere. All of it on stderr."""

import logging
import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fmnist_optuna.cli.console import describe_study
from fmnist_optuna.cli.options import Common
from fmnist_optuna.cli.streams import say
from fmnist_optuna.cli.study_tables import describe_counts, rungs_table, running_table
from fmnist_optuna.data.source import ResolvedData
from fmnist_optuna.errors import InterruptedBySignalError, StoppedError
from fmnist_optuna.ledger.progress import NewResults
from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.pages.time_left import RemainingTime
from fmnist_optuna.running.observer import Observer
from fmnist_optuna.study.session import Session
from fmnist_optuna.wording import count, format_duration, format_params, format_percent

REFRESH_SECONDS = 0.5


def make_observer(common: Common) -> "StudyObserver":
    """The live view on a terminal; in a pipe, a file or CI one line for each finished trial; with --quiet nothing."""
    console = Console(stderr=True)
    return LiveObserver(console) if console.is_terminal and not common.is_for_machines else StudyObserver()


class StudyObserver(Observer):
    """Plain lines: one for the study, one for each finished trial."""

    def __init__(self) -> None:
        self._results: NewResults | None = None
        self._next_look = 0.0
        self._session: Session | None = None

    def __enter__(self) -> "StudyObserver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Say what was finished since the last look, unless the database is what ended the run."""
        if self._session is not None and (kind is None or issubclass(kind, (StoppedError, InterruptedBySignalError))):
            self.look(self._session)

    def prepared(self, session: Session, data: ResolvedData, n_new_cells: int) -> None:
        """Say which study, which data, how much there is to do."""
        self._session = session
        record, counts = session.record, session.history.counts()
        if data.is_fallback:
            self.line(f"SYNTHETIC data: {data.reason}", logging.WARNING)
        verb = "starts" if counts.done + counts.failed == 0 else "goes on" if not counts.is_over else "is finished"
        self.line(
            f"study {describe_study(record)} {verb}: {describe_counts(counts)}; data {record.data_fingerprint[:12]}"
        )
        self._results = NewResults(session.history, since=session.history.last_finished_at())
        self._results.read()  # these were there before

    def opened(self, address: str) -> None:
        """Say where the dashboard is."""
        self.line(f"dashboard: {address}")

    def tick(self, session: Session) -> None:
        """Say what was finished since the last look."""
        if self._is_time():
            self.look(session)

    def _is_time(self) -> bool:
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + REFRESH_SECONDS
        return True

    def look(self, session: Session) -> None:
        """One line for each trial finished since the last look."""
        finished = [] if self._results is None else self._results.read()
        if not finished:
            return
        counts = session.history.counts()
        n_before = counts.done - len(finished)
        for offset, cell in enumerate(finished, start=1):
            self.line(f"[{n_before + offset}/{counts.total}] {describe_finished(cell)}")

    def stopping(self, how: str) -> None:
        """Say that the workers finish their epoch."""
        self.line(f"Stopping ({how}): workers finish their epoch and give cells back; once more ends them at once.")

    def line(self, text: str, level: int = logging.INFO) -> None:
        """One line on stderr."""
        say(text, level)


def describe_finished(cell: Cell) -> str:
    """A finished cell in one line."""
    return (
        f"trial {cell.trial_number} {cell.state}: val accuracy {format_percent(cell.val_accuracy)} "
        f"after {count(cell.n_epochs, 'epoch')} in {cell.seconds:.1f} s ({format_params(cell.params)})"
    )


class LiveObserver(StudyObserver):
    """A bar for the cells, a line for each worker, the best so far, the time left; it vanishes at the end."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._view: StudyView | None = None

    def __enter__(self) -> "LiveObserver":
        self._live.start()
        self._live.update(Text("starting workers: TensorFlow is imported once, a few seconds"), refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.update(Text(""), refresh=True)
        self._live.stop()

    def look(self, session: Session) -> None:
        """Draw the study as it is now."""
        self._view = self._view or StudyView(session)
        self._live.update(self._view.draw(), refresh=True)

    def line(self, text: str, level: int = logging.INFO) -> None:
        """One line above the view, however long."""
        self._live.console.print(text, soft_wrap=True, highlight=False, markup=False)


class StudyView:
    """The study as a picture in text, drawn again and again: what `run` and `status` show."""

    def __init__(self, session: Session) -> None:
        self._history, self._rungs = session.history, session.rungs
        self._max_epochs = session.record.spec.training.max_epochs
        self._title = describe_study(session.record)
        self._remaining = RemainingTime(session.history)

    def draw(self) -> Group:
        """The study as it is now."""
        counts, best, running = self._history.counts(), self._history.best(), self._history.running()
        n_finished = counts.done + counts.failed
        seconds = self._remaining.estimate(counts, running)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=max(1, counts.total), completed=n_finished, width=30),
            f"{n_finished}/{count(counts.total, 'cell')}",
            "" if seconds is None else f"about {format_duration(seconds)} left",
        )
        leader = "best so far: none yet"
        if best is not None:
            score, point = format_percent(best.val_accuracy), format_params(best.params)
            leader = f"best so far: {score} by trial {best.trial_number} ({point})"
        rows: list[RenderableType] = [Text(f"{self._title}: {describe_counts(counts)}", style="bold"), bar]
        if running:
            rows.append(running_table(self._history, running))
        if decided := self._rungs.decided():
            rows.append(rungs_table(decided, self._max_epochs))
        return Group(*rows, Text(leader))
