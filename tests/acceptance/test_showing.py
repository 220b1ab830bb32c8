"""`report` and `dashboard`: one page that opens from disk, and the studies in a browser, which cannot change them."""

import json
import re
import signal
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from shell import FinishedStudy, Shell, ask, make_paced, wait_for_address, wait_until_gone
from small_study import begin_trial, claim_cell, create_study, finish_cell, finish_trial, make_spec

from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.study.session import Session

FIGURES = {"heat-map", "curves", "parallel", "timeline", "confusion"}  # of a study too small for importances


class Page(HTMLParser):
    """What a page shows and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.loaded: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self._is_shown = True
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._is_shown = tag not in ("script", "style")
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            if name in ("src", "href") and not (value or "").startswith("data:image/png;base64,"):
                self.loaded.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        self._is_shown = True

    def handle_data(self, data: str) -> None:
        if self._is_shown:
            self.words.append(data)

    @property
    def text(self) -> str:
        """The words, with single spaces."""
        return " ".join(" ".join(self.words).split())


def make_report(shell: Shell, *arguments: str) -> Page:
    """Make a report and read it."""
    made = shell("report", *arguments)
    assert made.code == 0, made.stderr
    return Page((shell.folder / made.stdout.strip()).read_text())


@pytest.fixture(scope="module")
def report(smoke: FinishedStudy) -> Iterator[Page]:
    """The page of the finished smoke study."""
    yield make_report(smoke.shell)
    (smoke.shell.folder / "smoke-report.html").unlink()


def test_a_report_has_its_figures_and_loads_nothing(report: Page) -> None:
    """All is within the file: it opens offline."""
    assert report.ids >= FIGURES
    assert report.loaded == []
    assert "SYNTHETIC" in report.text


def test_a_report_says_what_best_says(report: Page, smoke: FinishedStudy) -> None:
    """The same winner, with the same figures."""
    best = smoke.shell("best", "--json").json
    assert f"{100 * best['val_accuracy']:.2f} % validation accuracy, trial {best['trial']}" in report.text
    assert f"{100 * best['test_accuracy']:.2f} % test accuracy" in report.text
    assert f"fmnist-optuna reproduce {best['trial']} smoke" in report.text
    for name, value in best["params"].items():
        assert f"{name} {value:g}" in report.text


def test_a_report_shows_the_openings_and_mistakes(report: Page) -> None:
    """One opening; twelve pictures of surest mistakes, as the data can be drawn again."""
    assert len(re.findall(r"UTC winner \d", report.text)) == 1
    assert report.tags.count("img") == 12


def test_a_report_of_a_half_done_study_escapes_what_users_name(shell: Shell) -> None:
    """Markup in the values of a grid shows as it was written; an unfinished study is a page too."""
    evil = "<img src=x onerror=alert(1)>"
    shell.database.parent.mkdir()
    url = f"sqlite:///{shell.database}"
    storage = create_storage(StorageOptions(url))
    spec = make_spec({"hidden_size": [8], "kind": [evil, "</script><script>alert(1)</script>"]})
    session = Session(storage, create_study(storage, spec), "tester")
    page = make_report(shell)
    assert "0 of 2 cells done" in page.text
    assert "No trial is complete yet" in page.text
    assert "heat-map" in page.ids
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    finish_trial(session, trial_id, 0.5)
    finish_cell(session, claim, trial_id)
    storage.close()
    page = make_report(shell)
    assert "1 of 2 cells done" in page.text
    assert evil in page.text
    assert page.tags.count("img") == 0
    assert page.tags.count("script") == 2 + len([name for name in page.ids if name.endswith("-data")])
    assert page.loaded == []


def test_a_report_that_cannot_be_written_is_refused(smoke: FinishedStudy) -> None:
    """One line, and no half of a file."""
    before = smoke.shell.files()
    refused = smoke.shell("report", "--out", "nowhere/report.html")
    assert (refused.code, refused.stdout, len(refused.errors)) == (5, "", 1)
    assert "nowhere/report.html" in refused.errors[0]
    assert smoke.shell.files() - {"studies/studies.db-wal", "studies/studies.db-shm"} <= before


# Dashboard


def test_a_dashboard_shows_and_refuses_to_change(smoke_copy: Shell) -> None:
    """GET answers, everything else is 405; SIGTERM ends it cleanly."""
    with smoke_copy.start("dashboard", "--port", "0") as started:
        page = wait_for_address(started, smoke_copy.folder / "0.stdout")
        base = page.removesuffix("/dashboard")
        assert ask(page)[0] == 200
        studies = json.loads(ask(f"{base}/api/studies")[1])["study_summaries"]
        assert [study["study_name"] for study in studies] == ["smoke"]
        for method in ("DELETE", "POST", "PUT", "PATCH", "OPTIONS"):
            assert ask(f"{base}/api/studies/{studies[0]['study_id']}", method)[0] == 405
        started.process.send_signal(signal.SIGTERM)
        ended = started.wait()
    assert (ended.code, ended.stdout) == (0, f"{page}\n")
    assert smoke_copy("verify").code == 0


def test_a_writable_dashboard_may_delete(smoke_copy: Shell) -> None:
    """Only when asked, and only with the token of the link, which is printed once; no browser has it as an argument."""
    browser = smoke_copy.write("browser", '#!/bin/sh\necho "$@" > arguments\ncp "${1#file://}" opened.html\n')
    browser.chmod(0o755)
    shell = smoke_copy.with_variables(BROWSER=f"{browser} %s")
    with shell.start("dashboard", "smoke", "--writable", "--port", "0", "--open") as started:
        page, _, token = wait_for_address(started, smoke_copy.folder / "0.stdout").partition("?token=")
        assert page.endswith("/dashboard/studies/1")
        study = page.replace("/dashboard/studies/1", "/api/studies/1")
        assert [ask(study)[0], ask(study, "DELETE")[0]] == [401, 401]
        assert ask(study, "DELETE", token)[0] == 204
        deadline = time.monotonic() + 20
        while not (opened := shell.folder / "opened.html").exists() or not opened.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert f"{page}?token={token}" in opened.read_text()
        assert token not in (shell.folder / "arguments").read_text()
        started.process.send_signal(signal.SIGTERM)
        ended = started.wait()
    assert ended.stdout == f"{page}?token={token}\n"
    assert "WRITABLE" in ended.stderr
    assert token not in ended.stderr


def test_a_taken_port_is_refused(smoke_copy: Shell) -> None:
    """One line that names it."""
    with smoke_copy.start("dashboard", "--port", "0") as started:
        page = wait_for_address(started, smoke_copy.folder / "0.stdout")
        port = page.split(":")[2].split("/")[0]
        refused = smoke_copy("dashboard", "--port", port)
    assert (refused.code, len(refused.errors)) == (2, 1)
    assert f"127.0.0.1:{port}" in refused.errors[0]


@pytest.mark.slow
def test_a_run_with_a_dashboard_shows_it_and_takes_it_along(tmp_path: Path) -> None:
    """The address is said; the page is there while it trains; a killed run leaves nothing behind."""
    shell = make_paced(tmp_path / "paced", 3)
    with shell.start("run", "study.toml", "--workers", "1", "--dashboard", "--dashboard-port", "0") as started:
        page = wait_for_address(started, shell.folder / "0.stderr")
        shell.wait_for("SELECT 1 FROM trials WHERE state = 'RUNNING'")
        studies = json.loads(ask(page.split("/dashboard")[0] + "/api/studies")[1])["study_summaries"]
        assert [study["study_name"] for study in studies] == ["small"]
        others = started.descendants()
        started.process.kill()
        started.process.wait()
        assert wait_until_gone(others, 20) == []


def test_a_finished_study_has_note_figures_and_pictures(smoke: FinishedStudy) -> None:
    """What a dashboard shows beyond the trials was written by the run."""
    names = {name for (name,) in smoke.shell.query("SELECT key FROM study_system_attributes")}
    assert "dashboard:note_ver" in names
    for figure in ("grid", "curves", "timeline"):
        assert any(f":{figure}:" in name for name in names), figure
    stored = [value for (value,) in smoke.shell.query(
        "SELECT value_json FROM study_system_attributes WHERE key LIKE 'artifacts:%'")]  # fmt: skip
    assert sorted(json.loads(json.loads(value))["filename"].split("-", 2)[2] for value in stored) == [
        "confusion-matrix.png",
        "learning-curve.svg",
    ]
