"""A study with rungs as a person sees it: while it runs, while cells are parked, when it is over, and on its page."""

import re
from functools import partial
from pathlib import Path

import pytest
from shell import Answer, FinishedStudy, Shell, two_at_a_time
from small_study import (
    LADDER,
    begin_trial,
    claim_cell,
    create_study,
    epoch_of,
    ladder_objective,
    make_spec,
)
from test_showing import Page

from fmnist_optuna.artifacts.checkpoints import Checkpoints
from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.search.cell import Params
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.attempt import run_attempt
from fmnist_optuna.work.running_trial import RunningTrial

pytestmark = pytest.mark.more

STUDY = """\
name = "steps"
[data]
source = "synthetic"
[grid]
hidden_size = [16]
dropout_rate = [0.2]
learning_rate = [0.01, 0.001, 0.00001, 0.000001]
[training]
max_epochs = 3
[pruner]
name = "ladder"
first_rung = 1
"""
QUESTIONS = {
    "status": ("status",),
    "status --json": ("status", "--json"),
    "trials": ("trials",),
    "trials --json": ("trials", "--json"),
    "report": ("report",),
}


def ask_all(shell: Shell) -> dict[str, Answer]:
    """Every question once."""
    return two_at_a_time({name: partial(shell, *typed) for name, typed in QUESTIONS.items()})


def read_page(shell: Shell, answer: Answer) -> Page:
    assert answer.code == 0, answer.stderr
    return Page((shell.folder / answer.stdout.strip()).read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedStudy:
    """Four cells, of which the slow ones are cut."""
    shell = Shell(tmp_path_factory.mktemp("steps"))
    shell.write("steps.toml", STUDY)
    answer = shell("run", "steps.toml", "--workers", "1")
    assert answer.code == 0, answer.stderr
    return FinishedStudy(shell, answer)


@pytest.fixture(scope="module")
def answers(finished: FinishedStudy) -> dict[str, Answer]:
    return ask_all(finished.shell)


@pytest.fixture(scope="module")
def parked(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Six cells, made up: four are parked at epoch 2, one is on its way there, one waits; two have a checkpoint."""
    shell = Shell(tmp_path_factory.mktemp("parked"))
    (shell.folder / "studies").mkdir()
    storage = create_storage(StorageOptions(f"sqlite:///{shell.folder}/studies/studies.db"))
    record = create_study(storage, make_spec({"hidden_size": [1, 2, 3, 4, 5, 6]}, "parked", pruner=LADDER))
    session = Session(storage, record, "worker-1")
    checkpoints = Checkpoints(storage.artifacts, record.study_id)
    checkpoints.folder.mkdir(parents=True)
    for number in range(4):
        claim = claim_cell(session)
        run_attempt(session, claim, ladder_objective, lambda: False, record.generation)
        if number < 2:
            checkpoints.file(claim.cell_id).write_bytes(bytes(2**20))
    claim = claim_cell(session)
    assert session.ledger.record_epoch(claim, begin_trial(session, claim), epoch_of(0, 0.4)) is not None
    storage.close()
    return shell


@pytest.fixture(scope="module")
def parked_answers(parked: Shell) -> dict[str, Answer]:
    return ask_all(parked)


def rungs_of(answers: dict[str, Answer]) -> list[dict[str, float]]:
    found: list[dict[str, float]] = answers["status --json"].json["rungs"]
    return found


def test_a_run_says_each_decision_in_a_line(finished: FinishedStudy, answers: dict[str, Answer]) -> None:
    """In a pipe: one line for each decision, several where cells went on ahead, and after it the cells that it cut."""
    lines = finished.run.stderr.splitlines()
    told = [line for line in lines if line.startswith("rung ")]
    for step in rungs_of(answers):
        pattern = rf"rung {step['rung']}: (\d) cells?, (?:(\d) cut|all go on|goes on), the best has ([\d.]+) %"
        decided = [found for line in told if (found := re.fullmatch(pattern, line))]
        assert sum(int(found[1]) for found in decided) == step["cells"]
        assert sum(int(found[2] or 0) for found in decided) == step["cut"]
        assert max(float(found[3]) for found in decided) == round(100 * step["best"], 1)
    cuts = [line for line in lines if re.search(r"^\[\d/4\] trial \d cut: val accuracy .* after \d epoch", line)]
    assert len(cuts) == sum(step["cut"] for step in rungs_of(answers)) > 0
    assert lines.index(told[0]) < lines.index(cuts[0])


def test_the_winner_is_named_among_all_cells(finished: FinishedStudy, answers: dict[str, Answer]) -> None:
    """With how many of them were cut."""
    n_cut = sum(step["cut"] for step in rungs_of(answers))
    assert f"best of 4 cells, {n_cut} cut at rungs" in finished.run.stdout


def test_each_cut_attempt_names_its_rung(answers: dict[str, Answer]) -> None:
    """In the note of `trials`, and as a number in its JSON; a complete one has neither."""
    rows = answers["trials --json"].json["trials"]
    cut = [row for row in rows if row["state"] == "PRUNED"]
    assert [row["rung"] for row in cut] == [row["epochs"] for row in cut]
    assert {row["rung"] for row in rows if row["state"] == "COMPLETE"} == {None}
    for row in cut:
        assert re.search(rf"^ +{row['trial']} PRUNED .* cut at epoch {row['rung']}\s*$", answers["trials"].stdout, re.M)


def test_a_finished_study_has_its_rungs_and_no_checkpoint(answers: dict[str, Answer]) -> None:
    """What was trained and saved at each rung; nothing is parked, and no file is left."""
    status = answers["status --json"].json
    first = status["rungs"][0]
    assert (first["rung"], first["cells"], first["parked"], first["to_come"], first["epochs"]) == (1, 4, 0, 0, 4)
    assert first["cut"] + first["went_on"] == 4
    assert first["epochs_saved"] == 2 * first["cut"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", str(first["decided_at"]))
    assert (status["cells"]["parked"], status["checkpoint_bytes"]) == (0, 0)
    assert status["cells"]["cut"] == sum(step["cut"] for step in status["rungs"])
    assert "checkpoints" not in answers["status"].stdout
    assert f"up to {first['epochs_saved']}" in answers["status"].stdout


def test_parked_cells_are_seen(parked_answers: dict[str, Answer]) -> None:
    """How many, at which rung, how many are still to come, and what their checkpoints take."""
    status, text = parked_answers["status --json"].json, parked_answers["status"].stdout
    (step,) = status["rungs"]
    assert (step["rung"], step["parked"], step["to_come"], step["cut"], step["decided_at"]) == (2, 4, 2, 0, None)
    assert (step["best"] > 0, step["epochs"]) == (True, 9)
    assert (status["cells"]["parked"], status["cells"]["running"], status["cells"]["waiting"]) == (4, 1, 1)
    assert status["checkpoint_bytes"] == 2 * 2**20
    assert "1 running, 4 parked, 1 waiting" in " ".join(text.split())
    assert "4 of 6 parked" in text
    assert "checkpoints: 2 files, 2.0 MiB" in text
    assert "left" not in text  # nobody knows how many will go on
    assert parked_answers["trials"].stdout.count("parked at epoch 2") == 4


@pytest.mark.parametrize("question", ["status", "trials"])
def test_no_line_is_wider_than_80_columns(
    answers: dict[str, Answer], parked_answers: dict[str, Answer], question: str
) -> None:
    """Neither of a finished study nor while cells are parked."""
    for answer in (answers[question], parked_answers[question]):
        assert (answer.code, answer.stderr) == (0, "")
        wide = [line for line in answer.stdout.splitlines() if len(line.rstrip()) > 80 and "/" not in line]
        assert wide == []


@pytest.fixture(scope="module")
def went_on(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """One cell, made up: a worker parks it at epoch 2, another goes on and raises; each has a log."""
    shell = Shell(tmp_path_factory.mktemp("went-on"))
    (shell.folder / "studies" / "logs").mkdir(parents=True)
    storage = create_storage(StorageOptions(f"sqlite:///{shell.folder}/studies/studies.db"))
    record = create_study(storage, make_spec({"hidden_size": [1]}, "went-on", pruner=LADDER))
    for worker, objective in (("worker-1", ladder_objective), ("worker-2", fail_at_once)):
        (shell.folder / "studies" / "logs" / f"{worker}.log").touch()
        session = Session(storage, record, worker)
        run_attempt(session, claim_cell(session), objective, lambda: False, record.generation)
    storage.close()
    return shell


def fail_at_once(params: Params, seed: int, running: RunningTrial) -> None:
    raise ValueError("out of garments")


def test_a_trial_that_went_on_names_its_last_worker(went_on: Shell) -> None:
    """With the log that has what was raised, and each leg by its worker; in `trials` it is the same worker's."""
    text = went_on("show", "0").stdout
    assert re.search(r"attempt 1 at cell \w+ by worker worker-2\n +from epoch 1 by worker worker-1\n", text)
    assert "from epoch 3 by worker worker-2" in text
    assert re.search(r"log: .*/worker-2\.log$", text, re.M)
    shown = went_on("show", "0", "--json").json
    assert (shown["worker"], Path(shown["log"]).name) == ("worker-2", "worker-2.log")
    legs = [{"from_epoch": 1, "worker": "worker-1"}, {"from_epoch": 3, "worker": "worker-2"}]
    assert shown["legs"] == legs
    (row,) = went_on("trials", "--json").json["trials"]
    assert (row["state"], row["worker"]) == ("FAIL", "worker-2")
    assert "out of garments" in row["error"]
    assert ",worker-2," in went_on("trials", "--csv").stdout


def test_a_report_has_the_rungs(finished: FinishedStudy, answers: dict[str, Answer]) -> None:
    """A table of them, cut cells by their epoch, and a figure of the trials' lives."""
    page = read_page(finished.shell, answers["report"])
    for words in ("Rungs", "epochs saved", "cut at epoch 1", "Trials in time", "Grey cells were cut at a rung"):
        assert words in page.text, words
    assert {"heat-map", "curves", "timeline"} <= page.ids
    text = next(finished.shell.folder.glob("*-report.html")).read_text()
    assert '"cut at 1"' in text
    assert '"cut here"' in text


def test_a_report_shows_what_is_parked(parked: Shell, parked_answers: dict[str, Answer]) -> None:
    """In the counts, the table, the heat map and the curves."""
    page = read_page(parked, parked_answers["report"])
    for words in ("4 parked", "to come", "purple ones are parked at a rung", "parked at epoch 2"):
        assert words in page.text, words
    text = (parked.folder / Path(parked_answers["report"].stdout.strip())).read_text()
    assert '"parked here"' in text
    assert text.count('"parked"') >= 4
