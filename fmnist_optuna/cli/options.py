"""What commands share: common options, durations and sizes, and errors that end in one line and an exit status."""

import functools
import inspect
import logging
import re
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fmnist_optuna.cli.signals import EndedBySignal, end_in_order
from fmnist_optuna.cli.streams import OutputError, discard_answers
from fmnist_optuna.errors import FmnistOptunaError, StorageError, UsageError
from fmnist_optuna.log import PERSON, LogFormat, configure_logging, silent_stderr
from fmnist_optuna.settings import DATA, STORAGE, WORKERS, Settings, read_lease_seconds
from fmnist_optuna.user_modules.search_path import search_in

person = logging.getLogger(PERSON)

if TYPE_CHECKING:
    from fmnist_optuna.spec.study_spec import StudySpec

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
BYTES = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

StudyName = Annotated[str | None, typer.Argument(metavar="STUDY", help="Name; may be left out if only one is there.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Answer as JSON on stdout.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", envvar=DATA, help="The only folder to look for the four IDX files in."),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", "-w", min=1, envvar=WORKERS, show_default="usable cores", help="Workers at once."),
]
Mirrors = Annotated[list[str] | None, typer.Option("--mirror", help="A further base URL to download from.")]


@dataclass(frozen=True)
class Common:
    """The options that every command takes."""

    storage_option: str | None
    patience_seconds: float
    log_format: LogFormat
    log_level: int
    debug: bool

    @property
    def is_for_machines(self) -> bool:
        """Whether nobody looks at a terminal: errors only, or JSON lines."""
        return self.log_level >= logging.ERROR or self.log_format == "json"

    @property
    def storage(self) -> str:
        """URL of the storage: the option's, else the environment's, else the default."""
        return self.storage_option or Settings.from_environment().storage

    @property
    def lease_seconds(self) -> float:
        """The lease that the environment asks for, or the default."""
        return read_lease_seconds()


def loading_tensorflow(common: Common) -> AbstractContextManager[None]:
    """For the block in which TensorFlow is loaded: its greeting is neither an error nor JSON."""
    return silent_stderr() if common.is_for_machines and sys.stderr is not None else nullcontext()


def read_study_file(path: Path) -> "StudySpec":
    """Read a study file; its folder is then searched for the modules that it names, before the current folder.

    Raises:
        SpecError: As `read_spec`.
    """
    from fmnist_optuna.spec.study_spec import read_spec

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


def parse_size(text: str, option: str) -> int:
    """Bytes from `512m` or `4g`.

    Raises:
        UsageError: Anything else, or zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgt])i?b?", text.strip().lower())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"{option} must be a size such as 512m or 4g, but got {text!r}.")
    return int(float(match[1]) * BYTES[match[2]])


def command(
    app: typer.Typer, name: str, level: int = logging.WARNING
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command that takes the common options as its keyword `common`.

    Its errors of ours become one line on stderr and their exit status.

    Args:
        level: Of the records that it shows unless an option says otherwise.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(
            *,
            storage: str | None,
            storage_patience: str,
            log_format: LogFormat,
            debug: bool,
            verbose: bool,
            quiet: bool,
            **arguments: Any,
        ) -> None:
            end_in_order()
            given = logging.DEBUG if debug else logging.INFO if verbose else logging.ERROR if quiet else None
            configure_logging(log_format, level if given is None else given)
            try:
                worker_level = logging.INFO if given is None else given
                common = _read_common(storage, storage_patience, log_format, worker_level, debug)
                function(common=common, **arguments)
            except (typer.Abort, typer.Exit):
                raise
            except EndedBySignal as ended:
                say(f"Interrupted by {signal.Signals(ended.signum).name}.", logging.ERROR)
                sys.exit(128 + ended.signum)
            except KeyboardInterrupt:
                say("Interrupted.", logging.ERROR)
                sys.exit(128 + signal.SIGINT)
            except Exception as error:
                sys.exit(_report(error, debug))

        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "common"]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own + COMMON_PARAMETERS]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        del run.__wrapped__
        app.command(name)(run)
        return function

    return register


def _option(help_text: str, *flags: str) -> Any:
    return typer.Option(*flags, help=help_text, rich_help_panel="Common")


STORAGE_HELP = f"sqlite:///FILE or postgresql://...; else {STORAGE}, else sqlite:///studies/studies.db."


def _common_options(
    storage: Annotated[str | None, _option(STORAGE_HELP, "--storage")] = None,
    storage_patience: Annotated[str, _option("Longest outage that is waited for.", "--storage-patience")] = "5m",
    log_format: Annotated[LogFormat, _option("Form of all that goes to stderr.", "--log-format")] = "text",
    debug: Annotated[bool, _option("Show tracebacks and all records.", "--debug")] = False,
    verbose: Annotated[bool, _option("Say more on stderr.", "--verbose", "-v")] = False,
    quiet: Annotated[bool, _option("Say errors only.", "--quiet", "-q")] = False,
) -> None: ...


COMMON_PARAMETERS = list(inspect.signature(_common_options, eval_str=True).parameters.values())


def _read_common(storage: str | None, patience: str, log_format: LogFormat, log_level: int, debug: bool) -> Common:
    if storage is not None and re.search(r"://[^@]*:[^@]+@|[?&](ssl)?password=", storage):
        say(
            "Warning: a password in --storage can be read in the process list; "
            f"use {STORAGE} or {STORAGE}_FILE instead.",
            logging.WARNING,
        )
    return Common(
        storage_option=storage,
        patience_seconds=parse_duration(patience, "--storage-patience"),
        log_format=log_format,
        log_level=log_level,
        debug=debug,
    )


def _report(error: Exception, debug: bool) -> int:
    """Print an error in one line, or with its traceback, and return the exit status."""
    if isinstance(error, BrokenPipeError):  # `... | head` has read enough
        discard_answers()
        return 0
    if isinstance(error, OutputError):
        discard_answers()
    ours = error if isinstance(error, FmnistOptunaError) else _translate(error)
    say(f"Error: {ours}", logging.ERROR, exception=error if debug else None)
    return ours.exit_status


def _translate(error: Exception) -> FmnistOptunaError:
    from fmnist_optuna.ledger.outages import is_outage
    from fmnist_optuna.ledger.storage import first_line

    if is_outage(error):
        return StorageError(f"The storage must answer, but {first_line(error)}.")
    if isinstance(error, UnicodeEncodeError):
        return UsageError(f"Names must be text in the locale's encoding, but got {str(error.object)!a:.100}.")
    return FmnistOptunaError(f"Unexpected {type(error).__name__}: {error}; --debug shows where.")


def say(text: str, level: int = logging.INFO, exception: BaseException | None = None) -> None:
    """One message to the person, on stderr: as it is, or as a JSON line where --log-format asks for it.

    Args:
        level: What is below ERROR goes unsaid with --quiet.
        exception: Whose traceback comes first.
    """
    person.log(level, "%s", text, extra={"event": "message"}, exc_info=exception)
