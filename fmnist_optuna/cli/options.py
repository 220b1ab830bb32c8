"""Options and arguments that several commands have in common, and how their values are read."""

import logging
import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fmnist_optuna.errors import UsageError
from fmnist_optuna.log import LogFormat, silent_stderr
from fmnist_optuna.settings import ALLOW_MODULE, ARTIFACTS, DATA, STORAGE, STORAGE_FILE, WORKERS
from fmnist_optuna.user_modules.search_path import search_in
from fmnist_optuna.work.launchers.ray_options import RayOptions

if TYPE_CHECKING:
    from fmnist_optuna.ledger.options import StorageOptions
    from fmnist_optuna.ledger.storage import Storage
    from fmnist_optuna.running.options import RunOptions
    from fmnist_optuna.spec.study_spec import StudySpec
    from fmnist_optuna.study.session import Session

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
PASSWORD_IN_URL = re.compile(  # or another one of `ledger.urls.SECRETS`
    r"://[^@]*:[^@]+@|[?&]((ssl)?password|oauth_client_secret|scram_(client|server)_key)=", re.IGNORECASE
)
ON_RAY = "On a Ray cluster"
BYTES = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

StudyName = Annotated[str | None, typer.Argument(metavar="STUDY", help="Name; may be left out if only one is there.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Answer as JSON on stdout.")]
WideFlag = Annotated[bool, typer.Option("--wide", help="A column for each parameter, however wide the table.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", envvar=DATA, help="The only folder to look for Fashion-MNIST in; the first for other data."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", "-w", min=1, envvar=WORKERS, show_default="usable cores", help="Workers at once."),
]
Mirrors = Annotated[list[str] | None, typer.Option("--mirror", help="A further base URL to download from.")]
AcceptCode = Annotated[
    bool,
    typer.Option("--accept-code", help="Go on with model code that differs from the study's; the diff shows where."),
]
Artifacts = Annotated[
    str | None,
    typer.Option(
        "--artifacts",
        metavar="URL",
        help=f"s3://BUCKET/PREFIX for weights and checkpoints; else {ARTIFACTS}, else a folder beside the storage.",
    ),
]
DURATION, SIZE = "DURATION", "SIZE"  # what stands for `10m` and `4g` in the help
MemoryLimit = Annotated[
    str | None, typer.Option("--memory-limit", metavar=SIZE, help="Replace a worker that grows larger, e.g. 4g.")
]
Events = Annotated[
    str | None,
    typer.Option(
        "--events",
        metavar="FILE",
        help="Append what happens, one JSON object a line; - for stdout, and all else to stderr.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Start the workers on the nodes of this cluster: auto, HOST:PORT, ray://HOST:PORT; local starts one here.",
        rich_help_panel=ON_RAY,
    ),
]
Cpus = Annotated[
    float | None,
    typer.Option(
        "--cpus",
        help="CPUs of a node for each worker; by default one for each of its threads.",
        rich_help_panel=ON_RAY,
    ),
]
Gpus = Annotated[float | None, typer.Option("--gpus", help="GPUs likewise, e.g. 0.25.", rich_help_panel=ON_RAY)]
TrialArgument = Annotated[int, typer.Argument(metavar="TRIAL", min=0, help="Number of the trial.")]
Source = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="auto, fashion-mnist, synthetic, folder:DIR, npz:FILE, idx:DIR, keras:NAME or MODULE:FUNCTION; auto falls "
        "back to synthetic garments, loudly.",
    ),
]
Pruner = Annotated[
    Literal["ladder", "median", "none"] | None,
    typer.Option("--pruner", help="none trains every cell to its end, median never pauses one."),
]
IsShown = Annotated[bool, typer.Option("--dashboard", help="Show the studies in a browser meanwhile, at 127.0.0.1.")]
DashboardPort = Annotated[
    int, typer.Option("--dashboard-port", min=0, max=65535, help="Port of --dashboard; 0 takes any free one.")
]


@dataclass(frozen=True)
class Common:
    """The options that every command takes.

    Args:
        storage_option: What --storage says; None without it.
        patience_seconds: How long an outage of the storage is waited for.
        log_format: Of what goes to stderr, and of the workers' logs.
        log_level: Of the workers' logs.
    """

    storage_option: str | None
    patience_seconds: float
    log_format: LogFormat
    log_level: int

    @property
    def is_for_machines(self) -> bool:
        """Whether nobody looks at a terminal: errors only, or JSON lines."""
        return self.log_level >= logging.ERROR or self.log_format == "json"

    @cached_property
    def storage(self) -> "StorageOptions":
        """Where the studies are: what the option says, else the environment, else the default."""
        from fmnist_optuna.ledger.options import StorageOptions  # loads hashlib

        return StorageOptions.from_environment(self.storage_option, self.patience_seconds)


def make_run_options(
    common: Common, data_dir: Path | None, mirror: list[str] | None, accept_code: bool, artifacts: str | None = None
) -> "RunOptions":
    """The part of the options of a run that all commands which prepare or train a study have in common."""
    # These load hashlib.
    from fmnist_optuna.ledger.options import StorageOptions
    from fmnist_optuna.running.options import RunOptions

    return RunOptions(
        storage=StorageOptions.from_environment(common.storage_option, common.patience_seconds, artifacts),
        data_dir=data_dir,
        mirrors=tuple(mirror or ()),
        log_format=common.log_format,
        log_level=common.log_level,
        accepts_code=accept_code,
    )


def parse_ray(address: str | None, cpus: float | None, gpus: float | None, common: Common) -> RayOptions | None:
    """Which cluster runs the workers; None for this machine.

    Raises:
        UsageError: What a worker asks for is none, there is no cluster to ask, or Ray would show a password.
    """
    if address is None:
        if cpus is not None or gpus is not None:
            raise UsageError("--cpus and --gpus are of a Ray cluster, but no --ray ADDRESS is given.")
        return None
    if common.storage_option is not None and PASSWORD_IN_URL.search(common.storage_option):
        raise UsageError(
            f"--storage must have no password with --ray, as Ray's dashboard shows command lines; set {STORAGE} or "
            f"{STORAGE_FILE} instead."
        )
    return RayOptions(address, cpus, gpus or 0.0)


def start_server_early() -> None:
    """Let TensorFlow be imported in the server of all children while this process imports the rest of a command."""
    from fmnist_optuna.processes.children import warm_up_early  # loads multiprocessing

    warm_up_early()


def loading_tensorflow(common: Common) -> AbstractContextManager[None]:
    """For the block in which TensorFlow is loaded: its greeting is for people who want every record; it is no JSON."""
    is_wanted = common.log_level <= logging.DEBUG and common.log_format != "json"
    return nullcontext() if is_wanted or sys.stderr is None else silent_stderr()


def open_storage_of(common: Common) -> "Storage":
    """The storage that a reading command is about; it must be there."""
    from fmnist_optuna.ledger.connecting import open_storage  # loads SQLAlchemy

    return open_storage(common.storage)


def open_session(common: Common, study: str | None) -> "Session":
    """The study that a reading command is about."""
    # These load SQLAlchemy.
    from fmnist_optuna.study.session import Session
    from fmnist_optuna.study.studies import find_study

    storage = open_storage_of(common)
    return Session(storage, find_study(storage, study))


def read_study_file(path: Path) -> "StudySpec":
    """Read a study file; its folder is then searched for the modules that it names, before the current folder.

    Raises:
        SpecError: As `read_spec`.
    """
    from fmnist_optuna.spec.reading import read_spec  # loads pydantic and hashlib

    spec = read_spec(path)
    if path.is_file():  # not a pipe, which has no folder
        search_in(path.absolute().parent, Path.cwd())
    return spec


def parse_duration(text: str, option: str) -> float:
    """Seconds from `90`, `30s`, `10m`, `2h` or `1d`.

    Raises:
        UsageError: Anything else, or zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip().lower())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"{option} must be a duration such as 90s, 10m or 2h, but got {text!r}.")
    return float(match[1]) * SECONDS[match[2] or "s"]


def parse_limit(text: str | None, option: str) -> float | None:
    """The same of an option that may be left out.

    Raises:
        UsageError: As `parse_duration`.
    """
    return None if text is None else parse_duration(text, option)


def parse_size(text: str | None, option: str) -> int | None:
    """Bytes from `512m` or `4g`; None of an option that was left out.

    Raises:
        UsageError: Anything else, or zero.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgt])i?b?", text.strip().lower())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"{option} must be a size such as 512m or 4g, but got {text!r}.")
    return int(float(match[1]) * BYTES[match[2]])


def parse_modules(names: list[str] | None) -> frozenset[str] | None:
    """Modules by name; None where none is named, which allows all.

    Raises:
        UsageError: A name is none of a module; or the variable is there and names none, which is no leave for all.
    """
    if not names and ALLOW_MODULE in os.environ:
        raise UsageError(f"{ALLOW_MODULE} must name modules, but is empty; unset it to allow all that the study names.")
    for name in names or ():
        if not MODULE.fullmatch(name):
            raise UsageError(f"--allow-module must be a module such as mine or package.module, but got {name!r}.")
    return frozenset(names or ()) or None
