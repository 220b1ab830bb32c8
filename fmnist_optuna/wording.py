"""How numbers, parameters, ends of processes and other libraries' errors are written for people, each in one place."""

import math
import re
import signal
from collections.abc import Iterable, Mapping

ABSENT = "-"  # stands for a number that is not there
# What is said of numbers where a study asks for the answers to mirror images too.
WITHOUT_FLIPS, WITH_FLIPS = "without mirror images", "answers averaged with those to mirror images"
LONGEST_PARAMS = 88  # characters of a cell's parameters in a line that has more to say, which then takes two of 80
# What Markdown takes for a mark, and HTML and formulas in it; an underscore within a word is none.
_MARKS = re.compile(r"[\\`*\[\]<>|~$&#]|(?<![A-Za-z0-9_])_+|_+(?![A-Za-z0-9_])")
LONGEST_REASON = 300  # characters of what another library says; a database begins with the name of its host


def format_percent(fraction: float | None, n_digits: int = 2) -> str:
    """A fraction as `91.23 %`; `-` for None and for NaN."""
    return ABSENT if fraction is None or math.isnan(fraction) else f"{100 * fraction:.{n_digits}f} %"


def format_whole_percent(fraction: float) -> str:
    """A fraction (0..1) as a whole number of percent for a narrow place: `93` of 92.5 %, `<1`, nothing for none."""
    if 0 < fraction < 0.01:
        return "<1"
    return str(math.floor(100 * fraction + 0.5 + 1e-9)) if fraction else ""  # Python's own rounding makes 92 of 92.5


def format_shape(lengths: Iterable[int | None]) -> str:
    """The shape of n images or answers, from that of one: `(n, 28, 28)`; None is any length."""
    return f"({', '.join(['n', *('any' if length is None else str(length) for length in lengths)])})"


def format_points(fraction: float, n_digits: int = 2) -> str:
    """A standard deviation, or another distance between fractions, in points of percent: `0.31`."""
    return f"{100 * fraction:.{n_digits}f}"


def format_interval(ends: Iterable[float]) -> str:
    """The two ends of an interval of fractions, in percent: `90.12 to 91.23`."""
    return " to ".join(format_points(end) for end in ends)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: `1 cell`, `1,024 cells`.

    Args:
        plural: Of the noun, unless it is the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def format_duration(seconds: float) -> str:
    """Seconds as `42 s`, `3 min 05 s` or `2 h 10 min`."""
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, rest = divmod(minutes, 60)
    if hours:
        return f"{hours} h {rest:02d} min"
    return f"{minutes} min {whole_seconds:02d} s" if minutes else f"{whole_seconds} s"


def format_bytes(n_bytes: int) -> str:
    """A number of bytes as `512 MiB` or `1.4 MiB`."""
    return f"{n_bytes / 2**20:.{0 if n_bytes >= 10 * 2**20 else 1}f} MiB"


def format_value(value: object) -> str:
    """A parameter's value: `0.001`, `128`, `relu`."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def format_params(params: Mapping[str, object]) -> str:
    """Parameters in one line: `hidden_size 128, dropout_rate 0.2`."""
    return ", ".join(f"{name} {format_value(value)}" for name, value in params.items())


def format_some_params(params: Mapping[str, object], length: int = LONGEST_PARAMS) -> str:
    """Parameters in one line of at most so many characters: `hidden_size 128, dropout_rate 0.2 and 10 more`.

    The first one is there in any case.
    """
    shown = format_params(params)
    n_left_out = 0
    while len(shown) > length and n_left_out < len(params) - 1:
        n_left_out += 1
        first = dict(list(params.items())[:-n_left_out])
        shown = f"{format_params(first)} and {n_left_out} more"
    return shown


def as_markdown(text: str) -> str:
    """A text of the user's for a place in Markdown, a cell of a table too, where it shall be shown as it is."""
    return _MARKS.sub(r"\\\g<0>", " ".join(text.split()))


def end_sentence(text: str) -> str:
    """A text with one full stop at its end, where what it ends with may have one of its own."""
    return text if text.endswith(".") else f"{text}."


def shorten(text: str, length: int) -> str:
    """A text of at most so many characters, the last three of them dots where it is longer."""
    return text if len(text) <= length else text[: length - 3] + "..."


def reason_of(error: BaseException) -> str:
    """Why something failed, as another library or the system says it, to stand at the end of a sentence of our own.

    Args:
        error: An OSError gives the system's words without number and path. Of a database error the first line is taken:
            the statement and the URL, which may hold a password, are left out.

    Returns:
        One line of at most 300 characters without a full stop; the error's type where it has no text.
    """
    inner = error  # becomes what the driver raised: SQLAlchemy keeps it in `orig`, Optuna as the cause
    while cause := getattr(inner, "orig", None) or (type(inner).__module__ == "optuna.exceptions" and inner.__cause__):
        inner = cause
    text = str(getattr(inner, "strerror", None) or inner).strip()
    if inner is not error or type(error).__module__.startswith("sqlalchemy."):
        text = text.partition("\n")[0]
    return shorten(" ".join(text.split()), LONGEST_REASON).rstrip(".") or type(inner).__name__


def describe_exit(exit_code: int | None) -> str:
    """How a process ended, in words: `was killed by signal 9 (SIGKILL), often for want of memory`.

    Args:
        exit_code: As multiprocessing has it: negative for a signal; None when it is not known.
    """
    if exit_code is None:
        return "ended unseen"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        name = f" ({signal.Signals(-exit_code).name})"
    except ValueError:  # a real-time signal
        name = ""
    return f"was killed by signal {-exit_code}{name}" + (
        ", often for want of memory" if exit_code == -signal.SIGKILL else ""
    )
