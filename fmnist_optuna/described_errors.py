"""What went wrong, in one line for people: an exception, and the last words of a process that died.

An error that passes through Keras and TensorFlow is wrapped: in the list of frames that autograph adds, in Keras' list
of a layer's arguments, in the node of a graph. `describe_error` takes the wrapping off and says where in the user's own
code the error arose. What differs from one attempt to the next (addresses, temporary files, numbers of nodes) is left
out, as the same text twice fails a cell.
"""

import re
import sys
import traceback
from pathlib import Path

from fmnist_optuna.errors import FmnistOptunaError
from fmnist_optuna.log import read_message
from fmnist_optuna.origins import INSTALLED_FOLDERS, PACKAGE, is_users
from fmnist_optuna.wording import shorten

LONGEST = 500  # characters of a described error
LONGEST_OUTER = 200  # of an error that has another as its cause, which is to be seen as well
N_LAST_WORDS = 3  # lines
DEEPEST = 5  # causes of causes, and wrappings in wrappings, that are followed
ENGINES = ("tensorflow", "keras", "numpy", "optuna", "absl", "h5py", "scipy")  # never what a user means by his own code

Place = tuple[str, int]  # file and line

_FRAME = re.compile(r'^\s*File "(?P<file>[^"\n]+)", line (?P<line>\d+)', re.MULTILINE)
_OF_AUTOGRAPH = "in user code:"
_OF_KERAS = re.compile(
    r"Exception encountered when calling [^\n]*\n\s*(?P<text>.*?)(?:\n\s*Arguments received by .*)?$", re.DOTALL
)
_OF_INFERENCE = re.compile(r"^Could not automatically infer the output shape.*Error encountered:\s*", re.DOTALL)
_OF_GRAPH = "Graph execution error:"
_ROOT_ERRORS = re.compile(
    r"\d+ root error\(s\) found\.\s*\(0\)\s*(?:[A-Z_]+:)?\s*(?P<text>.*?)(?:\n\s*\(1\).*)?$", re.DOTALL
)
_TYPE_FIRST = re.compile(r"(?P<type>[\w.]+)(?:: (?P<text>.*))?$", re.DOTALL)
# Lines of a dying process that say nothing: the frames of a traceback, and TensorFlow's greetings.
_NO_WORDS = re.compile(r"\s|Traceback \(most recent call last\)|WARNING: All log messages before absl|[IW]\d{4,}[ :]")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_PASSING = (  # what is another in each process or attempt
    (re.compile(r"'\{\{node [^}]*\}\} = (\w+)\[.*?\]\(.*?\)'", re.DOTALL), r"\1"),
    (re.compile(r"\[\[\{\{node .*?\}\}(?:\[.*?\])?\]\]", re.DOTALL), ""),
    (re.compile(r"\{\{(?:function_)?node [^}]*\}\}"), ""),
    (re.compile(r"\[Op:[^\]]*\](?: name:\s*\S*)?"), ""),
    (re.compile(r"\[(\w+) \([^()\s]*:\d+\) = \]"), r"[\1 =]"),
    (re.compile(r"(?: at)? 0x[0-9a-fA-F]{6,}"), ""),
    (re.compile(r"(__autograph_generated_file|\btmp|fmnist-optuna-)[a-z0-9_]{8}(?![A-Za-z0-9])"), r"\1*"),
)


def describe_failure(error: BaseException) -> str:
    """What broke a command or a worker: an error of ours in its own words, any other as `describe_error` has it."""
    return str(error) if isinstance(error, FmnistOptunaError) else describe_error(error)


def describe_error(error: BaseException) -> str:
    """An exception in one line: type and text of the innermost error, and the file and line of the user's code.

    Args:
        error: As it was caught, with its traceback and its causes.

    Returns:
        At most 500 characters that any database and any terminal take, the same for the same error in each attempt.
    """
    text, place = _describe(error, DEEPEST)
    where = _where(place)
    return shorten(text, LONGEST - len(where)) + where


def find_last_words(output: str) -> str:
    """What a process that died wrote at last, in one line: its crash, or its last lines; "" when nothing is left.

    Args:
        output: Of the process, its log records included, in either format.
    """
    fatal = output.rfind("Fatal Python error: ")
    if fatal >= 0:
        lines = output[fatal:].splitlines()
        place = next((place for place in _frames(output[fatal:]) if _is_users_code(place[0])), None)
        return shorten(_plain(lines[0]), LONGEST) + _where(place)
    lines = [read_message(line) for line in output.splitlines() if line.strip() and not _NO_WORDS.match(line)]
    return shorten(" | ".join(_plain(_COLOURS.sub("", line)) for line in lines[-N_LAST_WORDS:]), LONGEST)


def _describe(error: BaseException, depth: int) -> tuple[str, Place | None]:
    """An error and what caused it, with the innermost place in the user's code."""
    kind, text, place = _unwrap(error)
    described = f"{kind}: {text}" if text else kind
    cause = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
    if cause is None or depth == 0:
        return described, place
    inner, inner_place = _describe(cause, depth - 1)
    if inner in described and len(described) <= LONGEST:  # as our own errors repeat what they come from, and where
        return described, None if _where(inner_place) in described else inner_place
    if inner in described:
        return inner, inner_place
    return f"{shorten(described, LONGEST_OUTER)}, because of {inner}", inner_place or place


def _unwrap(error: BaseException) -> tuple[str, str, Place | None]:
    """Type and text of an error under the wrappings of Keras and TensorFlow, and its place in the user's code."""
    if isinstance(error, SystemExit):
        return "SystemExit", f"sys.exit({'' if error.code is None else repr(error.code)}) was called", _raised_at(error)
    if isinstance(error, SyntaxError):
        place = (error.filename, error.lineno or 0) if error.filename else None
        return type(error).__name__, _plain(str(error.msg)), place
    kind, text, frames = type(error).__name__, _text_of(error), []
    for _ in range(DEEPEST):
        before = text
        if text.startswith(_OF_AUTOGRAPH):
            frames += _frames(text)
            kind, text = _after_frames(text, kind)
        elif text.startswith(_OF_GRAPH):
            frames += _frames(text)
            kind, text = _at_run_time(text, kind)
        elif found := _OF_KERAS.match(text) or _ROOT_ERRORS.match(text):
            text = found["text"]
        text = _OF_INFERENCE.sub("", text)
        if text == before:
            break
    return kind, _plain(text), _innermost(frames) or _raised_at(error)


def _text_of(error: BaseException) -> str:
    try:
        is_wrapped = isinstance(error, KeyError) and len(error.args) == 1 and "\n" in str(error.args[0])
        # A KeyError shows its text as Python would write it.
        return _COLOURS.sub("", str(error.args[0] if is_wrapped else error)).strip()
    except Exception:  # the user's own class
        return ""


def _after_frames(text: str, kind: str) -> tuple[str, str]:
    """Type and text of what autograph reports: indented by four, after the frames and their source lines."""
    lines = [line.removeprefix("    ") for line in text.splitlines()[1:]]
    for number, line in enumerate(lines):
        if line.strip() and not line.startswith((" ", 'File "')):
            return _split_type("\n".join(lines[number:]).strip(), kind)
    return kind, text.removeprefix(_OF_AUTOGRAPH)


def _at_run_time(text: str, kind: str) -> tuple[str, str]:
    """Type and text of what a graph reports when it runs, after the frames of the node that failed."""
    lines = text.splitlines()[1:]
    for number, line in enumerate(lines):
        if line.strip() and not line.startswith("Detected at node ") and not _FRAME.match(line):
            message = "\n".join(lines[number:])
            before, is_python, _ = message.partition("\nTraceback (most recent call last):")
            return _split_type(before.strip(), kind) if is_python else (kind, message.strip())
    return kind, ""


def _split_type(text: str, kind: str) -> tuple[str, str]:
    found = _TYPE_FIRST.match(text)
    return (kind, text) if found is None else (found["type"].rpartition(".")[2], (found["text"] or "").strip())


def _plain(text: str) -> str:
    """One line without control characters, lone surrogates and what passes."""
    for pattern, replacement in _PASSING:
        text = pattern.sub(replacement, text)
    text = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return text.replace(" .", ".").replace(" ,", ",")


def _frames(text: str) -> list[Place]:
    return [(found["file"], int(found["line"])) for found in _FRAME.finditer(text)]


def _raised_at(error: BaseException) -> Place | None:
    stack = traceback.walk_tb(error.__traceback__)
    return _innermost([(frame.f_code.co_filename, line) for frame, line in stack])


def _innermost(frames: list[Place]) -> Place | None:
    """The last frame of the user's own code that ours called; without one, the last of a package that he installed."""
    first = next((index for index, (file, _) in enumerate(frames) if Path(file).is_relative_to(PACKAGE)), 0)
    own = [place for place in frames[first:] if _is_users_code(place[0])]
    installed = [place for place in frames[first:] if _is_installed(place[0])]
    return own[-1] if own else installed[-1] if installed else None


def _is_users_code(file: str) -> bool:
    """Whether a frame's file is the user's, rather than one that Python or autograph made up."""
    path = Path(file)
    return not file.startswith("<") and not path.name.startswith("__autograph_generated_file") and is_users(path)


def _is_installed(file: str) -> bool:
    """Whether a source file belongs to an installed package other than ours and those that train."""
    parts = Path(file).resolve().parts
    packages = [parts[index + 1] for index, part in enumerate(parts[:-1]) if part in INSTALLED_FOLDERS]
    return bool(packages) and packages[-1] not in (PACKAGE.name, *ENGINES)


def _where(place: Place | None) -> str:
    return "" if place is None else f" ({_short(place[0])}, line {place[1]})"


def _short(file: str) -> str:
    """A source file as seen from where Python found it, which is the same on each machine."""
    path = Path(file).resolve()
    roots = [Path(entry or ".").resolve() for entry in sys.path]
    found = [path.relative_to(root) for root in roots if path.is_relative_to(root) and root != Path(root.anchor)]
    return str(min(found, key=lambda relative: len(relative.parts))) if found else path.name
