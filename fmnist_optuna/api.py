"""The Python interface: whole studies from a program, a notebook or a thread.

It prints nothing, sets up no logging, installs no signal handler and leaves the environment, `__main__` and Optuna's
log level as they are. What the commands do is done by the same code.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from fmnist_optuna import confirming, running
from fmnist_optuna.confirming import ConfirmedStudy
from fmnist_optuna.data.source import ResolvedData
from fmnist_optuna.errors import UsageError
from fmnist_optuna.export import folder as exporting
from fmnist_optuna.export.folder import Export
from fmnist_optuna.export.prediction import ExportedModel
from fmnist_optuna.ledger.progress import CellCounts, WorkerRow
from fmnist_optuna.ledger.records import Epoch, Timing
from fmnist_optuna.ledger.storage import open_storage
from fmnist_optuna.processes.cores import usable_cores
from fmnist_optuna.results.winner import Winner, find_winner
from fmnist_optuna.settings import Settings
from fmnist_optuna.spec.study_spec import StudySpec, parse_spec, read_spec
from fmnist_optuna.study.leaderboard import read_trial, read_trials
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study, raise_generation
from fmnist_optuna.study.verification import Verification, verify
from fmnist_optuna.work.limits import Limits


class Study:
    """A study of a storage. `run_study` and `open_study` make it; a `with` block closes its connections.

    Example:
        with open_study("fashion-mnist") as study:
            print(study.status().done, study.best().params)
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def name(self) -> str:
        """Of the study; where drawn garments stand in for the data, it ends in "-synthetic"."""
        return self._session.record.name

    @property
    def spec(self) -> StudySpec:
        """What is searched; the grid is the newest that was accepted."""
        return self._session.record.spec

    @property
    def is_demo(self) -> bool:
        """Whether its images are drawn garments, so that its numbers say nothing about Fashion-MNIST."""
        return self._session.record.info.is_demo

    def status(self) -> CellCounts:
        """Number of cells by state."""
        return self._session.history.counts()

    def workers(self) -> list[WorkerRow]:
        """The workers that were seen of late, wherever they run."""
        return self._session.history.workers()

    def trials(self) -> list[dict[str, object]]:
        """All attempts, the best first, as rows that `pandas.DataFrame` takes.

        Returns:
            A dictionary for each attempt: trial (its number), cell, state, val_accuracy (0..1 or None), epochs,
            seconds, attempt (from 1), worker, reason, error, foreign, and a column "params_NAME" for each parameter.

        Example:
            pandas.DataFrame(study.trials()).groupby("params_hidden_size").val_accuracy.max()
        """
        return [
            {
                "trial": row.number,
                "cell": row.cell_id,
                "state": row.state,
                **{f"params_{name}": value for name, value in row.params.items()},
                "val_accuracy": row.value,
                "epochs": row.n_epochs,
                "seconds": row.seconds,
                "attempt": row.attempt,
                "worker": row.worker,
                "reason": row.reason,
                "error": row.error,
                "foreign": row.is_foreign,
            }
            for row in read_trials(self._session)
        ]

    def curve(self, trial: int) -> list[Epoch]:
        """What the epochs of a trial measured.

        Args:
            trial: Its number.

        Raises:
            NotFoundError: The study has no such trial.
        """
        return self._session.history.curve(read_trial(self._session, trial).trial_id)

    def best(self) -> Winner:
        """The winner so far, with its score on the test set once there is one; nothing is scored.

        Raises:
            NotFoundError: No trial is complete yet.
        """
        return find_winner(self._session)

    def verify(self) -> Verification:
        """Whether every cell has exactly one result, with what contradicts it; no study needs to be finished for it."""
        return verify(self._session.storage, self._session.trials, self._session.record.study_id)

    def stop(self) -> None:
        """Let every worker of the study leave after its epoch, wherever it runs; `run_study` goes on with it."""
        raise_generation(self._session.storage, self._session.record.study_id)

    def close(self) -> None:
        """Close the connections to the storage."""
        self._session.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Study {self.name} in {self._session.storage.name}>"


class Observer:
    """Is told what happens while cells are trained, in the thread that runs the study; override what is of interest."""

    def started(self, study: Study) -> None:
        """The study is there and its cells are known."""

    def progressed(self, study: Study) -> None:
        """The workers are at it; called about ten times a second, so that it must be quick."""

    def stopping(self) -> None:
        """The workers were asked to give their cells back."""

    def finished(self, study: Study | None) -> None:
        """It is over, for good or by an exception; no study if it had not come to one."""


class ProgressBar(Observer):
    """A bar of the cells that are done, in a terminal or a notebook.

    Example:
        run_study("study.toml", observer=ProgressBar())
    """

    SECONDS = 0.5  # between looks

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

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

    def finished(self, study: Study | None) -> None:
        """Leave the bar as it stands."""
        if study is not None:
            self._draw(study)
        self._bar.stop()

    def _draw(self, study: Study) -> None:
        counts = study.status()
        self._bar.update(self._task, description=study.name, completed=counts.done + counts.failed, total=counts.total)


def run_study(
    spec: StudySpec | Mapping[str, object] | str | Path,
    *,
    storage: str | None = None,
    n_workers: int | None = None,
    data_dir: str | Path | None = None,
    timeout_seconds: float | None = None,
    trial_seconds: float | None = None,
    memory_bytes: int | None = None,
    accepts_code: bool = False,
    observer: Observer | None = None,
) -> Study:
    """Create or resume a study, train its cells until none is left, and score the winner once on the test set.

    Every cell that is done keeps its result: a second call goes on, and on a finished study it trains nothing. A cell
    may fail for good while the others finish; `status().failed` counts those. A KeyboardInterrupt lets the workers
    finish their epoch and give their cells back; a second one ends them at once.

    Args:
        spec: A `StudySpec`, the same as a dictionary of tables, or the path of a study file.
        storage: SQLAlchemy URL of SQLite or Postgres; None for what the environment says, else a file in ./studies.
        n_workers: Training processes at once on this machine, >= 1; None for one a core.
        data_dir: Folder with the four IDX files; None for the places where the command looks.
        timeout_seconds: > 0; after it the study is stopped, to be gone on with. None for no limit.
        trial_seconds: > 0; an attempt that takes longer is killed. None for no limit.
        memory_bytes: A worker that grows larger is replaced. None for no limit.
        accepts_code: Whether to go on although the model's code is not that of the study.
        observer: Is told what happens, such as `ProgressBar()`.

    Returns:
        The study, open.

    Raises:
        SpecError: The specification, the model or a callback is wrong, in one line.
        UsageError: An argument is out of its range.
        DataError: The data is missing or corrupt.
        StorageError: The storage cannot be reached or written.
        JoinRefusedError: The study exists with another specification, other data or other code.
        StoppedError: The time was over, or somebody stopped the study, before every cell was done.
        WorkerFailedError: The workers crash again and again.

    Example:
        grid = {"hidden_size": [64, 128], "dropout_rate": [0.2], "learning_rate": [0.001]}
        study = run_study({"name": "small", "grid": grid})
        print(study.best().evaluation.accuracy)
    """
    for name, value in {"n_workers": n_workers, "timeout_seconds": timeout_seconds, "trial_seconds": trial_seconds,
                        "memory_bytes": memory_bytes}.items():  # fmt: skip
        if value is not None and not value > 0:
            raise UsageError(f"{name} must be greater than 0, but is {value!r}.")
    options = replace(
        _make_options(storage, n_workers, data_dir, timeout_seconds, accepts_code),
        limits=Limits(trial_seconds, memory_bytes),
    )
    with _telling(observer) as told:
        try:
            return Study(running.run_study(_read(spec), options, told).session)
        except BaseException:
            if told.study is not None:
                told.study.close()
            raise


def open_study(name: str | None = None, *, storage: str | None = None) -> Study:
    """A study that is there, to be read, confirmed or exported; nothing is created.

    Args:
        name: Of the study; None for the only one of the storage.
        storage: As `run_study` has it.

    Raises:
        NotFoundError: No such study, or no storage there.
        UsageError: No name, and several studies.
        StorageError: The storage cannot be read, or an earlier version made it (`fmnist-optuna upgrade`).

    Example:
        pandas.DataFrame(open_study("fashion-mnist").trials())
    """
    settings = Settings.from_environment()
    opened = open_storage(storage or settings.storage, lease_seconds=settings.lease_seconds)
    try:
        return Study(Session(opened, find_study(opened, name), Timing.for_lease(settings.lease_seconds), "reader"))
    except BaseException:
        opened.close()
        raise


def confirm_study(
    study: Study,
    *,
    n_cells: int | None = None,
    n_seeds: int | None = None,
    n_workers: int | None = None,
    data_dir: str | Path | None = None,
    timeout_seconds: float | None = None,
    accepts_code: bool = False,
    observer: Observer | None = None,
) -> ConfirmedStudy:
    """Train the best cells of a finished study again over fresh seeds, and choose among them.

    Interrupted, a second call goes on. From then on `study.best()` is what was chosen.

    Args:
        study: Open and finished.
        n_cells: How many of the best, >= 1; None for what the study file says, 3.
        n_seeds: Seeds a cell, >= 2; None for what the study file says, 5.
        n_workers: As `run_study` has it, as all that follow.

    Raises:
        NotFoundError: No trial of the study is complete.
        UsageError: The study is not finished, or is itself a confirmation; an argument is out of its range.
        SpecError: The model starts from the same weights whatever the seed.
        JoinRefusedError: The model's code is not what the cells were trained with.
        MismatchError: Seeds failed, so that no cell can be chosen.

    Example:
        print(confirm_study(study).confirmation.test)
    """
    for name, value, least in (("n_cells", n_cells, 1), ("n_seeds", n_seeds, 2), ("n_workers", n_workers, 1)):
        if value is not None and value < least:
            raise UsageError(f"{name} must be at least {least}, but is {value!r}.")
    session = study._session
    url = session.storage.url.render_as_string(hide_password=False)
    options = _make_options(url, n_workers, data_dir, timeout_seconds, accepts_code)
    with _telling(observer) as told:
        return confirming.confirm_study(session, options, n_cells, n_seeds, told)


def export_model(
    study: Study,
    out: str | Path = "models",
    *,
    trial: int | None = None,
    formats: Sequence[str] = ("savedmodel",),
    version: int | None = None,
    data_dir: str | Path | None = None,
) -> Export:
    """Write the stored weights of the winner as a model that other programs load; nothing is trained.

    It must give the recorded answers on all test images in a fresh process; else nothing is left.

    Args:
        study: Open, with a COMPLETE trial.
        out: Folder of all exports; the model goes to `out/STUDY/VERSION`.
        trial: Number of another trial than the winner.
        formats: "savedmodel" and "keras".
        version: >= 1; None for the next.
        data_dir: As `run_study` has it.

    Raises:
        NotFoundError: No such trial, or none is complete.
        UsageError: The trial is not COMPLETE, the version exists, or there is no such format.
        MismatchError: The weights are missing or altered, or the model gives other answers than the recorded ones.

    Example:
        model = load_exported(export_model(study).folder)
    """
    if unknown := [name for name in formats if name not in exporting.FORMATS]:
        raise UsageError(f"formats must be of {', '.join(exporting.FORMATS)}, but has {unknown[0]!r}.")
    return exporting.export_model(study._session, Path(out), trial, tuple(formats), version, _path(data_dir))


def load_exported(folder: str | Path) -> ExportedModel:
    """A model that `export_model` or the `export` command wrote, in this process: TensorFlow is imported here.

    Args:
        folder: A version, or the folder of several, of which the newest is taken.

    Raises:
        DataError: The folder holds no such model.

    Example:
        load_exported("models/fashion-mnist").predict(images)  # uint8 (n, 28, 28): ["Ankle boot", ...]
    """
    return ExportedModel(Path(folder))


class _Told(running.Observer):
    """Hands on to a public observer what a run tells."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.study: Study | None = None

    def prepared(self, session: Session, data: ResolvedData, n_new_cells: int) -> None:
        self.study = Study(session)
        self.observer.started(self.study)

    def tick(self, session: Session) -> None:
        self.observer.progressed(self.study or Study(session))

    def stopping(self, how: str) -> None:
        self.observer.stopping()


@contextmanager
def _telling(observer: Observer | None) -> Iterator[_Told]:
    """Hand on what happens, its end included."""
    told = _Told(observer or Observer())
    try:
        yield told
    finally:
        told.observer.finished(told.study)


def _read(spec: StudySpec | Mapping[str, object] | str | Path) -> StudySpec:
    if isinstance(spec, StudySpec):
        return spec
    return parse_spec(spec, "spec") if isinstance(spec, Mapping) else read_spec(Path(spec))


def _make_options(
    storage: str | None,
    n_workers: int | None,
    data_dir: str | Path | None,
    timeout_seconds: float | None,
    accepts_code: bool,
) -> running.RunOptions:
    settings = Settings.from_environment()
    return running.RunOptions(
        storage=storage or settings.storage,
        n_workers=n_workers or usable_cores(),
        data_dir=_path(data_dir),
        timeout_seconds=timeout_seconds,
        timing=Timing.for_lease(settings.lease_seconds),
        accepts_code=accepts_code,
    )


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
