"""Log records on stderr: an event and its fields, one line each, as text for people or as JSON for machines.

Standard logging throughout: the fields are attributes of the record, so that handlers of other programs see them too.
"""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal

from fmnist_optuna.json_value import to_json

LogFormat = Literal["text", "json"]

PERSON = "fmnist_optuna.cli"  # the logger whose messages are meant for a person: in text they stand alone in their line
# Loggers that tell of every study and trial. Optuna sets the level of its root logger when it is imported, which may be
# later, and leaves theirs alone.
OPTUNA_TALKS = ("optuna.storages", "optuna.study")
N_CELL_DIGITS = 8  # of a cell's 64, in text
_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

Listener = Callable[[str, Mapping[str, object]], None]  # is told an event's name and all of its fields

_listeners: list[Listener] = []
_bound: ContextVar[Mapping[str, object]] = ContextVar("fmnist_optuna_log_fields", default=MappingProxyType({}))


def log_event(
    logger: logging.Logger, level: int, event: str, exception: BaseException | None = None, /, **fields: object
) -> None:
    """Log what happened: an event's name and its fields, and those that `bound_fields` has set; tell the listeners.

    Args:
        event: In one word, such as "trial_began".
        exception: Whose traceback goes with the record.
        fields: JSON values; `trial`, `cell`, `worker` and `study` always by these names.
    """
    is_enabled = logger.isEnabledFor(level)
    if not is_enabled and not _listeners:
        return
    known = {**_bound.get(), **fields}
    for listener in tuple(_listeners):
        listener(event, known)
    if is_enabled:
        extra = {**known, "event": event}
        logger.log(level, "%s", _describe(event, fields), extra=extra, exc_info=exception, stacklevel=2)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within this block, tell a function of every event of this process, of whatever level and from whatever thread.

    Args:
        listener: Must be quick, and must not raise: who logs waits for it.
    """
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextlib.contextmanager
def bound_fields(**fields: object) -> Iterator[None]:
    """Within this block, every record of this thread carries these fields too."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def _describe(event: str, fields: Mapping[str, object]) -> str:
    """`trial_began trial=3 cell=ab12cd34`: for people, so a long hash is shortened and what is not known left out."""
    return " ".join([event, *(f"{name}={_show(name, value)}" for name, value in fields.items() if value is not None)])


def _show(name: str, value: object) -> str:
    if name == "cell":
        return str(value)[:N_CELL_DIGITS]
    if isinstance(value, Mapping):
        return json.dumps(to_json(value), ensure_ascii=False)
    if isinstance(value, float):
        return f"{value:g}"
    text = " ".join(str(value).split())
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


def read_message(line: str) -> str:
    """What a line of a log says: the message of a JSON record, or the line itself."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    return str(record.get("message", line)) if isinstance(record, dict) else line


class _JsonFormatter(logging.Formatter):
    """One object a line. Records of other libraries have a message only, beside what `bound_fields` has set."""

    def format(self, record: logging.LogRecord) -> str:
        is_event = hasattr(record, "event")
        own = {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            **({"event": own.pop("event"), **own} if is_event else _bound.get()),
            "message": record.getMessage().strip(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(to_json(line))


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        if record.name != PERSON:
            return super().format(record)
        traceback = [] if record.exc_info is None else [self.formatException(record.exc_info)]
        return "\n".join([*traceback, record.getMessage()])


class _CurrentStderr:
    """Whatever sys.stderr is at the time: a live view puts itself in its place and prints around it."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Drop what is written to the descriptor: the C++ side of TensorFlow greets there when it is loaded."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def configure_logging(log_format: LogFormat, level: int) -> None:
    """Send our records of `level` and above to stderr, others' from WARNING, what is said to a person from INFO.

    A `level` of ERROR holds for all three.

    For processes that are ours alone: commands and workers. A program that uses the package has its own say.
    """
    handler = logging.StreamHandler(_CurrentStderr())
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
    logging.getLogger("fmnist_optuna").setLevel(level)
    logging.getLogger(PERSON).setLevel(level if level >= logging.ERROR else logging.INFO)
    for name in OPTUNA_TALKS:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Each trial traces a graph of its own, which TensorFlow takes for a mistake and warns of.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
