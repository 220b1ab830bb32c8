"""How a command is registered: it gets the common options, and its errors become one line and an exit status."""

import contextlib
import functools
import inspect
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from fmnist_optuna.cli.options import DURATION, PASSWORD_IN_URL, Common, parse_duration
from fmnist_optuna.cli.signals import EndedBySignal, end_in_order
from fmnist_optuna.cli.streams import OutputError, discard_answers, say
from fmnist_optuna.errors import FmnistOptunaError, StorageError, UsageError
from fmnist_optuna.log import LogFormat, configure_logging
from fmnist_optuna.settings import STORAGE
from fmnist_optuna.statuses import Status, status_of_signal
from fmnist_optuna.wording import reason_of

Command = Callable[..., None]

STORAGE_HELP = f"sqlite:///FILE or postgresql://...; else {STORAGE}, else sqlite:///studies/studies.db."


def make_group(help_text: str | None = None) -> typer.Typer:
    """The commands of one module; `main` adds it to the program.

    Args:
        help_text: Of a group that has a name of its own, such as `data`; None where its commands stand for themselves.
    """
    return typer.Typer(help=help_text, no_args_is_help=help_text is not None)


def command(group: typer.Typer, name: str, level: int = logging.WARNING) -> Callable[[Command], Command]:
    """Register a function as a command that takes the common options as its keyword `common`.

    Args:
        group: Of the module that the function is in.
        level: Of the records that the command shows unless an option says otherwise.

    Returns:
        A decorator, which returns the function as it was.
    """

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def run(**options: Any) -> None:  # as typer calls it, with what the signature below says
            common_options = {parameter.name: options.pop(parameter.name) for parameter in COMMON_PARAMETERS}
            with _errors_as_exit_status(is_debug=common_options["debug"]):
                function(common=_read_common(level, **common_options), **options)

        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "common"]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*own, *COMMON_PARAMETERS]]
        del run.__wrapped__
        vars(run)["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        group.command(name, help=_unwrap(inspect.getdoc(function) or ""))(run)
        return function

    return register


def _unwrap(text: str) -> str:
    """Each paragraph in one line: typer breaks it where the terminal ends, and else where the source does as well."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


@contextlib.contextmanager
def _errors_as_exit_status(is_debug: bool) -> Iterator[None]:
    """Let an error within this block become one line on stderr and the end of the process with its exit status.

    Args:
        is_debug: Whether a traceback comes before the line.
    """
    end_in_order()
    try:
        yield
    except (typer.Abort, typer.Exit):
        raise
    except EndedBySignal as ended:
        say(f"Interrupted by {signal.Signals(ended.signum).name}.", logging.ERROR)
        sys.exit(status_of_signal(ended.signum))
    except KeyboardInterrupt:
        say("Interrupted.", logging.ERROR)
        sys.exit(Status.INTERRUPTED)
    except Exception as error:
        sys.exit(_report(error, is_debug))


def _report(error: Exception, is_debug: bool) -> int:
    """Print an error in one line, or with its traceback, and return the exit status."""
    if isinstance(error, BrokenPipeError):  # `... | head` has read enough
        discard_answers()
        return 0
    if isinstance(error, OutputError):
        discard_answers()
    ours = error if isinstance(error, FmnistOptunaError) else _translate(error)
    say(f"Error: {ours}", logging.ERROR, exception=error if is_debug else None)
    return ours.exit_status


def _translate(error: Exception) -> FmnistOptunaError:
    """An error of ours for one of another library."""
    from fmnist_optuna.ledger.outages import is_outage, is_refusal  # loads SQLAlchemy

    if is_outage(error):
        return StorageError(f"The storage must answer, but {reason_of(error)}.")
    if is_refusal(error):
        return StorageError(f"The storage must let its role do this, but {reason_of(error)}; use one with more rights.")
    if isinstance(error, UnicodeEncodeError):
        return UsageError(f"Names must be text in the locale's encoding, but got {str(error.object)!a:.100}.")
    return FmnistOptunaError(f"Unexpected {type(error).__name__}: {error}; --debug shows where.")


def _option(help_text: str, *flags: str, metavar: str | None = None) -> object:
    return typer.Option(*flags, help=help_text, metavar=metavar, rich_help_panel="Common")


def _read_common(
    level: int,
    storage: Annotated[str | None, _option(STORAGE_HELP, "--storage")] = None,
    storage_patience: Annotated[
        str, _option("How long an outage is waited for.", "--storage-patience", metavar=DURATION)
    ] = "5m",
    log_format: Annotated[LogFormat, _option("Form of all that goes to stderr.", "--log-format")] = "text",
    debug: Annotated[bool, _option("Show tracebacks and all records.", "--debug")] = False,
    verbose: Annotated[bool, _option("Say more on stderr.", "--verbose", "-v")] = False,
    quiet: Annotated[bool, _option("Say errors only.", "--quiet", "-q")] = False,
) -> Common:
    """Set up logging as the common options ask for it, and keep the rest of them.

    Args:
        level: Of the records that the command shows unless an option says otherwise.

    Raises:
        UsageError: The patience is no duration.
    """
    given = logging.DEBUG if debug else logging.INFO if verbose else logging.ERROR if quiet else None
    configure_logging(log_format, level if given is None else given)
    if storage is not None and PASSWORD_IN_URL.search(storage):
        say(
            "Warning: a password in --storage can be read in the process list; "
            f"use {STORAGE} or {STORAGE}_FILE instead.",
            logging.WARNING,
        )
    return Common(
        storage_option=storage,
        patience_seconds=parse_duration(storage_patience, "--storage-patience"),
        log_format=log_format,
        log_level=logging.INFO if given is None else given,
    )


# What `_read_common` takes from the command line, as parameters of every command.
COMMON_PARAMETERS = [
    parameter
    for parameter in inspect.signature(_read_common, eval_str=True).parameters.values()
    if parameter.name != "level"
]
