"""The stream of events: whole lines whatever happens, and nothing of it in the way of a training."""

import contextlib
import fcntl
import json
import logging
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fmnist_optuna
from fmnist_optuna.cli.watching import give_stdout
from fmnist_optuna.errors import UsageError
from fmnist_optuna.events import file as file_module
from fmnist_optuna.events import relay as relay_module
from fmnist_optuna.events.file import PAGE_BYTES, EventFile, recording
from fmnist_optuna.events.relay import Relay, event_file
from fmnist_optuna.events.schema import COMMON, EVENTS, MAX_TEXT
from fmnist_optuna.log import bound_fields, log_event

logger = logging.getLogger("fmnist_optuna.tested")
IDS: dict[str, object] = {"study": "small", "cell": "ab" * 32, "trial": 3, "worker": "host-1"}
PARAMS = {"hidden_size": 64, "kind": "a"}


def lines_of(path: Path) -> list[Any]:
    """The lines of a file, each of which must be JSON."""
    text = path.read_bytes()
    assert text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.ndjson"


def test_a_line_has_the_fields_of_its_event(path: Path) -> None:
    """Common ones first, unknown ones null; what is not in the table is left out."""
    with recording(path), bound_fields(**IDS):
        log_event(logger, logging.DEBUG, "cell_claimed", attempt=1, params=PARAMS, rung=0, seconds=0.25, host="h")
        log_event(logger, logging.WARNING, "cell_taken_over", holder="host-2", reason="lost", worker=None)
    claimed, taken = lines_of(path)
    assert list(claimed) == [*COMMON, "attempt", "params", "rung", "seconds"]
    assert claimed | {"time": ""} == {
        **IDS, "time": "", "event": "cell_claimed", "attempt": 1, "params": PARAMS, "rung": 0, "seconds": 0.25,
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", claimed["time"])
    assert (taken["worker"], taken["trial"], taken["error"]) == (None, 3, None)


def test_a_record_of_another_name_is_for_the_log_only(path: Path) -> None:
    """The stream has what its table has."""
    with recording(path):
        log_event(logger, logging.ERROR, "checkpoint_not_used", reason="it is old")
    assert not path.exists()


def test_every_event_is_logged_somewhere() -> None:
    """No line of the table is of the past."""
    package = Path(fmnist_optuna.__file__).parent
    sources = "".join(each.read_text() for each in package.rglob("*.py") if each.name != "schema.py")
    assert [event for event in EVENTS if f'"{event}"' not in sources] == []


def test_lines_of_several_writers_are_whole(path: Path) -> None:
    """None crosses a border of pages, at which a kill could cut it in two."""
    writers = [EventFile(path) for _ in range(3)]

    def write(writer: EventFile, name: str) -> None:
        for n in range(60):
            writer.write("worker_failed", {"worker": name, "error": "x" * (n * 7)})

    threads = [threading.Thread(target=write, args=(writers[n % 3], str(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len([line for line in lines_of(path) if line["worker"] == str(n)]) for n in range(4)] == [60] * 4
    begin = 0
    for line in path.read_bytes().splitlines(keepends=True):
        first = begin + len(line) - len(line.lstrip(b" "))
        begin += len(line)
        assert first // PAGE_BYTES == (begin - 1) // PAGE_BYTES
    assert begin > 10 * PAGE_BYTES


@pytest.mark.parametrize("left", [b'{"half', b"other\n", b"    "])
def test_a_line_begins_anew_after_a_half_one(path: Path, left: bytes) -> None:
    """Of a crash of the machine, or of another program."""
    path.write_bytes(left)
    EventFile(path).write("trial_swept", IDS)
    assert json.loads(path.read_bytes().splitlines()[-1])["trial"] == 3


def test_a_long_text_is_shortened(path: Path) -> None:
    """So that a line fits a page, also where each of its characters takes six."""
    EventFile(path).write("worker_failed", {**IDS, "error": "\u0416" * 3 * MAX_TEXT})
    assert lines_of(path)[0]["error"] == "\u0416" * MAX_TEXT
    assert path.stat().st_size < PAGE_BYTES


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_full_disk_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """No line, no exception."""
    file = EventFile(Path("/dev/full"))
    for _ in range(3):
        file.write("trial_swept", IDS)
    (warning,) = warnings_of(caplog)
    assert warning.startswith('events_not_written file=/dev/full error="No space left on device"')


@contextlib.contextmanager
def files_end_at(n_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_line_without_room_leaves_no_half(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was written of it is taken back; once there is room, lines come again."""
    file = EventFile(path)
    file.write("trial_swept", IDS)
    size = path.stat().st_size
    with files_end_at(size + 50):
        file.write("trial_swept", IDS)
    assert path.stat().st_size == size
    file.write("trial_swept", {**IDS, "trial": 4})
    assert [line["trial"] for line in lines_of(path)] == [3, 4]
    assert len(warnings_of(caplog)) == 1


def test_a_frozen_writer_holds_up_nobody(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that cannot have the lock is left out; after that there are lines again."""
    monkeypatch.setattr(file_module, "LOCK_SECONDS", 0.01)
    monkeypatch.setattr(file_module, "LOCK_AGAIN_SECONDS", 0.0)
    file = EventFile(path)
    with path.open("w") as frozen:
        fcntl.flock(frozen, fcntl.LOCK_EX)
        for _ in range(2):
            file.write("trial_swept", IDS)
    file.write("trial_swept", {**IDS, "trial": 4})
    assert [line["trial"] for line in lines_of(path)] == [4]
    assert len(warnings_of(caplog)) == 1


def test_a_file_is_appended_to_as_it_is(path: Path) -> None:
    """No thread, no copy; what was there stays."""
    path.write_text("before\n")
    with event_file(str(path)) as file:
        assert file == path
    assert path.read_text() == "before\n"
    with event_file(None) as file:
        assert file is None


def test_a_target_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A folder, and a pipe that nobody reads, which would be waited for without end."""
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path, tmp_path / "pipe", tmp_path / "missing" / "file"):
        with (
            pytest.raises(UsageError, match="--events must be a file that can be written") as raised,
            event_file(str(target)),
        ):
            pytest.fail("it was taken")
        assert str(target) in str(raised.value)


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_gets_whole_lines(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """By way of a file, without the blanks that this needs."""
    with event_file(name) as path:
        assert path is not None
        with recording(path):
            for n in range(100):
                log_event(logger, logging.INFO, "trial_swept", **{**IDS, "trial": n})
        os.write(1, b"of a model\n")
        assert b"\n " in path.read_bytes()
    os.write(1, b"{}\n")
    said = capfd.readouterr()
    assert said.err == "of a model\n"  # what others print has no place between events
    lines = said.out.splitlines()
    assert lines.pop() == "{}"
    assert [json.loads(line)["trial"] for line in lines] == list(range(100))
    assert all(line.startswith("{") for line in lines)
    assert not path.exists()


def test_a_descriptor_is_that_of_the_command(tmp_path: Path) -> None:
    """In a worker its name would be another file; what others write to it stays, and so does the order."""
    with (tmp_path / "given").open("wb", buffering=0) as given:
        number = given.fileno()
        os.set_inheritable(number, True)  # as what a shell opens
        given.write(b'"before"\n')
        link = tmp_path / "link"
        link.symlink_to(f"/proc/self/fd/{number}")
        for name in (f"/dev/fd/{number}", str(link)):
            with event_file(name) as path:
                code = "import sys, pathlib; from fmnist_optuna.events.file import EventFile; "
                code += "EventFile(pathlib.Path(sys.argv[1])).write('trial_swept', {})"
                subprocess.run([sys.executable, "-c", code, str(path)], stdout=subprocess.DEVNULL, check=True)
        given.write(b'"after"\n')
    before, *events, after = lines_of(tmp_path / "given")
    assert (before, [event["event"] for event in events], after) == ("before", ["trial_swept"] * 2, "after")


def test_a_descriptor_of_our_own_is_refused(tmp_path: Path) -> None:
    """By its number it may be a database; nor is one taken that nobody has opened, or that can only be read."""
    with (tmp_path / "own").open("wb") as own, (tmp_path / "own").open("rb") as read:
        os.set_inheritable(read.fileno(), True)
        for number in (own.fileno(), read.fileno(), 9999):
            with (
                pytest.raises(UsageError, match=f"but /dev/fd/{number}: Bad file descriptor"),
                event_file(f"/dev/fd/{number}"),
            ):
                pytest.fail("it was taken")


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/proc/self/fd/1"])
def test_stdout_is_for_one_thing_by_any_name(name: str) -> None:
    """An answer in JSON and events could not be told apart there."""
    with pytest.raises(UsageError, match=f"--events must name a file where --json is given, but got {name}: "):
        give_stdout(name, as_json=True)
    give_stdout("events.ndjson", as_json=True)


def test_a_file_that_was_rotated_is_made_anew(path: Path) -> None:
    """By every process, with the next line; nothing is lost, and no line goes to a file that somebody packs."""
    writers = [EventFile(path) for _ in range(2)]
    for name in ("first", "second"):
        for writer in writers:
            writer.write("trial_swept", {"worker": name})
        path.rename(path.with_name(name))
    path.write_bytes(b'{"half')  # a file that something else has made meanwhile
    for writer in writers:
        writer.write("trial_swept", {"worker": "third"})
    for name in ("first", "second"):
        assert [line["worker"] for line in lines_of(path.with_name(name))] == [name] * 2
    half, *whole = path.read_bytes().splitlines()
    assert (half, [json.loads(line)["worker"] for line in whole]) == (b'{"half', ["third"] * 2)
    path.unlink()
    writers[0].write("trial_swept", {"worker": "fourth"})
    assert [line["worker"] for line in lines_of(path)] == ["fourth"]


def test_no_line_is_lost_amid_rotations(path: Path) -> None:
    """Several writers go on while the file is renamed again and again: each line is whole, in one of the files."""
    n_writers, n_lines = 3, 300
    writers = [EventFile(path) for _ in range(n_writers)]

    def write(writer: EventFile) -> None:
        for n in range(n_lines):
            writer.write("trial_swept", {"trial": n})

    threads = [threading.Thread(target=write, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    n_rotations = 0
    while any(thread.is_alive() for thread in threads):
        with contextlib.suppress(FileNotFoundError):
            path.rename(path.with_name(f"{n_rotations}.ndjson"))
            n_rotations += 1
        time.sleep(0.002)
    lines = [line["trial"] for file in path.parent.glob("*.ndjson") for line in lines_of(file)]
    assert sorted(lines) == sorted([*range(n_lines)] * n_writers)
    assert n_rotations > 1


def test_a_slow_reader_holds_up_nobody(tmp_path: Path) -> None:
    """More than a pipe holds is written at once; the reader gets all of it later."""
    spool = tmp_path / "spool"
    spool.write_bytes(b"")
    reader, writer = os.pipe()
    relay = Relay(spool, writer, "pipe")
    line = b'"' + b"x" * 997 + b'"\n'
    with spool.open("ab") as file:
        file.write(line * 300)
    closing = threading.Thread(target=relay.close)
    closing.start()
    with os.fdopen(reader, "rb") as pipe:
        assert [pipe.readline() for _ in range(300)] == [line] * 300
    closing.join()
    os.close(writer)


@pytest.mark.parametrize("has_gone", [True, False])
def test_a_reader_that_left_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, has_gone: bool
) -> None:
    """It closed the pipe, or takes nothing any more at the end."""
    monkeypatch.setattr(relay_module, "LAST_SECONDS", 0.0)
    spool = tmp_path / "spool"
    spool.write_bytes(b'{"trial": 1}\n' * 20_000)
    reader, writer = os.pipe()
    if has_gone:
        os.close(reader)
    relay = Relay(spool, writer, "pipe")
    relay.close()
    (warning,) = warnings_of(caplog)
    why = '"Broken pipe"' if has_gone else '"nobody has read for 0 s"'
    assert warning.startswith(f"events_not_written file=pipe error={why}")
    for descriptor in (writer, *([] if has_gone else [reader])):
        os.close(descriptor)
