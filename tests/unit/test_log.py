"""Log records: an event with fields, as text and as JSON lines."""

import contextvars
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fmnist_optuna.log import (
    OPTUNA_TALKS,
    PERSON,
    LogFormat,
    bound_fields,
    configure_logging,
    listening,
    log_event,
    read_message,
)

logger = logging.getLogger("fmnist_optuna.tested")
PARAMS = {"hidden_size": 64, "dropout_rate": 0.5, "kind": "a b"}


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    names = (None, "fmnist_optuna", "tensorflow", PERSON, *OPTUNA_TALKS)
    loggers = [logging.getLogger(name) for name in names]
    before = [(each, each.level, list(each.handlers)) for each in loggers]
    yield
    logging.captureWarnings(False)
    for each, level, handlers in before:
        each.setLevel(level)
        each.handlers = handlers


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """The JSON lines on stderr; every line must be one."""
    return [json.loads(line, parse_constant=pytest.fail) for line in capsys.readouterr().err.splitlines()]


def test_a_json_record_has_event_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers stay numbers, a hash whole; what is not finite is null, as JSON has no word for it."""
    configure_logging("json", logging.INFO)
    log_event(logger, logging.INFO, "trial_began", trial=3, cell="ab" * 32, params=PARAMS, value=float("nan"))
    (line,) = lines_of(capsys)
    assert {name: line[name] for name in ("level", "logger", "event", "trial", "cell", "params", "value")} == {
        "level": "info", "logger": logger.name, "event": "trial_began", "trial": 3, "cell": "ab" * 32,
        "params": PARAMS, "value": None,
    }  # fmt: skip


def test_a_text_record_is_one_readable_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Time, level, event, fields; unknown ones are left out, texts with spaces or line breaks are quoted."""
    configure_logging("text", logging.INFO)
    log_event(logger, logging.WARNING, "trial_ended", trial=3, cell="ab" * 32, value=0.5, error=None, note="a\nb")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.split(maxsplit=2)[2] == 'WARNING trial_ended trial=3 cell=abababab value=0.5 note="a b"'


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_an_exception_stays_with_its_record(capsys: pytest.CaptureFixture[str], log_format: LogFormat) -> None:
    """In JSON the traceback is a field, so that a line is still a line."""
    configure_logging(log_format, logging.INFO)
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        log_event(logger, logging.ERROR, "trial_failed", error, trial=1, error="ValueError: two")
    if log_format == "text":
        assert capsys.readouterr().err.endswith("ValueError: two\nlines\n")
    else:
        (line,) = lines_of(capsys)
        assert line["error"] == "ValueError: two"
        assert line["exception"].endswith("ValueError: two\nlines")


def test_a_listener_hears_every_event() -> None:
    """Of whatever level, with the bound fields, as long as it listens."""
    heard: list[tuple[str, dict[str, object]]] = []
    configure_logging("json", logging.ERROR)
    with listening(lambda event, fields: heard.append((event, dict(fields)))), bound_fields(worker="w-1"):
        log_event(logger, logging.DEBUG, "epoch_ended", epoch=3)
        log_event(logger, logging.WARNING, "worker_died", worker="another")
    log_event(logger, logging.ERROR, "trial_failed")
    assert heard == [("epoch_ended", {"worker": "w-1", "epoch": 3}), ("worker_died", {"worker": "another"})]


def test_bound_fields_are_on_every_record(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of other libraries and of a thread that was started within too; a record's own field wins."""
    configure_logging("json", logging.INFO)
    with bound_fields(worker="w-1", study="small"):
        log_event(logger, logging.INFO, "one", worker="another")
        logging.getLogger("keras").warning("two %s", "words")
        in_context = contextvars.copy_context().run
        thread = threading.Thread(target=in_context, args=(log_event, logger, logging.INFO, "three"))
        thread.start()
        thread.join()
    log_event(logger, logging.INFO, "four")
    lines = lines_of(capsys)
    assert [(line.get("worker"), line.get("study")) for line in lines] == [
        ("another", "small"), ("w-1", "small"), ("w-1", "small"), (None, None)
    ]  # fmt: skip
    assert (lines[1]["message"], "event" in lines[1]) == ("two words", False)


def test_fields_are_attributes_of_the_record(caplog: pytest.LogCaptureFixture) -> None:
    """A program that uses the package finds them with a handler of its own."""
    with caplog.at_level(logging.INFO, logger="fmnist_optuna"), bound_fields(study="small"):
        log_event(logger, logging.INFO, "trial_began", trial=3)
    (record,) = caplog.records
    assert (vars(record)["event"], vars(record)["trial"], vars(record)["study"]) == ("trial_began", 3, "small")
    assert record.funcName == test_fields_are_attributes_of_the_record.__name__


def test_the_last_words_of_a_json_log_are_words() -> None:
    """A message quoted from a log is the same in both formats."""
    assert read_message('{"message": "worker_failed", "level": "error"}') == "worker_failed"
    assert [read_message(line) for line in ("plain", "[1]", "{")] == ["plain", "[1]", "{"]
