"""Errors and ends of processes in one line each; for errors of Keras see tests/integration/test_described_errors.py."""

import signal
from collections.abc import Callable

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError, StatementError

from fmnist_optuna.described_errors import describe_error, find_last_words
from fmnist_optuna.errors import SpecError
from fmnist_optuna.user_modules.functions import as_spec_error
from fmnist_optuna.wording import as_markdown, describe_exit, end_sentence, format_whole_percent, reason_of

HERE = "test_wording.py"


def caught(function: Callable[[], object]) -> BaseException:
    """What a function raises."""
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def raise_from() -> None:
    try:
        raise KeyError("units")
    except KeyError as error:
        raise RuntimeError("cannot build") from error


def raise_while_handling() -> None:
    try:
        raise KeyError("units")
    except KeyError:
        raise RuntimeError("cannot build")  # noqa: B904


def raise_group() -> None:
    raise ExceptionGroup("many", [ValueError("first"), KeyError("second")])


def raise_ours() -> None:
    try:
        raise_from()
    except RuntimeError as error:
        raise SpecError(f"the function must return a model, but m:build raised {describe_error(error)}.") from error


def raise_mute() -> None:
    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise ValueError

    raise Mute


def recurse() -> None:
    recurse()


ERRORS = {
    "lines": (ValueError("one\n  two"), "ValueError: one two"),
    "empty": (ValueError(), "ValueError"),
    "long": (ValueError("x" * 600), "ValueError: " + "x" * 485 + "..."),
    "characters": (ValueError("\x1b[1mbold\x1b[0m \0\ud800\t<f at 0x7f0123456789>"), "ValueError: bold <f>"),
    "temporary": (OSError("no /tmp/tmpab12cd_9/x.npy"), "OSError: no /tmp/tmp*/x.npy"),
    "key": (KeyError("units"), "KeyError: 'units'"),
    "memory": (MemoryError(), "MemoryError"),
    "exit": (SystemExit(2), "SystemExit: sys.exit(2) was called"),
    "bare exit": (SystemExit(), "SystemExit: sys.exit() was called"),
    "interrupt": (KeyboardInterrupt(), "KeyboardInterrupt"),
    "syntax": (SyntaxError("wrong", ("/home/me/m.py", 3, 1, "x = = 1")), "SyntaxError: wrong (m.py, line 3)"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_exception_is_one_clean_line(case: str) -> None:
    """Type and text, at most 500 characters, nothing that a database or a terminal refuses or that passes."""
    error, text = ERRORS[case]
    assert describe_error(error) == text


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (raise_from, "RuntimeError: cannot build, because of KeyError: 'units'"),
        (raise_while_handling, "RuntimeError: cannot build"),
        (raise_group, "ExceptionGroup: many (2 sub-exceptions), because of ValueError: first"),
        (raise_mute, "Mute"),
        (recurse, "RecursionError: maximum recursion depth exceeded"),
    ],
)
def test_a_cause_and_its_place_are_named(function: Callable[[], None], text: str) -> None:
    """The innermost error is always in the line, and the line of the user's code where it arose."""
    described = describe_error(caught(function))
    assert described.startswith(text)
    assert f"({HERE}, line " in described


def test_our_own_error_names_its_cause_once() -> None:
    """It repeats what it comes from already."""
    described = describe_error(caught(raise_ours))
    assert described.count("cannot build") == described.count(HERE) == 1


def wrapped(error: Exception) -> StorageInternalError:
    """As Optuna's storage raises it."""
    outer = StorageInternalError("An exception is raised during the commit.")
    outer.__cause__ = error
    return outer


REFUSED = OperationalError("SELECT secret", {"token": "t"}, Exception("connection failed: refused.\nIs it running?"))
REASONS = [
    (PermissionError(13, "Permission denied", "/a/path"), "Permission denied"),
    (OSError("Unable to open file\n (file signature not found)"), "Unable to open file (file signature not found)"),
    (ValueError(" of two\n lines. "), "of two lines"),
    (KeyError(), "KeyError"),
    (REFUSED, "connection failed: refused"),
    (wrapped(REFUSED), "connection failed: refused"),
    (OperationalError("SELECT", {}, TimeoutError()), "TimeoutError"),
    (wrapped(OSError(28, "No space left on device")), "No space left on device"),
    (StatementError("a value is missing", "SELECT secret", {}, None), "a value is missing"),
    (ValueError("x" * 1000), "x" * 297),
]


@pytest.mark.parametrize(("error", "reason"), REASONS, ids=range(len(REASONS)))
def test_a_reason_is_what_the_innermost_library_says(error: Exception, reason: str) -> None:
    """One line that ends a sentence of ours: no path, no statement, no wrapping, no full stop."""
    assert reason_of(error) == reason


def test_the_end_of_a_process_is_said_in_words() -> None:
    """Signals by name; SIGKILL with what often sends it."""
    assert describe_exit(3) == "ended with exit code 3"
    assert describe_exit(-signal.SIGSEGV) == "was killed by signal 11 (SIGSEGV)"
    assert describe_exit(-signal.SIGKILL) == "was killed by signal 9 (SIGKILL), often for want of memory"
    assert describe_exit(-signal.SIGRTMIN - 5).startswith("was killed by signal")
    assert describe_exit(None) == "ended unseen"


def test_last_words_are_the_last_lines_that_say_something() -> None:
    """Frames of a traceback and TensorFlow's greetings are left out."""
    output = 'W0000 00:00:1 cudart\nTraceback (most recent call last):\n  File "m.py", line 1\n    f()\nKeyError: 1\n\n'
    assert find_last_words(f"hello\n{output}") == "hello | KeyError: 1"
    assert find_last_words('{"message": "worker_failed", "level": "error"}\n') == "worker_failed"
    assert find_last_words("") == ""


def test_last_words_of_a_crash_name_the_users_line() -> None:
    """faulthandler's first line, and the innermost line of the user's own code."""
    output = (
        "hello\nFatal Python error: Segmentation fault\n\nCurrent thread 0x00007f (most recent call first):\n"
        '  File "/usr/lib/python3/site-packages/numpy/core.py", line 7 in add\n'
        '  File "/home/me/m.py", line 5 in build\n'
        "\nExtension modules: numpy\n"
    )
    assert find_last_words(output) == "Fatal Python error: Segmentation fault (m.py, line 5)"


def test_what_a_library_says_keeps_its_own_full_stop() -> None:
    """Whether Keras ends its sentences or not, ours has one stop; dots that stand for more text stay."""
    with pytest.raises(SpecError) as error, as_spec_error("m:net must return a model, but raised"):
        raise ValueError("Received filters=0.")
    assert "Received filters=0." in str(error.value)
    assert str(error.value).endswith(".")
    assert ".." not in str(error.value)
    assert [end_sentence(text) for text in ("a", "a.", "a...")] == ["a.", "a.", "a..."]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hidden_size 1e-05, relu", "hidden_size 1e-05, relu"),
        ("a|b `c`", r"a\|b \`c\`"),
        ("<img src=x>", r"\<img src=x\>"),
        ("![p](x) *b* ~~s~~ $y$", r"!\[p\](x) \*b\* \~\~s\~\~ \$y\$"),
        ("__init__ a_b", r"\__init\__ a_b"),
        ("two\nlines", "two lines"),
    ],
)
def test_a_text_is_no_markdown(text: str, shown: str) -> None:
    """Neither a mark, nor HTML, nor the end of a table's cell; names of parameters stay as they are."""
    assert as_markdown(text) == shown


def test_a_half_percent_is_rounded_up() -> None:
    """As the tables beside have it: 92.50 % is no 92; what is there at all is no 0."""
    exact = {0.925: "93", 0.285: "29", 0.9249: "92", 0.005: "<1", 0.0: "", 0.01: "1", 1.0: "100", 925 / 1000: "93"}
    assert {share: format_whole_percent(share) for share in exact} == exact
