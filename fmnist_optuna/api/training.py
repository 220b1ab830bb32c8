"""Training from a program: a whole study, and the confirmation of one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fmnist_optuna import confirming
from fmnist_optuna.api.observer import Observer, Told, telling
from fmnist_optuna.api.study import Study
from fmnist_optuna.confirming import ConfirmedStudy
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.running import study as running
from fmnist_optuna.running.options import RunOptions
from fmnist_optuna.spec.reading import parse_spec, read_spec
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.work.limits import Limits


def run_study(
    spec: StudySpec | Mapping[str, object] | str | Path,
    *,
    storage: str | None = None,
    artifacts: str | None = None,
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
    may fail for good while the others finish; `status().failed` counts those. One whose workers die again and again is
    given up in this call, and waits; `status().waiting` counts those. A KeyboardInterrupt lets the workers
    finish their epoch and give their cells back; a second one ends them at once.

    Args:
        spec: A `StudySpec`, the same as a dictionary of tables, or the path of a study file.
        storage: SQLAlchemy URL of SQLite or Postgres; None for what the environment says, else a file in ./studies.
        artifacts: "s3://BUCKET/PREFIX" for weights and checkpoints of a new study; None for what the environment says,
            else a folder beside the storage. A study that is there keeps its own place.
        n_workers: Training processes at once on this machine, >= 1; None for one a core, or as many as the cores have
            threads for.
        data_dir: Folder with the four IDX files, or with your own; None for the places where the command looks.
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
        JoinRefusedError: The study exists with another specification or other code.
        MismatchError: The study exists with other data from the same source, or stored weights are missing or altered.
        NotFoundError: The study was deleted while it ran.
        StoppedError: The time was over, or somebody stopped the study, before every cell was done.
        WorkerFailedError: The workers crash again and again, or a process that checks or scores for them dies.

    Example:
        grid = {"hidden_size": [64, 128], "dropout_rate": [0.2], "learning_rate": [0.001]}
        study = run_study({"name": "small", "grid": grid})
        print(study.best().evaluation.accuracy)
    """
    options = replace(
        _make_options(StorageOptions.from_environment(storage), n_workers, data_dir, timeout_seconds, accepts_code),
        limits=Limits(trial_seconds, memory_bytes),
    )
    told = Told(observer or Observer())
    try:
        with telling(told):
            return Study(running.run_study(_read(spec), options, told).session)
    except BaseException:
        if told.study is not None:  # which the observer has been told of by then
            told.study.close()
        raise


def confirm_study(
    study: Study,
    *,
    n_cells: int | None = None,
    n_seeds: int | None = None,
    all_data: bool = False,
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
        all_data: Whether the chosen cell's seeds are then trained once more, on the validation images too:
            `winner.all_data`. Without `n_cells` and `n_seeds` a finished confirmation is left as it is.
        n_workers: As `run_study` has it, as all that follow.

    Raises:
        NotFoundError: No trial of the study is complete, or the confirmation was deleted while it ran.
        UsageError: The study is not finished, or follows from another; an argument is out of its range.
        SpecError: The model starts from the same weights whatever the seed.
        DataError, StorageError: The data is missing or corrupt; the storage cannot be reached or written.
        JoinRefusedError: The code is not what the cells were trained with; or all data had another number of epochs.
        MismatchError: Seeds failed, or their workers die; the data is not the study's; weights are missing or altered.
        StoppedError: The time was over, or somebody stopped the confirmation, before every seed was done.
        WorkerFailedError: The workers crash again and again, or a process that checks or scores for them dies.

    Example:
        print(confirm_study(study).confirmation.test)
    """
    options = _make_options(study._session.storage.options, n_workers, data_dir, timeout_seconds, accepts_code)
    with telling(told := Told(observer or Observer())):
        return confirming.confirm_study(study._session, options, n_cells, n_seeds, told, all_data=all_data)


def _read(spec: StudySpec | Mapping[str, object] | str | Path) -> StudySpec:
    if isinstance(spec, StudySpec):
        return spec
    return parse_spec(spec, "spec") if isinstance(spec, Mapping) else read_spec(Path(spec))


def _make_options(
    storage: StorageOptions,
    n_workers: int | None,
    data_dir: str | Path | None,
    timeout_seconds: float | None,
    accepts_code: bool,
) -> RunOptions:
    return RunOptions(
        storage=storage,
        n_workers=n_workers,
        data_dir=None if data_dir is None else Path(data_dir),
        timeout_seconds=timeout_seconds,
        accepts_code=accepts_code,
    )
