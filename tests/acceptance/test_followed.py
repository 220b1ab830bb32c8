"""A run as other programs follow it: its events, and the numbers of its worker and its dashboard over HTTP."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from grafana import check_expressions
from prometheus_client.parser import text_string_to_metric_families
from shell import SMOKE, TIMEOUT_SECONDS, Shell, Started, ask, make_paced, wait_for_address

from fmnist_optuna.events.file import PAGE_BYTES
from fmnist_optuna.events.schema import COMMON, EVENTS

RUNGS = SMOKE.replace('"smoke"', '"rungs"').replace('name = "none"', 'name = "ladder"\nfirst_rung = 1')
KINDS: dict[str, type | tuple[type, ...]] = {"text": str, "integer": int, "number": (int, float), "object": dict}


def check_line(line: dict[str, Any]) -> None:
    """Compare a line with the table of events."""
    fields = {**COMMON, **EVENTS[line["event"]][1]}
    assert list(line) == list(fields)
    for name, (kind, _) in fields.items():
        value, name_of_kind = line[name], kind.removesuffix(" or null")
        assert isinstance(value, KINDS[name_of_kind]) or (value is None and kind.endswith(" or null")), (name, line)
    assert datetime.fromisoformat(line["time"]).tzinfo == UTC


@pytest.mark.more
def test_a_run_tells_its_events(shell: Shell) -> None:
    """All that the ledger has, in lines as documented; human lines go to stderr; a second run has no new result."""
    shell.write("rungs.toml", RUNGS)
    answer = shell("run", "rungs.toml", "--workers", "2", "--events", "-")
    assert answer.code == 0, answer.stderr
    assert "Winner of rungs" in answer.stderr
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    for line in lines:
        check_line(line)
    assert {line["study"] for line in lines} == {"rungs"}
    assert (lines[0]["event"], lines[-1]["event"], lines[-1]["how"]) == ("study_started", "study_ended", "finished")

    def told(event: str, *fields: str) -> list[tuple[Any, ...]]:
        return sorted(tuple(line[field] for field in fields) for line in lines if line["event"] == event)

    numbers = (
        "SELECT cell_id, trial_number, epoch, e.val_accuracy FROM fmnist_epochs e JOIN fmnist_cells USING (trial_id)"
    )
    assert told("epoch_ended", "cell", "trial", "epoch", "val_accuracy") == sorted(shell.query(numbers))
    results = "SELECT cell_id, trial_number, result, value FROM fmnist_cells"
    assert told("trial_ended", "cell", "trial", "state", "value") == sorted(shell.query(results))
    decisions = shell.query("SELECT rung, n_parked, n_cut FROM fmnist_decisions")
    assert sorted(
        told("rung_decided", "rung", "cells", "cut") + told("went_on_ahead", "rung", "cells", "cut")
    ) == sorted(decisions)
    claims = [line for line in lines if line["event"] == "cell_claimed"]
    assert len([line for line in claims if line["trial"] is None]) == len(told("trial_began", "cell")) == 4
    again = shell("run", "rungs.toml", "--events", "events.ndjson")
    assert again.code == 0, again.stderr
    kept = [json.loads(line) for line in (shell.folder / "events.ndjson").read_text().splitlines()]
    assert [line["event"] for line in kept] == ["study_started", "winner", "study_ended"]
    assert kept[1]["trial"] == told("winner", "trial")[0][0]


@pytest.mark.more
def test_a_confirmation_tells_its_events(smoke_copy: Shell) -> None:
    """The study that is confirmed begins and ends around the one that is trained; with --json a file has the lines."""
    refused = smoke_copy("confirm", "--json", "--events", "-")
    assert (refused.code, refused.stdout) == (2, "")
    typed = ("confirm", "--top", "1", "--seeds", "2", "--workers", "2")
    answer = smoke_copy(*typed, "--events", "-")
    assert answer.code == 0, answer.stderr
    assert "for the confirmed mean" in answer.stderr
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    for line in lines:
        check_line(line)
    about_studies = [(line["event"], line["study"]) for line in lines if line["event"].startswith("study_")]
    assert about_studies == [
        ("study_started", "smoke"), ("study_started", "smoke/confirm"),
        ("study_ended", "smoke/confirm"), ("study_ended", "smoke"),
    ]  # fmt: skip
    assert [lines[1]["new_cells"], lines[-1]["how"]] == [2, "finished"]
    results = [(line["cell"], line["study"], line["value"]) for line in lines if line["event"] == "trial_ended"]
    kept = smoke_copy.query(
        "SELECT cell_id, study_name, value FROM fmnist_cells JOIN fmnist_studies USING (study_id) WHERE parent_id > 0"
    )
    assert (len(kept), sorted(results)) == (2, sorted(kept))
    again = smoke_copy(*typed, "--json", "--events", "events.ndjson")
    assert again.code == 0, again.stderr
    winner = next(line for line in lines if line["event"] == "winner")
    assert (winner["study"], winner["trial"]) == ("smoke", again.json["trial"])
    events = [json.loads(line)["event"] for line in (smoke_copy.folder / "events.ndjson").read_text().splitlines()]
    assert events == ["study_started", "winner", "study_ended"]


def values_of(text: str, name: str) -> dict[str, float]:
    """The samples of a name, by their state or ""."""
    families = text_string_to_metric_families(text)
    return {s.labels.get("state", ""): s.value for family in families for s in family.samples if s.name == name}


def stop(started: Started) -> None:
    psutil.Process(started.pid).terminate()
    started.wait()


@pytest.mark.more
def test_a_monitor_is_answered_while_cells_are_trained(tmp_path: Path) -> None:
    """By the worker of what it did, by the dashboard of the study; both are well, and are all that Grafana asks for."""
    shell = make_paced(tmp_path / "watched", 2.0)
    assert shell("init", "study.toml").code == 0
    with shell.start("worker", "--metrics-port", "0", "--events", "w.ndjson") as worker, shell.start(
        "dashboard", "--port", "0"
    ) as dashboard:  # fmt: skip
        of_worker = wait_for_address(worker, shell.folder / "0.stderr", r"metrics: (http://127\.0\.0\.1:\d+)/metrics")
        of_dashboard = wait_for_address(dashboard, shell.folder / "1.stdout", r"^(http://127\.0\.0\.1:\d+)/dashboard")
        shell.wait_for("SELECT * FROM fmnist_cells WHERE state = 'done'", 1)
        shell.wait_for("SELECT * FROM fmnist_cells WHERE state = 'running'", 1)
        pages = [ask(f"{address}/metrics") for address in (of_worker, of_dashboard)]
        healths = [ask(f"{address}/healthz") for address in (of_worker, of_dashboard)]
        elsewhere = ask(f"{of_worker}/dashboard")
        stop(worker)
        stop(dashboard)
    assert (healths, elsewhere[0]) == ([(200, b"ok"), (200, b"ok")], 404)
    assert [status for status, _ in pages] == [200, 200]
    worker_page, study_page = (text.decode() for _, text in pages)
    check_expressions(worker_page + study_page)
    cells = values_of(study_page, "fmnist_optuna_cells")
    assert (sum(cells.values()), cells["complete"], cells["running"]) == (2, 1, 1)
    assert values_of(study_page, "fmnist_optuna_workers") == {"": 1}
    assert values_of(study_page, "fmnist_optuna_epochs_total")[""] >= 2
    assert values_of(worker_page, "fmnist_optuna_worker_trials_total")["complete"] == 1
    assert values_of(worker_page, "fmnist_optuna_worker_claim_seconds_count") == {"": 2}
    for line in (shell.folder / "w.ndjson").read_text().splitlines():
        check_line(json.loads(line))


WRITER = """
import logging, sys
from pathlib import Path
from fmnist_optuna.events.file import EventFile
file = EventFile(Path(sys.argv[1]))
n = 0
while True:
    file.write("worker_failed", {"worker": sys.argv[2], "trial": n, "error": "x" * (n * 37 % 500)})
    n += 1
"""


@pytest.mark.more
def test_kills_leave_no_half_line(tmp_path: Path) -> None:
    """Three writers are killed again and again: all lines are whole, in the order of each, and none crosses a page."""
    file = tmp_path / "events.ndjson"
    for turn in range(8):
        writers = [subprocess.Popen([sys.executable, "-c", WRITER, file, f"{turn}-{n}"]) for n in range(3)]
        try:
            size = file.stat().st_size if file.exists() else 0
            deadline = time.monotonic() + TIMEOUT_SECONDS
            while not file.exists() or file.stat().st_size < size + 20 * PAGE_BYTES:
                assert time.monotonic() < deadline, f"turn {turn}"
                time.sleep(0.01)
        finally:
            for writer in writers:
                writer.kill()
                writer.wait()
    seen: dict[str, int] = {}
    begin = 0
    for line in file.read_bytes().splitlines(keepends=True):
        first, begin = begin + len(line) - len(line.lstrip(b" ")), begin + len(line)
        if line.strip():
            assert first // PAGE_BYTES == (begin - 1) // PAGE_BYTES  # a kill within a write ends it at such a border
            event = json.loads(line)
            assert event["trial"] == seen.get(event["worker"], -1) + 1
            seen[event["worker"]] = event["trial"]
    assert len(seen) >= 8


@pytest.mark.more
def test_events_that_nobody_takes_hurt_no_training(shell: Shell) -> None:
    """A full disk: one warning of the command, and the study is done; with --json, stdout is not for events."""
    shell.write("rungs.toml", RUNGS)
    answer = shell("run", "rungs.toml", "--workers", "2", "--events", "/dev/full")
    assert answer.code == 0, answer.stderr
    assert answer.stderr.count("events_not_written") == 1
    assert "No space left on device" in answer.stderr
    refused = shell("run", "rungs.toml", "--json", "--events", "-")
    assert (refused.code, refused.errors) == (
        2, ["Error: --events must name a file where --json is given, but got -: both would write to stdout."],
    )  # fmt: skip
