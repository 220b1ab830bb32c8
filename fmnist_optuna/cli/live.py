"""What a person sees while a study runs: a live view on a terminal, plain lines elsewhere. All of it on stderr."""

import logging
import time
from operator import itemgetter
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fmnist_optuna.cli.console import describe_study
from fmnist_optuna.cli.options import Common
from fmnist_optuna.cli.streams import say
from fmnist_optuna.cli.study_tables import (
    describe_climb,
    describe_counts,
    describe_decided,
    rungs_table,
    running_table,
)
from fmnist_optuna.data.source import ResolvedData
from fmnist_optuna.errors import InterruptedBySignalError, StoppedError
from fmnist_optuna.ledger.progress import NewResults
from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.ledger.rung_records import DecidedRung
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.time_left import make_remaining_time
from fmnist_optuna.running.observer import Observer
from fmnist_optuna.search.repeats import format_cell
from fmnist_optuna.study.climb import read_climb
from fmnist_optuna.study.records import StudyRecord
from fmnist_optuna.study.session import Session
from fmnist_optuna.wording import count, format_duration, format_params, format_percent

REFRESH_SECONDS = 0.5


def make_observer(common: Common) -> "StudyObserver":
    """The live view on a terminal; in a pipe, a file or CI one line for each finished trial; with --quiet nothing."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)  # values may have brackets and colons
    return LiveObserver(console) if console.is_terminal and not common.is_for_machines else StudyObserver()


class StudyObserver(Observer):
    """Plain lines: one for the study, one for each finished trial."""

    def __init__(self) -> None:
        self._results: NewResults | None = None
        self._next_look = 0.0
        self._last_decision = 0  # of those that were told already
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
        """Say which study, which data, how much there is to do; before that the rest of the study that it follows."""
        if self._session is not None:
            self.look(self._session)
        self._session = session
        record, counts = session.record, session.history.counts()
        if data.is_fallback:
            self.line(f"SYNTHETIC data: {data.reason}", logging.WARNING)
        verb = "starts" if counts.done + counts.failed == 0 else "goes on" if not counts.is_over else "is finished"
        self.line(
            f"study {describe_study(record)} {verb}: {describe_counts(counts)}; data {record.data_fingerprint[:12]}"
        )
        if (teacher := record.teacher_of({})) is not None:
            self.line(f"it learns from {teacher.describe()}")
        self._results = NewResults(session.history, since=session.history.last_finished_at())
        self._results.read()  # these were there before
        self._read_decisions(session)

    def asking(self, teacher: str) -> None:
        """Say whose answers are taken."""
        self.line(describe_asking(teacher))

    def scoring(self, what: str) -> None:
        """Say whose weights are scored, below the last results."""
        if self._session is not None:
            self.look(self._session)
        self.line(describe_scoring(what))

    def connected(self, cluster: str) -> None:
        """Say on which cluster the workers are."""
        self.line(cluster)

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
        """One line for each rung decided and each trial finished since the last look, in the order of time."""
        record = session.record
        events = [(each.decided_at, describe_decided(each, record.metric)) for each in self._read_decisions(session)]
        if finished := [] if self._results is None else self._results.read():
            counts = session.history.counts()
            n_before = counts.done - len(finished)
            for offset, cell in enumerate(finished, start=1):
                place = f"[{n_before + offset}/{counts.total}]"
                events.append((cell.finished_at or 0.0, f"{place} {describe_finished(cell, record)}"))
        for _, text in sorted(events, key=itemgetter(0)):
            self.line(text)

    def _read_decisions(self, session: Session) -> list[DecidedRung]:
        """The decisions since the last call."""
        if session.ladder is None:
            return []
        new = session.rungs.decided(after=self._last_decision)
        self._last_decision = max([self._last_decision, *(each.decision_id for each in new)])
        return new

    def stopping(self, how: str) -> None:
        """Say that the workers finish their epoch."""
        self.line(f"Stopping ({how}): workers finish their epoch and give cells back; once more ends them at once.")

    def line(self, text: str, level: int = logging.INFO) -> None:
        """One line on stderr."""
        say(text, level)


def describe_finished(cell: Cell, record: StudyRecord) -> str:
    """A finished cell in one line.

    Args:
        record: Of its study.
    """
    value = f"{record.value_in_full} {record.metric.format(cell.value)}"
    beside = "" if record.metric.is_accuracy else f", {record.accuracy_in_full} {format_percent(cell.val_accuracy)}"
    state = "cut" if cell.cut_at is not None and cell.state is State.PRUNED else cell.state
    return (
        f"trial {cell.trial_number} {state}: {value}{beside} "
        f"after {count(cell.n_epochs, 'epoch')} in {cell.seconds:.1f} s ({format_cell(cell.params)})"
    )


def describe_asking(teacher: str) -> str:
    """What is said while a teacher is asked, which takes minutes where it is large."""
    return f"taking the answers of {teacher}, once for all trainings"


def describe_scoring(what: str) -> str:
    """What is said while weights are scored, which takes a minute where several large ones are."""
    return f"scoring {what} on the test set"


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

    def asking(self, teacher: str) -> None:
        """Show it in the place of the view."""
        self._live.update(Text(describe_asking(teacher)), refresh=True)

    def scoring(self, what: str) -> None:
        """Show it in the place of the view."""
        self._live.update(Text(describe_scoring(what)), refresh=True)

    def look(self, session: Session) -> None:
        """Draw the study as it is now, below a line for each rung decided since the last look."""
        for decided in self._read_decisions(session):
            self.line(describe_decided(decided, session.record.metric))
        if self._view is None or self._view.session is not session:  # a study that follows
            self._view = StudyView(session)
        self._live.update(self._view.draw(), refresh=True)

    def line(self, text: str, level: int = logging.INFO) -> None:
        """One line above the view, however long."""
        self._live.console.print(text, soft_wrap=True, highlight=False, markup=False)


class StudyView:
    """The study as a picture in text, drawn again and again: what `run` and `status` show."""

    def __init__(self, session: Session) -> None:
        self.session, self._history = session, session.history
        self._title = describe_study(session.record)
        self._remaining = make_remaining_time(session)
        self._best: Cell | None = None
        self._n_complete = 0  # when the best one was read, which needs a look at all of them where points are repeated

    def draw(self) -> Group:
        """The study as it is now."""
        counts, running = self._history.counts(), self._history.running()
        if counts.complete != self._n_complete:
            self._best, self._n_complete = self._history.best_point(), counts.complete
        best = self._best
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
            score, point = self._describe_best(best), format_params(best.params)
            leader = f"best so far: {score} by trial {best.trial_number} ({point})"
        rows: list[RenderableType] = [Text(f"{self._title}: {describe_counts(counts)}", style="bold"), bar]
        if running:
            curves = self._history.curves([cell.trial_id for cell in running if cell.trial_id is not None])
            rows.append(running_table(curves, running, self.session.record))
        if (climb := read_climb(self.session)) and climb.steps:
            rows += [rungs_table(climb, self.session.record.metric), Text(describe_climb(climb))]
        return Group(*rows, *([] if self.session.record.is_on_all_data else [Text(leader)]))

    def _describe_best(self, cell: Cell) -> str:
        """The value of a cell; one that is no accuracy with its name, and the accuracy beside it."""
        metric, accuracy = self.session.record.metric, format_percent(cell.val_accuracy)
        return accuracy if metric.is_accuracy else f"{metric.name} {metric.format(cell.value)} (val acc {accuracy})"
