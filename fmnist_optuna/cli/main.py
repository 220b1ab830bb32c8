"""The `fmnist-optuna` command: puts the groups of commands together. Heavy imports wait inside the commands."""

import contextlib
import gc
import itertools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fmnist_optuna import __version__
from fmnist_optuna.cli import confirming, data, exporting, managing, reading, running, showing, spec, working
from fmnist_optuna.cli.streams import OutputError, discard_answers, flush_answers, prepare_streams, say
from fmnist_optuna.log import configure_logging
from fmnist_optuna.user_modules.search_path import search_in

# New objects before the garbage collector looks at them. What a command imports stays to its end, so looking at it 70
# times, as Python's 700 has it, is in vain: a fifth of the time of a short command (measured 2026-11).
COLLECT_AFTER = 50_000

app = typer.Typer(
    name="fmnist-optuna",
    help="Search a grid of hyperparameters for a Keras model with many workers, and name one honest winner.",
    epilog="Typical use: fmnist-optuna run --workers 4, then fmnist-optuna best.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"fmnist-optuna {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Search a grid of hyperparameters for a Keras model with many workers, and name one honest winner."""


for module in (running, working, reading, confirming, exporting, showing, managing):
    app.add_typer(module.group)
app.add_typer(data.group, name="data")
app.add_typer(spec.group, name="spec")


def main() -> None:
    """Entry point of the console script."""
    if sys.argv[1:2] == ["worker"]:  # which trains in this very process
        working.begin_with_hash_seed()
    gc.set_threshold(COLLECT_AFTER)
    prepare_streams()
    with contextlib.suppress(OSError):  # a current folder that was deleted
        search_in(Path.cwd())  # a user's `my_models:build` may be there
    configure_logging("text", logging.WARNING)  # until a command has read its options
    try:
        status = flush_answers(_run())
    except OutputError as error:
        discard_answers()
        say(f"Error: {error}", logging.ERROR)
        status = error.exit_status
    sys.exit(status)


def refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse an empty text where a value is to be: it is that of a variable that is unset, and would pass for no value.

    Raises:
        BadParameter: One is empty.
    """
    for before, argument in itertools.pairwise(["", *arguments]):
        option, equals, value = argument.partition("=")
        if not argument:
            where = before if before.startswith("-") else "an argument"
        elif option.startswith("--") and equals and not value:
            where = option
        else:
            continue
        raise typer.BadParameter(f"{where} must have a value, but got an empty one; look for a variable that is unset")


def _run() -> int:
    """Run the command; returns its exit status."""
    try:
        refuse_empty(sys.argv[1:])
        return int(app(standalone_mode=False) or 0)
    except SystemExit as error:
        return int(error.code or 0)
    except BrokenPipeError:  # while help was written
        return 0
    except typer.TyperException as error:  # a wrong option or argument; without text, it has shown the help already
        if text := error.format_message().rstrip("."):
            where = getattr(getattr(error, "ctx", None), "command_path", "fmnist-optuna")
            say(f"Error: {text}; see `{where} -h`.", logging.ERROR)
        return error.exit_code
    except typer.Abort:  # Ctrl-C or the end of input at a question
        say("Aborted.", logging.ERROR)
        return 1
