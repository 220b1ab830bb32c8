"""Who is told what happens while cells are trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from fmnist_optuna.api.study import Study
from fmnist_optuna.data.source import ResolvedData
from fmnist_optuna.described_errors import describe_error
from fmnist_optuna.running import observer as running
from fmnist_optuna.study.session import Session


class Observer:
    """Is told what happens while cells are trained, in the thread that runs the study; override what is of interest."""

    def started(self, study: Study) -> None:
        """The study is there and its cells are known; once more for another that follows in the same call."""

    def progressed(self, study: Study) -> None:
        """The workers are at it; called about twenty times a second, so that it must be quick."""

    def stopping(self) -> None:
        """The workers were asked to give their cells back."""

    def failed(self, error: BaseException) -> None:
        """An exception ends it, such as that the storage stays away; `finished` comes next."""

    def finished(self, study: Study | None) -> None:
        """It is over, for good or by an exception; no study if it had not come to one.

        What the observer raises here or in `failed` is a note on the exception that ended the run, if one did.
        """


class ProgressBar(Observer):
    """A bar of the cells that are done, in a terminal or a notebook.

    Example:
        run_study("study.toml", observer=ProgressBar())
    """

    SECONDS = 0.5  # between looks

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # heavy

        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._task = self._bar.add_task("cells", total=None)
        self._next_look = 0.0

    def started(self, study: Study) -> None:
        """Show the bar."""
        self._bar.start()
        self._draw(study)

    def progressed(self, study: Study) -> None:
        """Draw it anew, twice a second."""
        now = self._bar.get_time()
        if now >= self._next_look:
            self._next_look = now + self.SECONDS
            self._draw(study)

    def failed(self, error: BaseException) -> None:
        """Leave the bar as it stands: the storage may be what failed."""
        if self._bar.live.is_started:
            self._bar.stop()

    def finished(self, study: Study | None) -> None:
        """Draw it a last time and leave it."""
        if study is None or not self._bar.live.is_started:
            return
        try:
            self._draw(study)
        finally:
            self._bar.stop()

    def _draw(self, study: Study) -> None:
        counts = study.status()
        self._bar.update(self._task, description=study.name, completed=counts.done + counts.failed, total=counts.total)


class Told(running.Observer):
    """Hands on to a public observer what a run tells."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.study: Study | None = None

    def prepared(self, session: Session, data: ResolvedData, n_new_cells: int) -> None:
        """The study is there."""
        self.study = Study(session)
        self.observer.started(self.study)

    def tick(self, session: Session) -> None:
        """The workers are at it."""
        self.observer.progressed(self.study or Study(session))

    def stopping(self, how: str) -> None:
        """The workers were asked to leave."""
        self.observer.stopping()


@contextmanager
def telling(told: Told) -> Iterator[None]:
    """Tell of the end of what is done in this block; no exception of the observer hides the one that is the end."""
    try:
        yield
    except BaseException as error:
        _tell_failure(told, error)
        raise
    told.observer.finished(told.study)


def _tell_failure(told: Told, ending: BaseException) -> None:
    """Tell of an end by an exception, on which it is noted what the observer raises."""
    for tell in (partial(told.observer.failed, ending), partial(told.observer.finished, told.study)):
        try:
            tell()
        except Exception as error:  # whatever an observer raises
            ending.add_note(f"The observer was told of it and raised {describe_error(error)}")
