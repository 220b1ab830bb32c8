"""`status`, `trials`, `show`, `best`, `verify` and `list`: they answer, they never train, they never create a file."""

import csv
import io
import os
import shutil
import subprocess
from functools import partial

import pytest
from shell import COMMAND, Answer, FinishedStudy, Shell, two_at_a_time
from small_study import create_study, open_small

QUESTIONS = {
    "status": ("status",),
    "status --json": ("status", "--json"),
    "status --watch": ("status", "--watch"),
    "trials": ("trials", "smoke"),
    "trials --json": ("trials", "--json"),
    "trials --csv": ("trials", "--csv"),
    "show": ("show", "0"),
    "show --json": ("show", "3", "smoke", "--json"),
    "best": ("best",),
    "best --json": ("best", "--json"),
    "verify": ("verify",),
    "verify --json": ("verify", "--json"),
    "list": ("list",),
    "list --json": ("list", "--json"),
    "unknown study": ("status", "nobody"),
    "unknown trial": ("show", "77"),
}
TEXTS = ["status", "status --watch", "trials", "show", "best", "list"]


@pytest.fixture(scope="module")
def answers(smoke: FinishedStudy) -> dict[str, Answer]:
    """Every question once, on the finished study."""
    before = smoke.shell.files()
    given = two_at_a_time({name: partial(smoke.shell, *typed) for name, typed in QUESTIONS.items()})
    assert smoke.shell.files() - {"studies/studies.db-wal", "studies/studies.db-shm"} <= before
    return given


@pytest.mark.parametrize("question", [name for name in QUESTIONS if not name.startswith("unknown")])
def test_a_question_about_a_finished_study_leaves_stderr_empty(answers: dict[str, Answer], question: str) -> None:
    """An answer is on stdout alone."""
    assert (answers[question].code, answers[question].stderr) == (0, "")


@pytest.mark.parametrize("question", TEXTS)
def test_no_line_is_wider_than_80_columns(answers: dict[str, Answer], question: str) -> None:
    """Tables fit a terminal of 80 columns; only a line that names a path or a URL may be longer."""
    wide = [line for line in answers[question].stdout.splitlines() if len(line.rstrip()) > 80 and "/" not in line]
    assert wide == []


@pytest.mark.parametrize("question", [*TEXTS, "verify"])
def test_every_text_says_synthetic(answers: dict[str, Answer], question: str) -> None:
    """Nobody takes a score on drawn garments for one on Fashion-MNIST."""
    assert "SYNTHETIC" in answers[question].stdout


def test_status_json_has_the_stable_keys(answers: dict[str, Answer]) -> None:
    """`status --json` is schema 1, with four complete cells and no worker left."""
    status = answers["status --json"].json
    keys = {"schema", "study", "storage", "data", "cells", "workers", "best", "elapsed_seconds", "foreign_trials"}
    keys |= {"rungs", "artifacts", "checkpoint_bytes", "trained_on_validation"}
    assert (set(status), status["foreign_trials"]) == (keys, 0)
    assert (status["schema"], status["study"], status["storage"]) == (1, "smoke", "sqlite:///studies/studies.db")
    assert (status["rungs"], status["checkpoint_bytes"]) == ([], 0)
    assert status["cells"] == {
        "total": 4, "waiting": 0, "running": 0, "parked": 0, "done": 4, "complete": 4, "pruned": 0, "cut": 0,
        "failed": 0,
    }  # fmt: skip
    assert (status["data"]["source"], len(status["data"]["fingerprint"]), status["workers"]) == ("synthetic", 64, [])


def test_trials_json_has_one_attempt_for_each_cell(answers: dict[str, Answer]) -> None:
    """`trials --json` lists four COMPLETE first attempts of four different cells, the best first."""
    trials = answers["trials --json"].json["trials"]
    assert {
        "trial",
        "cell",
        "state",
        "params",
        "val_accuracy",
        "epochs",
        "seconds",
        "attempt",
        "worker",
        "error",
    } <= set(trials[0])
    assert [(t["state"], t["attempt"], t["epochs"], t["error"]) for t in trials] == [("COMPLETE", 1, 3, None)] * 4
    assert (len({t["cell"] for t in trials}), sorted(t["trial"] for t in trials)) == (4, [0, 1, 2, 3])
    values = [t["val_accuracy"] for t in trials]
    assert values == sorted(values, reverse=True)


def test_trials_csv_has_a_header_and_the_values_of_the_json(answers: dict[str, Answer]) -> None:
    """`trials --csv` is one header and one row for each attempt."""
    rows = list(csv.DictReader(io.StringIO(answers["trials --csv"].stdout)))
    assert list(rows[0]) == [
        "trial", "cell", "state", "val_accuracy", "epochs", "seconds", "attempt", "worker", "reason", "error", "rung",
        "foreign", "value", "metric", "trained_on_validation", "params_hidden_size", "params_dropout_rate",
        "params_learning_rate",
    ]  # fmt: skip
    expected = answers["trials --json"].json["trials"]
    assert [(int(r["trial"]), int(r["params_hidden_size"]), float(r["val_accuracy"])) for r in rows] == [
        (t["trial"], t["params"]["hidden_size"], t["val_accuracy"]) for t in expected
    ]


def test_show_json_has_the_curve_whose_best_epoch_is_the_score(answers: dict[str, Answer]) -> None:
    """The val_accuracy of a trial is that of its best epoch, whose weights are kept."""
    shown = answers["show --json"].json
    assert (shown["trial"], shown["state"], len(shown["curve"])) == (3, "COMPLETE", 3)
    assert [epoch["epoch"] for epoch in shown["curve"]] == [0, 1, 2]
    assert shown["val_accuracy"] == max(epoch["val_accuracy"] for epoch in shown["curve"])


def test_best_json_has_the_stable_keys_and_a_test_score(answers: dict[str, Answer]) -> None:
    """`best --json` names the first of the leaderboard, scored on the test images."""
    best, leader = answers["best --json"].json, answers["trials --json"].json["trials"][0]
    assert {
        "schema", "study", "trial", "params", "val_accuracy", "test_accuracy", "epochs", "data", "confirmed",
    } <= set(best)  # fmt: skip
    assert (best["trial"], best["params"], best["val_accuracy"]) == (
        leader["trial"], leader["params"], leader["val_accuracy"],
    )  # fmt: skip
    assert best["openings"] == 1
    low, high = best["test_interval"]
    assert low < best["test_accuracy"] < high
    assert best["test_accuracy"] * 2000 == pytest.approx(round(best["test_accuracy"] * 2000))  # 2,000 drawn images


def test_best_prints_the_recorded_winner(answers: dict[str, Answer], smoke: FinishedStudy) -> None:
    """`best` says what `run` had said, and scores nothing again."""
    assert answers["best"].stdout == smoke.run.stdout
    assert len(smoke.shell.query("SELECT * FROM fmnist_openings")) == 1


def test_verify_json_proves_four_cells_with_four_results(answers: dict[str, Answer]) -> None:
    """`verify --json` is ok, with nothing double, missing, failed, running or surplus."""
    proof = answers["verify --json"].json
    assert proof.pop("problems") == []
    assert proof == {
        "schema": 1, "ok": True, "cells": 4, "results": 4, "duplicates": 0, "missing": 0, "failed": 0, "running": 0,
        "surplus_trials": 0, "foreign_trials": 0, "unchecked_points": 0,
    }  # fmt: skip


def test_list_json_names_the_study(answers: dict[str, Answer]) -> None:
    """`list --json` has one entry for each study, with its cells."""
    (study,) = answers["list --json"].json["studies"]
    assert (study["study"], study["cells"]["done"]) == ("smoke", 4)


def test_watch_ends_by_itself_on_a_finished_study(answers: dict[str, Answer]) -> None:
    """`status --watch` leaves the same picture as `status`."""
    assert answers["status --watch"].stdout == answers["status"].stdout


def test_an_unknown_study_exits_3_and_the_error_names_list(answers: dict[str, Answer]) -> None:
    """A name that is not there is an error of one line."""
    answer = answers["unknown study"]
    assert (answer.code, answer.stdout, len(answer.errors)) == (3, "", 1)
    assert "nobody" in answer.errors[0]
    assert "fmnist-optuna list" in answer.errors[0]


def test_an_unknown_trial_exits_3_and_the_error_names_trials(answers: dict[str, Answer]) -> None:
    """A trial number that is not there is an error of one line."""
    answer = answers["unknown trial"]
    assert (answer.code, answer.stdout, len(answer.errors)) == (3, "", 1)
    assert "77" in answer.errors[0]
    assert "fmnist-optuna trials smoke" in answer.errors[0]


@pytest.mark.parametrize("storage", ["sqlite:///studies/studies.db", "sqlite:///nope/x.db"])
def test_a_missing_storage_exits_3_and_nothing_is_created(shell: Shell, storage: str) -> None:
    """A reading command in the wrong folder leaves that folder as it was."""
    answer = shell("status", "--storage", storage)
    assert (answer.code, answer.stdout, shell.files()) == (3, "", set())
    assert answer.errors == answer.stderr.splitlines()
    assert storage.removeprefix("sqlite:///") in answer.errors[0]


def test_a_reader_that_has_read_enough_sees_no_traceback(smoke: FinishedStudy) -> None:
    """`trials | head` ends quietly, even when the pipe is closed before the first byte."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [COMMAND, "trials"], cwd=smoke.shell.folder, env=smoke.shell.environment, stdin=subprocess.DEVNULL,
        stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def two_studies(smoke: FinishedStudy, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """The finished study and one that was only created."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(smoke.shell.database.parent, folder / "studies")
    shell = Shell(folder)
    storage = open_small(f"sqlite:///{shell.database}")
    create_study(storage)
    storage.close()
    return shell


def test_without_a_name_two_studies_are_listed_with_exit_2(two_studies: Shell) -> None:
    """STUDY may be left out only where one study is."""
    answer = two_studies("status")
    assert (answer.code, answer.stdout, len(answer.errors)) == (2, "", 1)
    assert "smoke, small" in answer.errors[0]


def test_verify_of_an_unfinished_study_exits_6(two_studies: Shell) -> None:
    """What is not done is not proven: the answer counts what is missing."""
    answer = two_studies("verify", "small", "--json")
    assert (answer.code, len(answer.errors)) == (6, 1)
    assert (answer.json["ok"], answer.json["cells"], answer.json["results"], answer.json["missing"]) == (False, 4, 0, 4)


def test_best_before_the_first_result_exits_3(two_studies: Shell) -> None:
    """There is no winner yet, and the error says so."""
    answer = two_studies("best", "small")
    assert (answer.code, answer.stdout, len(answer.errors)) == (3, "", 1)
    assert "no trial is complete" in answer.errors[0]
