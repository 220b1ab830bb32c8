"""Standard input, output and error as every command can use them, however they were left to it.

Answers go to stdout: what its encoding lacks is shown by look-alikes, and an answer that it does not take is an error.
Remarks go to stderr: a command does not end because nobody can read them.
"""

import codecs
import io
import logging
import os
import sys

from fmnist_optuna.errors import FmnistOptunaError
from fmnist_optuna.log import PERSON
from fmnist_optuna.processes.output import Remarks, rewrap
from fmnist_optuna.wording import reason_of

person = logging.getLogger(PERSON)

NARROWEST = 20  # columns; fewer are no width that anybody reads, and 0 stands for unknown
WIDTHS = ("COLUMNS", "LINES", "TERMINAL_WIDTH")  # variables that rich and typer take for numbers
# What curves, bars and long texts are drawn with, by characters of the same width that every encoding has.
LOOK_ALIKES = dict(zip("▁▂▃▄▅▆▇█▏▎▍▌▋▊▉…", "_.,-~+*#:::||||.", strict=True))


class OutputError(FmnistOptunaError):
    """Standard output did not take the answer."""


class _Answers(io.TextIOWrapper):
    """Standard output, whose failure is an error of ours; `... | head` has read enough, which is none."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _refused(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _refused(error) from error


def _refused(error: OSError) -> OutputError:
    return OutputError(f"Standard output must take the answer, but {reason_of(error)}.")


def prepare_streams() -> None:
    """Open what was closed, and let neither an encoding nor a width in the environment end a command."""
    _occupy_descriptors()
    codecs.register_error(__name__, _show_otherwise)
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: PTH123, SIM115 - until the end
    sys.stdout = rewrap(sys.stdout, _Answers, __name__)
    sys.stderr = rewrap(sys.stderr, Remarks, __name__)
    for name in WIDTHS:
        text = os.environ.get(name, "")
        if text and not (text.isascii() and text.isdecimal() and int(text[:9]) >= NARROWEST):
            del os.environ[name]


def _occupy_descriptors() -> None:
    """Put the null device where a standard stream was closed: the next file opened would get its number, and output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, descriptor)  # which children inherit
            if null != descriptor:
                os.close(null)


def _show_otherwise(error: UnicodeError) -> tuple[str | bytes, int]:
    """What an encoding lacks, as look-alikes or as Python writes it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    shown = (LOOK_ALIKES.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking)
    return "".join(shown), error.end


def flush_answers(status: int) -> int:
    """Write what is left of the answer, once the command has ended.

    Returns:
        The exit status: that of the command.

    Raises:
        OutputError: Standard output does not take it.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # `... | head` has read enough
        discard_answers()
    except OutputError:
        discard_answers()
        raise
    return status


def discard_answers() -> None:
    """Let what was not written, and what follows, go nowhere, so that Python's own end has nothing to complain of."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def say(text: str, level: int = logging.INFO, exception: BaseException | None = None) -> None:
    """One message to the person, on stderr: as it is, or as a JSON line where --log-format asks for it.

    Args:
        level: A message below ERROR is left out with --quiet.
        exception: Its traceback comes before the message.
    """
    person.log(level, "%s", text, extra={"event": "message"}, exc_info=exception)
