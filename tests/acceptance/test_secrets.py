"""The password of a database is shown nowhere: no answer, file, row or process has it, raw or percent-encoded.

A study runs on a real Postgres whose user has an awkward password, with the URL by each of the three ways.
"""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

import psutil
import psycopg
import pytest
from awkward_password import FILE, JSON_LOGS, PASSWORD, VARIABLE, has_password, show
from psycopg import sql
from shell import POLL_SECONDS, SMALL, Answer, Shell, Started, two_at_a_time
from sqlalchemy import URL

from fmnist_optuna.log import read_message

pytestmark = pytest.mark.more

WARNING = (
    "Warning: a password in --storage can be read in the process list; "
    "use FMNIST_OPTUNA_STORAGE or FMNIST_OPTUNA_STORAGE_FILE instead."
)

MODEL = """\
import keras


def build(hidden_size: int, learning_rate: float) -> keras.Model:
    if learning_rate == 0.01:
        try:
            {}["the weather"]
        except KeyError as error:
            raise RuntimeError("the weather is bad") from error
    model = keras.Sequential(
        [
            keras.Input((28, 28), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(hidden_size, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
"""
HALF_BROKEN = SMALL.replace("dropout_rate = [0.2]\n", "").replace(
    "[grid]", '[model]\narchitecture = "mine:build"\n[grid]'
)
ONE_CELL = SMALL.replace('"small"', '"other"').replace("[0.01, 0.001]", "[0.01]")

# What trains, in two lanes with a folder each; `run` and `worker` are watched.
RUN = ("run", "small.toml", "--workers", "2", *JSON_LOGS)
INIT = ("init", "other.toml", "--json", *JSON_LOGS)
WORKER = ("worker", "other", *JSON_LOGS)
# What answers afterwards: with one variable or the other, for people or as JSON.
QUESTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "status": (VARIABLE, ("status", "small", "--verbose")),
    "status --json": (FILE, ("status", "small", "--json", *JSON_LOGS)),
    "trials --json": (VARIABLE, ("trials", "small", "--json")),
    "best": (FILE, ("best", "small", "--debug")),
    "verify --json": (VARIABLE, ("verify", "small", "--json", *JSON_LOGS)),
    "list --json": (FILE, ("list", "--json")),
    "show": (FILE, ("show", "0", "small")),
    "no such study": (VARIABLE, ("status", "none", *JSON_LOGS)),
}
LAST = {"stop": (VARIABLE, ("stop", "small", "--debug")), "delete": (FILE, ("delete", "other", "--yes", "--debug"))}
COMMANDS = ["run", "init", "worker", *QUESTIONS, *LAST]
FURTHER: dict[str, tuple[str, tuple[str, ...]]] = {  # the same code as above, but for its last step
    "trials": (FILE, ("trials", "small", "--debug")),
    "trials --csv": (FILE, ("trials", "small", "--csv")),
    "best --json": (VARIABLE, ("best", "small", "--json")),
    "verify": (FILE, ("verify", "small", "--debug")),
    "list": (VARIABLE, ("list", "--debug")),
    "show --json": (VARIABLE, ("show", "1", "small", "--json")),
    "retry": (FILE, ("retry", "small")),
}
CODES = {"run": 6, "verify": 6, "verify --json": 6, "no such study": 3}  # 0 for all others: one cell fails on purpose


@dataclass
class Traces:
    """What the commands left.

    Args:
        ways: What the two variables hold, by name.
        folders: In which they were typed.
        answers: By command.
        processes: Command lines of all processes that a command started, and its own, by command.
        rows: Every row of the database as text, by table.
    """

    ways: dict[str, str]
    folders: list[Path]
    answers: dict[str, Answer] = field(default_factory=dict)
    processes: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[str, list[str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def traces(awkward_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Traces:
    """Everything that a study with all commands leaves; three of them train."""
    folder = tmp_path_factory.mktemp("secrets")
    url_file = folder / "url"
    url_file.write_text(f"{show(awkward_url)}\n")
    shells = [Shell(folder / name) for name in ("first", "second")]
    for shell in shells:
        shell.folder.mkdir()
    shells[0].write("small.toml", HALF_BROKEN)
    shells[0].write("mine.py", MODEL)
    shells[1].write("other.toml", ONE_CELL)
    ways = {VARIABLE: show(awkward_url), FILE: str(url_file)}
    traces = Traces(ways, [shell.folder for shell in shells])

    def type_and_watch(name: str, shell: Shell, *typed: str) -> None:
        with shell.start_cold(*typed) as started:
            traces.processes[name] = watch(started)
            traces.answers[name] = started.wait()

    def work_on_second() -> None:
        traces.answers["init"] = shells[1].with_variables(**{VARIABLE: ways[VARIABLE]})(*INIT)
        type_and_watch("worker", shells[1].with_variables(**{FILE: ways[FILE]}), *WORKER)

    two_at_a_time(
        {
            "first": lambda: type_and_watch("run", shells[0], *RUN, "--storage", show(awkward_url)),
            "second": work_on_second,
        }
    )
    traces.rows = dump(awkward_url)
    questions = {name: lambda order=order: ask(traces, *order) for name, order in QUESTIONS.items()}
    traces.answers |= two_at_a_time(questions)
    for name, order in LAST.items():
        traces.answers[name] = ask(traces, *order)
    return traces


def ask(traces: Traces, way: str, typed: tuple[str, ...]) -> Answer:
    """Type a command with the URL by one of the variables."""
    return Shell(traces.folders[0], {way: traces.ways[way]})(*typed)


def watch(started: Started) -> list[str]:
    """Command lines of a command and of all that it starts, until it ends.

    A process shows its parent's line for an instant, between fork and exec: one seen only once is left out if it is the
    same as the command's own.
    """
    own, command = "", psutil.Process(started.pid)
    seen: Counter[tuple[int, str]] = Counter()
    while started.process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            own = " ".join(command.cmdline()) or own
            for process in started.descendants():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    seen[process.pid, " ".join(process.cmdline())] += 1
        time.sleep(POLL_SECONDS)
    return [own, *[line for (_, line), times in seen.items() if times > 1 or line != own]]


def dump(url: URL) -> dict[str, list[str]]:
    """Every row of every table as text."""
    with psycopg.connect(show(url)) as connection:
        names = [name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        query = sql.SQL("SELECT t::text FROM {} t")
        return {
            name: [row for (row,) in connection.execute(query.format(sql.Identifier(name)))] for name in sorted(names)
        }


@pytest.mark.parametrize("encode", [str, quote, quote_plus, lambda text: quote(text, safe=""), repr])
def test_the_search_finds_the_password_in_every_form(encode: Callable[[str], str]) -> None:
    """Raw, percent-encoded, quoted; and what stands before or after its @."""
    assert has_password(encode(PASSWORD))
    assert all(has_password(part) for part in encode(PASSWORD).replace("%40", "@").split("@"))
    assert not has_password("postgresql://u:***@h/d")


@pytest.mark.parametrize("name", COMMANDS)
def test_no_answer_shows_the_password(traces: Traces, name: str) -> None:
    """Each command did what it should, and neither stdout nor stderr has the password, nor warns of one in vain."""
    answer = traces.answers[name]
    assert answer.code == CODES.get(name, 0), answer
    assert not has_password(answer.stdout + answer.stderr)
    assert ("Warning" in answer.stderr) == (name == "run")  # which had it as an option


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FURTHER))
def test_no_further_answer_shows_the_password(traces: Traces, name: str) -> None:
    """The other forms of the answers, and `retry`."""
    answer = ask(traces, *FURTHER[name])
    assert answer.code == CODES.get(name, 0), answer
    assert not has_password(answer.stdout + answer.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("way", [VARIABLE, FILE])
def test_run_with_a_variable_shows_the_password_nowhere(traces: Traces, tmp_path: Path, way: str) -> None:
    """Neither its answer, nor its files, nor a process that it starts, nor its own line; it warns of nothing."""
    shell = Shell(tmp_path, {way: traces.ways[way]})
    shell.write("other.toml", ONE_CELL)
    with shell.start_cold("run", "other.toml", "--name", way.lower(), "--workers", "2", "--verbose") as started:
        lines = watch(started)
        answer = started.wait()
    assert answer.code == 0, answer
    assert "Warning" not in answer.stderr
    assert not has_password("\n".join([answer.stdout, answer.stderr, *lines]))
    assert files_with_password([tmp_path]) == []


def test_the_storage_is_shown_with_its_password_masked(traces: Traces, awkward_url: URL) -> None:
    """The answers name user, host and database, so that a person knows where the study is."""
    shown = f"postgresql://{awkward_url.username}:***@{awkward_url.host}:{awkward_url.port}/{awkward_url.database}"
    assert traces.answers["status --json"].json["storage"] == shown
    assert f"in {shown}\n" in traces.answers["status"].stdout
    assert shown in traces.answers["no such study"].errors[0]


def test_a_password_in_the_option_draws_one_warning(traces: Traces) -> None:
    """Once, although workers and children start."""
    lines = [read_message(line) for line in traces.answers["run"].stderr.splitlines()]
    assert [line for line in lines if line.startswith("Warning")] == [WARNING]


def test_no_file_that_is_left_has_the_password(traces: Traces) -> None:
    """Logs, weights, outputs: everything in the folders, logs, weights and pictures among them."""
    assert files_with_password(traces.folders) == []
    names = [
        [len(list(folder.glob(f"studies/{name}/*"))) for name in ("logs", "artifacts")] for folder in traces.folders
    ]
    assert names == [[2, 3], [0, 1]]


def files_with_password(folders: list[Path]) -> list[Path]:
    """The files below some folders that have the password in their name or content."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if has_password(f"{path}\n{path.read_bytes().decode('latin-1')}")]


def test_the_error_of_a_model_is_kept_without_the_password(traces: Traces) -> None:
    """The log has the whole traceback, each of the two attempts its error."""
    logs = "".join(path.read_text() for path in traces.folders[0].glob("studies/logs/*.log"))
    assert "Traceback (most recent call last)" in logs
    assert "KeyError: 'the weather'" in logs
    errors = [row for row in traces.rows["trial_user_attributes"] if "the weather is bad" in row]
    assert len(errors) == 2
    assert "the weather is bad" in traces.answers["run"].stderr


def test_no_row_of_the_database_has_the_password(traces: Traces) -> None:
    """Every column of every table, Optuna's too."""
    assert [row for rows in traces.rows.values() for row in rows if has_password(row)] == []
    filled = {name for name, rows in traces.rows.items() if rows}
    assert {
        "fmnist_studies",
        "fmnist_cells",
        "fmnist_epochs",
        "fmnist_openings",
        "trials",
        "trial_user_attributes",
        "studies",
    } <= filled


@pytest.mark.parametrize("name", ["run", "worker"])
def test_no_process_that_a_command_starts_shows_the_password(traces: Traces, name: str) -> None:
    """Any user of the machine may read command lines; only what was typed by hand is there."""
    own, *children = traces.processes[name]
    assert [line for line in children if has_password(line)] == []
    assert has_password(own) == (name == "run")
    assert any("forkserver" in line for line in children) == (name == "run")  # a worker trains in its own process


def test_every_line_of_json_logs_is_a_record(traces: Traces) -> None:
    """A failing run, its workers and a lone one: JSON throughout, with worker and study, trial and cell where known."""
    logs = [file.read_text() for file in (traces.folders[0] / "studies" / "logs").glob("*.log")]
    assert logs
    of_workers = [json.loads(line) for text in logs for line in text.splitlines()]
    alone = [json.loads(line) for line in traces.answers["worker"].stderr.splitlines()]
    (ended,) = [line for line in alone if line["event"] == "trial_ended"]
    assert (ended["state"], ended["study"], ended["trial"], len(ended["cell"])) == ("COMPLETE", "other", 0, 64)
    assert 0 < ended["val_accuracy"] <= 1
    for lines, study in ((of_workers, "small"), (alone[:-1], "other")):
        assert {(line["study"], bool(line["worker"])) for line in lines} == {(study, True)}
    (failed, _) = [line for line in of_workers if line["event"] == "trial_failed"]
    assert "RuntimeError: the weather is bad" in failed["error"]
    assert "\nRuntimeError: the weather is bad\n" in failed["exception"]
    of_run = [json.loads(line) for line in traces.answers["run"].stderr.splitlines()]
    assert {line["study"] for line in of_run if line["event"] == "worker_started"} == {"small"}
    assert of_run[-1]["message"].startswith("Error: study small: 1 cell failed")
