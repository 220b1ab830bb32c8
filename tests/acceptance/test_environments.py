"""What a host may be like: each row works, or says in one line why not, with its exit status and nothing half-written.

The rows that train share one run of one cell, which meets several oddities at once.
"""

import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from shell import COMMAND, SMALL, TIMEOUT_SECONDS, Answer, FinishedStudy, Shell, make_paced, two_at_a_time

pytestmark = pytest.mark.more

# Modules of Python, of our dependencies and of ours; `types` and `functools` would end Python itself in `python -m`.
SHADOWED = (
    *("random", "queue", "secrets", "logging", "typing", "tempfile", "socket", "selectors", "threading", "pickle"),
    *("keras", "numpy", "optuna", "rich", "typer", "sqlalchemy", "tensorflow", "fmnist_optuna"),
)
BREAKS = "raise RuntimeError('a file of the current folder stood in for ' + __name__)\n"


@dataclass(frozen=True)
class Row:
    """An environment and what must hold in it.

    Args:
        line: What a shell is told; `$F` is the command.
        code: Exit status.
        words: In the one line that says why not; or, where the status is 0, on stdout.
        variables: Set, or removed where None.
        files: Written before.
    """

    line: str
    code: int = 0
    words: str = ""
    variables: Mapping[str, str | None] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def storage(url: str, words: str, code: int = 2) -> Row:
    return Row(f"$F run --storage {shlex.quote(url)}", code, words)


ASCII: dict[str, str | None] = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
TABLE = {
    # Standard streams
    "stdout closed": Row("$F spec example >&-"),
    "everything closed": Row("$F spec example <&- >&- 2>&-"),
    "stdout full": Row("$F spec example > /dev/full", 1, "Standard output must take the answer"),
    "stdout a pipe that is gone": Row("$F spec example | true", 0),
    "ascii": Row("$F trials", words="######", variables=ASCII),
    "ascii, an error with other characters": Row("$F trials grün", 2, "locale's encoding", ASCII),
    # Width, colour, and Python's own variables
    "columns that are no number": Row("$F --help", words="Usage", variables={"COLUMNS": "²", "TERMINAL_WIDTH": "x"}),
    "warnings are errors": Row("$F trials", words="COMPLETE", variables={"PYTHONWARNINGS": "error"}),
    # Folders
    "no home": Row("$F spec example", words="[grid]", variables={"HOME": None, "XDG_CACHE_HOME": None}),
    "a current folder that was deleted": Row("mkdir x && cd x && rmdir ../x && $F --help", words="Usage"),
    "few files": Row("ulimit -n 64; $F trials", words="COMPLETE"),
    # Files in the current folder
    "shadows": Row("$F trials", words="COMPLETE", files={f"{name}.py": BREAKS.encode() for name in SHADOWED}),
    "shadows of python -m": Row(
        "$PYTHON -m fmnist_optuna spec example",
        words="[grid]",
        files={f"{name}.py": BREAKS.encode() for name in SHADOWED if name not in ("fmnist_optuna", "typing")},
    ),
    # Study files
    "UTF-16": Row("$F run x.toml", 2, "must be UTF-8, but is UTF-16", files={"x.toml": SMALL.encode("utf-16")}),
    # Storage
    "an asynchronous driver": storage("sqlite+aiosqlite:///x.db", "without another driver"),
    "a file URI": storage("sqlite:///file:x.db?uri=true", "without ? and parameters"),
    "a home": Row("$F trials --storage sqlite:///~/studies/studies.db", words="COMPLETE", variables={"HOME": "."}),
    # Addresses
    "no address": Row("$F dashboard --host 256.1.1.1", 2, "--host must be an address of this machine"),
    "a port in use, at the start of a run": Row("$F run --dashboard --dashboard-port $TAKEN", 2, "must be free"),
}
# Kin of the rows above.
MORE = {
    "stderr closed": Row("$F spec example 2>&-", words="[grid]"),
    "stdin closed": Row("$F spec example <&-", words="[grid]"),
    "stdout full, with help": Row("$F --help > /dev/full", 1, "Standard output must take the answer"),
    "stderr full": Row("$F spec example 2> /dev/full", words="[grid]"),
    "latin-1 help": Row("$F run --help", words="--workers", variables={"PYTHONIOENCODING": "latin-1"}),
    "no columns": Row("$F spec example", words="[grid]", variables={"COLUMNS": "0"}),
    "twenty columns": Row("$F spec example", words="[grid]", variables={"COLUMNS": "20"}),
    "a dumb terminal": Row("$F spec example", words="[grid]", variables={"TERM": "dumb", "NO_COLOR": "1"}),
    "optimized": Row("$F spec example", words="[grid]", variables={"PYTHONOPTIMIZE": "2", "PYTHONHASHSEED": "1"}),
    "safe path": Row("$F spec example", words="[grid]", variables={"PYTHONSAFEPATH": "1"}),
    "no number of workers": Row("$F run", 2, "FMNIST_OPTUNA_WORKERS", {"FMNIST_OPTUNA_WORKERS": "many"}),
    "a home that is no folder": Row("$F spec example", words="[grid]", variables={"HOME": "/dev/null"}),
    "shadows of all": Row(
        "$F --help", words="Usage", files={f"{m}.py": BREAKS.encode() for m in ("types", "functools")}
    ),
    "latin-1 study file": Row("$F run x.toml", 2, "byte 0xe4 in line 1", files={"x.toml": "# ä".encode("latin-1")}),
    "a folder as study file": Row("$F run .", 2, "must be a readable study file"),
    "an empty address": Row("$F dashboard --host ''", 2, "--host must be an address of this machine"),
}


def ask(row: Row, shell: Shell, taken_port: int) -> tuple[Answer, set[str]]:
    """The answer of a row in a folder with the finished smoke study, and the files that it made."""
    for name, content in row.files.items():
        (shell.folder / name).write_bytes(content)
    before = shell.files()
    environment = {**shell.environment, "F": str(COMMAND), "PYTHON": sys.executable, "TAKEN": str(taken_port)}
    environment |= {name: value for name, value in row.variables.items() if value is not None}
    for name, value in row.variables.items():
        if value is None:
            del environment[name]
        elif value == ".":
            environment[name] = str(shell.folder)
    done = subprocess.run(
        ["sh", "-c", row.line], cwd=shell.folder, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    return Answer(done.returncode, done.stdout, done.stderr), shell.files() - before


def ask_all(table: Mapping[str, Row], smoke: FinishedStudy, folder: Path) -> dict[str, tuple[Answer, set[str]]]:
    """The answers of all rows, each from a folder of its own, two at a time."""

    def call(name: str, port: int) -> tuple[Answer, set[str]]:
        shutil.copytree(smoke.shell.folder, folder / name)
        return ask(table[name], Shell(folder / name), port)

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        return two_at_a_time({name: partial(call, name, port) for name in table})


def check(row: Row, answer: Answer, made: set[str]) -> None:
    """Its exit status, its one line or its answer, no traceback, and no file that was not there."""
    assert answer.code == row.code, answer
    assert "Traceback" not in answer.stderr
    assert made == set()
    if row.code and row.words:
        (line,) = answer.errors
        assert row.words in line
    else:
        assert row.words in answer.stdout


@pytest.fixture(scope="module")
def answers(smoke: FinishedStudy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Answer, set[str]]]:
    """The answers of the table."""
    return ask_all(TABLE, smoke, tmp_path_factory.mktemp("environments"))


@pytest.mark.parametrize("name", list(TABLE))
def test_a_row_works_or_says_why_not(answers: dict[str, tuple[Answer, set[str]]], name: str) -> None:
    """As `check` has it."""
    check(TABLE[name], *answers[name])


@pytest.mark.slow
def test_more_rows_work_or_say_why_not(smoke: FinishedStudy, tmp_path: Path) -> None:
    """As `check` has it."""
    for name, answer in ask_all(MORE, smoke, tmp_path).items():
        check(MORE[name], *answer)


# One run that meets much at once

STUDY = """\
name = "odd"
[data]
source = "synthetic"
[model]
architecture = "mine:build"
[grid]
lr = [0.01]
[training]
max_epochs = 1
[pruner]
name = "none"
"""
MODEL = """\
import beside_mine
import keras


def build(lr):
    print("printed: \\u2192")
    image = keras.Input((28, 28), dtype="uint8")
    hidden = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.Dense(10, activation="softmax")(hidden))
    model.compile(keras.optimizers.Adam(lr), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
"""


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shell, Path, Answer]:
    """A run with a long TMPDIR that no locale reads, shadows, a study file elsewhere with a mark, ASCII, few files."""
    folder = tmp_path_factory.mktemp("odd")
    temporary = folder / ("ä" * 60)
    for path in (folder / "here", folder / "there", temporary):
        path.mkdir()
    shell = Shell(folder / "here", {**{k: v for k, v in ASCII.items() if v}, "TMPDIR": str(temporary)})
    for name in (*SHADOWED, "types", "functools"):
        shell.write(f"{name}.py", BREAKS)
    (folder / "there/study.toml").write_bytes(STUDY.replace("\n", "\r\n").encode("utf-8-sig"))
    (folder / "there/mine.py").write_text(MODEL)
    (folder / "there/beside_mine.py").write_text("")
    return shell, temporary, shell("run", "../there/study.toml", "--workers", "1")


def test_a_run_meets_much_at_once(odd: tuple[Shell, Path, Answer]) -> None:
    """It ends with its winner, and leaves nothing where temporary files go."""
    shell, temporary, answer = odd
    assert answer.code == 0, answer.stderr
    assert "Winner of odd" in answer.stdout
    assert shell("verify").code == 0
    assert not list(temporary.iterdir())


def test_a_module_that_is_not_found_is_told_with_where(odd: tuple[Shell, Path, Answer]) -> None:
    """A name of Python's own is told as taken; both in one line."""
    shell, _, _ = odd
    shell.write("random_study.toml", STUDY.replace("mine:", "random:").replace('"odd"', '"random"'))
    shell.write("missing.toml", STUDY.replace("mine:", "nowhere:").replace('"odd"', '"missing"'))
    taken, missing = two_at_a_time(
        {
            "taken": lambda: shell("spec", "check", "random_study.toml"),
            "missing": lambda: shell("spec", "check", "missing.toml"),
        }
    ).values()
    assert (taken.code, len(taken.errors)) == (2, 1)
    assert "random is Python's; rename" in taken.errors[0]
    assert (missing.code, len(missing.errors)) == (2, 1)
    assert "there is no module nowhere in " in missing.errors[0]  # an editable install's own folder may come first
    assert str(shell.folder) in missing.errors[0]


def left_by(signum: int, folder: Path, is_ignored: bool = False) -> tuple[int, list[Path], list[object]]:
    """Exit status of a run that met a signal in its first epoch, its temporary files, and the cells it left running."""
    shell = make_paced(folder, 2.0)
    (folder / "temporary").mkdir()
    shell = shell.with_variables(TMPDIR=str(folder / "temporary"))
    before = signal.signal(signum, signal.SIG_IGN) if is_ignored else None  # as nohup does
    try:
        with (shell.start_cold if is_ignored else shell.start)("run", "study.toml", "--workers", "1") as run:
            shell.wait_for("SELECT * FROM fmnist_epochs")
            run.signal_group(signum)
            if is_ignored:
                (folder / "pace").unlink()
            code = run.wait(40).code
    finally:
        if before is not None:
            signal.signal(signum, before)
    return (
        code,
        list((folder / "temporary").iterdir()),
        shell.query("SELECT * FROM fmnist_cells WHERE state = 'running'"),
    )


def test_a_closed_terminal_leaves_nothing(tmp_path: Path) -> None:
    """SIGHUP to the whole group: exit 129, the cell is given back, no temporary file is left."""
    assert left_by(signal.SIGHUP, tmp_path / "hup") == (129, [], [])


@pytest.mark.slow
def test_other_signals_leave_nothing_either(tmp_path: Path) -> None:
    r"""SIGQUIT (Ctrl-\) and SIGTERM; under nohup a closed terminal is none of a run's business."""
    results = two_at_a_time(
        {
            "quit": lambda: left_by(signal.SIGQUIT, tmp_path / "quit"),
            "term": lambda: left_by(signal.SIGTERM, tmp_path / "term"),
        }
    )
    assert results == {"quit": (131, [], []), "term": (143, [], [])}
    assert left_by(signal.SIGHUP, tmp_path / "nohup", is_ignored=True) == (0, [], [])
