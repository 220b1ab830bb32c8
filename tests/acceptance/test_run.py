"""`run`, `init`, `worker`, `stop` and `retry`: from a study file to a tested winner, whatever comes between."""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from shell import SMALL, SMOKE, Answer, FinishedStudy, Shell, make_paced, two_at_a_time

WINNER_KEYS = {
    "schema", "study", "trial", "params", "val_accuracy", "test_accuracy", "epochs", "data", "confirmed",
}  # fmt: skip
MODEL = """\
from pathlib import Path

import keras


def build(hidden_size: int, learning_rate: float) -> keras.Model:
    if learning_rate == 0.01 and Path("broken").exists():
        raise RuntimeError("the weather is bad")
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
OWN_MODEL = SMALL.replace("dropout_rate = [0.2]\n", "").replace(
    "[grid]", '[model]\narchitecture = "mine:build"\n[grid]'
)


def test_run_prints_the_winner_on_stdout_and_nothing_else(smoke: FinishedStudy) -> None:
    """The first line names the winner, the fifth says how often the test set was opened, a table has its classes."""
    lines = smoke.run.stdout.splitlines()
    assert lines[0].startswith("Winner of smoke (SYNTHETIC garments, not Fashion-MNIST): trial ")
    assert lines[2].endswith("best of 4 complete cells, 0 pruned")
    assert lines[3].endswith("2,000 images")
    assert lines[4] == "  test set opened      once"
    assert len(lines) == 5 + 1 + 1 + 10


def test_run_in_a_pipe_says_one_line_for_each_trial(smoke: FinishedStudy) -> None:
    """Four cells are four numbered lines on stderr, without an escape code; the last line names the next command."""
    lines = smoke.run.stderr.splitlines()
    assert [line[:5] for line in lines if " complete: " in line] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert "\x1b" not in smoke.run.stdout + smoke.run.stderr
    assert lines[-1].startswith("Next: fmnist-optuna verify smoke")


def test_run_leaves_database_weights_and_logs_only(smoke: FinishedStudy) -> None:
    """Beside the database stand the weights of four trials and the logs of two workers."""
    files = smoke.shell.files()
    assert len([name for name in files if name.startswith("studies/artifacts/")]) == 4 + 2
    assert len([name for name in files if name.startswith("studies/logs/")]) == 2
    assert [name for name in files if name.endswith((".part", ".tmp"))] == []


def test_run_leaves_no_temporary_file(smoke: FinishedStudy) -> None:
    """Neither its own nor those that TensorFlow writes in the workers."""
    assert list(Path(smoke.shell.variables["TMPDIR"]).iterdir()) == []


def leave_checkpoint(folder: Path) -> None:
    """As when everything is killed at once after the last cell."""
    path = folder / "studies" / "artifacts" / "checkpoints" / "1" / "left"
    path.parent.mkdir(parents=True)
    path.touch()


@pytest.fixture(scope="module")
def runs(smoke: FinishedStudy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Shell, Answer]]:
    """Independent second runs, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("runs")
    commands = {
        "again": ("run", "smoke.toml", "--workers", "1", "--json"),
        "larger": ("run", "larger.toml", "--workers", "1"),
        "other": ("run", "other.toml", "--workers", "1"),
        "fallback": ("run", "auto.toml", "--workers", "1"),
        "no data": ("run", "auto.toml", "--data", "fashion-mnist"),
    }
    shells = {}
    for name in commands:
        shells[name] = Shell(folder / name)
        if name in ("again", "larger", "other"):
            shutil.copytree(smoke.shell.folder, folder / name)
            leave_checkpoint(folder / name)
        else:
            (folder / name).mkdir()
        shells[name].write("larger.toml", SMOKE.replace("[16, 32]", "[16, 32, 48]").replace("[0.01, 0.001]", "[0.01]"))
        shells[name].write("other.toml", SMOKE.replace("max_epochs = 3", "max_epochs = 4"))
        shells[name].write("auto.toml", SMALL.replace('"synthetic"', '"auto"'))
    calls = {name: lambda name=name, typed=typed: shells[name](*typed) for name, typed in commands.items()}
    return {name: (shells[name], answer) for name, answer in two_at_a_time(calls).items()}


def test_a_second_run_trains_nothing_and_gives_the_same_winner(
    runs: dict[str, tuple[Shell, Answer]], smoke: FinishedStudy
) -> None:
    """A finished study is only read: no further trial, no further opening, the same trial and score.

    A checkpoint that a crash at its end has left is removed.
    """
    shell, answer = runs["again"]
    assert not (shell.folder / "studies" / "artifacts" / "checkpoints").exists()
    assert answer.code == 0, answer.stderr
    assert [len(shell.query(f"SELECT * FROM {table}")) for table in ("trials", "fmnist_openings")] == [4, 1]
    assert (
        f"Winner of smoke (SYNTHETIC garments, not Fashion-MNIST): trial {answer.json['trial']}\n" in smoke.run.stdout
    )
    assert f"{100 * answer.json['test_accuracy']:.2f} %" in smoke.run.stdout


def test_run_json_has_the_stable_keys(runs: dict[str, tuple[Shell, Answer]]) -> None:
    """`run --json` is the answer of `best --json`, alone on stdout."""
    answer = runs["again"][1].json
    assert set(answer) >= WINNER_KEYS
    assert (answer["schema"], answer["study"], answer["confirmed"]) == (1, "smoke", None)


def test_a_larger_grid_trains_only_the_new_cells(runs: dict[str, tuple[Shell, Answer]]) -> None:
    """A third hidden size at one learning rate is one new cell: five trials, one of them new, in a union of five."""
    shell, answer = runs["larger"]
    assert answer.code == 0, answer.stderr
    assert "best of 5 complete cells" in answer.stdout
    assert [line[:5] for line in answer.stderr.splitlines() if " complete: " in line] == ["[5/5]"]
    assert len(shell.query("SELECT * FROM trials")) == 5
    proof = shell("verify", "--json").json
    assert (proof["ok"], proof["cells"], proof["results"]) == (True, 5, 5)


def test_joining_with_another_training_is_refused_with_a_diff(runs: dict[str, tuple[Shell, Answer]]) -> None:
    """The refusal names the key, both values and the two commands that help; the study stays as it was."""
    shell, answer = runs["other"]
    assert (answer.code, answer.stdout, len(answer.errors)) == (2, "", 1)
    assert "smoke" in answer.errors[0]
    assert "training.max_epochs: the study has 3, this run 4" in answer.stderr
    assert "--name NEW" in answer.stderr
    assert "fmnist-optuna delete smoke" in answer.stderr
    assert len(shell.query("SELECT * FROM trials")) == 4


def test_without_files_and_network_auto_falls_back_loudly(runs: dict[str, tuple[Shell, Answer]]) -> None:
    """The fall-back is a study of another name, and every output says SYNTHETIC."""
    shell, answer = runs["fallback"]
    assert answer.code == 0, answer.stderr
    assert answer.stderr.startswith("SYNTHETIC data: ")
    assert "neither on disk nor reachable" in answer.stderr
    assert answer.stdout.startswith("Winner of small-synthetic (SYNTHETIC garments, not Fashion-MNIST)")
    assert shell.query("SELECT study_name FROM fmnist_studies") == [("small-synthetic",)]
    told = two_at_a_time({name: partial(shell, name) for name in ("status", "best")})
    assert all("SYNTHETIC" in said.stdout for said in told.values())


def test_fashion_mnist_without_files_and_network_exits_4(
    runs: dict[str, tuple[Shell, Answer]],
) -> None:
    """Data that was asked for by name is never replaced; the error names both mirrors and the options that help."""
    shell, answer = runs["no data"]
    assert (answer.code, answer.stdout, len(answer.errors)) == (4, "", 1)
    assert all(word in answer.errors[0] for word in ("storage.googleapis.com", "amazonaws.com", "--data-dir"))
    assert not (shell.folder / "studies").exists()


@dataclass(frozen=True)
class Scenarios:
    """Studies on which several commands worked."""

    two_runs: tuple[Shell, list[Answer]]
    failed: tuple[Shell, list[Answer]]


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> Scenarios:
    """Each in a folder of its own, two at a time."""
    folder = tmp_path_factory.mktemp("scenarios")
    calls = {"two_runs": run_twice_at_once, "failed": fail_and_retry}
    return Scenarios(**two_at_a_time({name: partial(call, folder / name) for name, call in calls.items()}))


def make_small(folder: Path, spec: str = SMALL) -> Shell:
    """A new folder with a study file."""
    folder.mkdir()
    shell = Shell(folder)
    shell.write("small.toml", spec)
    return shell


def run_twice_at_once(folder: Path) -> tuple[Shell, list[Answer]]:
    """Two runs that begin together."""
    shell = make_small(folder)
    typed = ("run", "small.toml", "--workers", "1")
    with shell.start(*typed) as first, shell.start(*typed) as second:
        return shell, [first.wait(), second.wait()]


def stop_from_outside(folder: Path) -> tuple[Shell, list[Answer]]:
    """A run, and `stop` in another terminal after its first epoch."""
    shell = make_paced(folder, 0.5)
    with shell.start("run", "study.toml", "--workers", "1") as run:
        shell.wait_for("SELECT * FROM fmnist_epochs")
        stop = shell("stop")
        return shell, [run.wait(20), stop]


def fail_and_retry(folder: Path) -> tuple[Shell, list[Answer]]:
    """A run with a model that fails for one cell, `status`, `retry`, and `status` again."""
    shell = make_small(folder, OWN_MODEL)
    shell.write("mine.py", MODEL)
    shell.write("broken", "")
    run = shell("run", "small.toml", "--workers", "1", "--json")
    return shell, [run, shell("status", "--json"), shell("retry"), shell("status", "--json")]


@pytest.mark.more
def test_two_runs_at_once_share_one_study(scenarios: Scenarios) -> None:
    """Both end with the same winner, each cell has one result, and the test set was opened once."""
    shell, answers = scenarios.two_runs
    assert [answer.code for answer in answers] == [0, 0], answers
    assert answers[0].stdout == answers[1].stdout != ""
    proof = shell("verify", "--json").json
    assert (proof["ok"], proof["cells"], proof["results"], proof["duplicates"]) == (True, 2, 2, 0)
    assert len(shell.query("SELECT * FROM fmnist_openings")) == 1


@pytest.mark.more
def test_a_model_that_fails_for_one_cell_exits_6_with_its_error(scenarios: Scenarios) -> None:
    """The cell fails for good and is named with its exception; the other has its result and is the winner."""
    failed, status, _, _ = scenarios.failed[1]
    assert (failed.code, len(failed.errors)) == (6, 1)
    assert "learning_rate 0.01: " in failed.stderr
    assert "RuntimeError: the weather is bad" in failed.stderr
    assert "fmnist-optuna retry small" in failed.errors[0]
    assert failed.json["params"]["learning_rate"] == 0.001
    assert status.json["cells"] == {
        "total": 2, "waiting": 0, "running": 0, "parked": 0,
        "done": 1, "complete": 1, "pruned": 0, "cut": 0, "failed": 1,
    }  # fmt: skip


@pytest.mark.more
def test_retry_lets_failed_cells_wait_again(scenarios: Scenarios) -> None:
    """`retry` touches the failed cell alone; it trains nothing and names the next command."""
    _, _, retried, status = scenarios.failed[1]
    assert (retried.code, retried.stdout) == (0, "")
    assert "failed cells that wait again: 1. Next: fmnist-optuna run" in retried.stderr
    cells = status.json["cells"]
    assert (cells["waiting"], cells["done"], cells["failed"]) == (1, 1, 0)


@pytest.mark.slow
def test_after_mending_the_model_a_run_completes_the_study(tmp_path: Path) -> None:
    """After `retry` the failed cell gets its result, and the other keeps its own."""
    shell, _ = fail_and_retry(tmp_path / "study")
    (shell.folder / "broken").unlink()
    mended = shell("run", "small.toml", "--workers", "1")
    assert mended.code == 0, mended.stderr
    assert "best of 2 complete cells" in mended.stdout
    assert shell("verify").code == 0


@pytest.mark.slow
def test_stop_from_outside_ends_a_run_with_7(tmp_path: Path) -> None:
    """`stop` in another terminal lets the worker of a run finish its epoch, give its cell back and leave."""
    shell, (run, stop) = stop_from_outside(tmp_path / "study")
    assert (stop.code, stop.stdout) == (0, "")
    assert (run.code, run.stdout, len(run.errors)) == (7, "", 1)
    assert "run it again to go on" in run.errors[0]
    assert shell.query("SELECT * FROM fmnist_cells WHERE state = 'running'") == []
    assert shell.query("SELECT * FROM fmnist_workers") == []


@pytest.mark.slow
def test_init_and_two_workers_do_what_run_does(tmp_path: Path) -> None:
    """The halves for other launchers: `init` trains nothing, two workers all; `run` then only tests the winner."""
    shell = make_small(tmp_path / "study")
    made = shell("init", "small.toml", "--json")
    assert (made.code, made.json["cells"]["waiting"]) == (0, 2)
    with shell.start("worker", "small") as first, shell.start("worker", "small") as second:
        ends = [first.wait(), second.wait()]
    assert [end.code for end in ends] == [0, 0], ends
    assert len(shell.query("SELECT * FROM trials WHERE state = 'COMPLETE'")) == 2
    answer = shell("run", "small.toml", "--json")
    assert (answer.code, len(shell.query("SELECT * FROM trials"))) == (0, 2)
    assert answer.json["test_accuracy"] is not None


@pytest.mark.slow
def test_a_timeout_exits_7_and_a_second_run_finishes(tmp_path: Path) -> None:
    """What was not done in time is given back, and done by the next run."""
    shell = make_paced(tmp_path / "study", 0.5)
    stopped = shell("run", "study.toml", "--workers", "1", "--timeout", "1s")
    assert (stopped.code, stopped.stdout, len(stopped.errors)) == (7, "", 1)
    assert "run it again to go on" in stopped.errors[0]
    assert shell.query("SELECT DISTINCT state FROM fmnist_cells WHERE state NOT IN ('waiting', 'done')") == []
    (shell.folder / "pace").unlink()
    finished = shell("run", "study.toml", "--workers", "1")
    assert finished.code == 0, finished.stderr
    assert "best of 2 complete cells" in finished.stdout
