"""The dashboard and the report as a person sees them: real pages in headless Chromium, also while workers write.

Environment:
    CHROMIUM: The browser's program, else `chromium` or `google-chrome` on the path.
    CI: A missing browser fails the tests instead of skipping them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from needed import do_without
from shell import FinishedStudy, Shell, make_paced, wait_for_address

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page
    from playwright.sync_api._generated import LocatorAssertions

pytestmark = pytest.mark.more

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 30_000  # of a page on two busy cores
FIGURES = ("heat-map", "curves", "parallel", "timeline", "confusion")


def expect(found: Locator) -> LocatorAssertions:
    """What playwright waits for."""
    from playwright.sync_api import expect  # as in the fixture below

    return expect(found)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        message = f"A browser must be there for this test, but none of {', '.join(PROGRAMS)} is; CHROMIUM may name one."
        do_without(message)
    from playwright.sync_api import sync_playwright  # which takes a second: not where this file is only collected

    with sync_playwright() as playwright:
        # Root may not use the sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Tab:
    """A page whose complaints are kept: errors in the console, exceptions, answers of 400 and above."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda said: self._keep(said.type == "error", said.text))
        page.on("pageerror", lambda error: self._keep(True, str(error)))
        page.on("response", lambda answer: self._keep(answer.status >= 400, f"{answer.status} {answer.url}"))
        page.on("request", lambda request: self.requests.append(request.url))

    def _keep(self, is_complaint: bool, text: str) -> None:
        if is_complaint:
            self.complaints.append(text)

    def shows(self, text: str) -> None:
        """Wait until the page shows a text."""
        expect(self.page.get_by_text(text).filter(visible=True).first).to_be_visible(timeout=PATIENCE_MS)


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """A new page."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield Tab(context.new_page())
    context.close()


@pytest.fixture(scope="module")
def dashboard(smoke: FinishedStudy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a read-only dashboard on the finished smoke study."""
    folder = tmp_path_factory.mktemp("shown") / "copy"
    shutil.copytree(smoke.shell.folder, folder)
    with Shell(folder).start("dashboard", "--port", "0") as started:
        yield wait_for_address(started, folder / "0.stdout")


@pytest.fixture(scope="module")
def report(smoke: FinishedStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the smoke study."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    made = smoke.shell("report", "--out", file)
    assert made.code == 0, made.stderr
    return file


def test_the_list_the_study_and_its_figures(dashboard: str, tab: Tab) -> None:
    """From the list of studies to the study's page: history, importance or curves, our figures, pictures."""
    tab.page.goto(dashboard)
    tab.shows("smoke")
    tab.page.get_by_text(re.compile(r"1\. smoke")).click()
    for title in ("History", "Timeline", "Intermediate values", "Study Artifacts"):
        tab.shows(title)
    tab.shows(" since the first trial began")
    tab.shows("dropout_rate")
    expect(tab.page.get_by_alt_text("confusion-matrix.png")).to_have_count(1)
    assert tab.complaints == []


def test_the_best_trial_has_its_note_pictures_and_weights(dashboard: str, tab: Tab, smoke: FinishedStudy) -> None:
    """The note says what it scored; both pictures are drawn; the weights can be had."""
    best = smoke.shell("best", "--json").json
    tab.page.goto(f"{dashboard}/studies/1/trials?numbers={best['trial']}")
    tab.shows("Named winner")
    tab.shows(f"test accuracy {100 * best['test_accuracy']:.2f} %")
    tab.shows("trial.weights.h5")
    pictures = tab.page.locator("img[alt^='trial-']")
    expect(pictures).to_have_count(2)
    drawn = "image => new Promise(done => image.complete ? done() : image.onload = image.onerror = done)"
    for picture in pictures.all():
        picture.evaluate(drawn)
        assert picture.evaluate("image => image.naturalWidth") > 300
    assert tab.complaints == []


def test_nothing_that_would_be_refused_is_offered(dashboard: str, tab: Tab) -> None:
    """No button to make, rename, delete, edit or upload; a DELETE from the page itself is refused."""
    for path in ("", "/studies/1", "/studies/1/trials?numbers=0", "/studies/1/note"):
        tab.page.goto(dashboard + path)
        tab.shows("smoke")
        tab.page.wait_for_load_state("networkidle")
        offered = tab.page.locator("button:visible").all_inner_texts()
        assert not [text for text in offered if re.search("create|delete|upload", text, re.IGNORECASE)]
        assert tab.page.locator("[data-testid=EditIcon]:visible, [data-testid=DeleteIcon]:visible").count() == 0
    status = tab.page.evaluate("fetch('/api/studies/1', {method: 'DELETE'}).then(answer => answer.status)")
    assert status == 405


@pytest.fixture(scope="module")
def writable(smoke: FinishedStudy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The link of a writable dashboard on the finished smoke study."""
    folder = tmp_path_factory.mktemp("writable") / "copy"
    shutil.copytree(smoke.shell.folder, folder)
    with Shell(folder).start("dashboard", "smoke", "--writable", "--port", "0") as started:
        yield wait_for_address(started, folder / "0.stdout")


def test_a_link_with_a_token_opens_a_page_that_writes(writable: str, tab: Tab) -> None:
    """The token leaves the address, the page shows all and asks nobody else; its own change is let through."""
    page, _, token = writable.partition("?token=")
    tab.page.goto(writable)
    assert tab.page.url == page
    tab.shows("History")
    tab.page.goto(page.replace("studies/1", "studies/1/analytics"))
    tab.shows("Empirical Distribution")
    origin = page.partition("/dashboard")[0]
    assert not [url for url in tab.requests if not url.startswith((origin, "data:", "blob:"))]
    assert tab.complaints == []
    body = json.dumps({"study_name": "made", "directions": ["maximize"]})
    change = (
        f"fetch('/api/studies', {{method: 'POST', body: '{body}', headers: {{'Content-Type': 'application/json'}}}})"
    )
    assert tab.page.evaluate(f"{change}.then(answer => answer.status)") == 201
    assert token not in tab.page.content()
    assert tab.page.evaluate("document.cookie") == ""


def test_a_link_works_from_another_site_which_sees_nothing(writable: str, tab: Tab, tmp_path: Path) -> None:
    """A click in a mail or a chat opens the page; a frame or a request of that site gets nothing."""
    page, _, _ = writable.partition("?token=")
    other = tmp_path / "other.html"
    other.write_text(f'<a href="{writable}">link</a><iframe src="{page}"></iframe>')
    tab.page.goto(other.as_uri())
    read = f"fetch('{page}').then(answer => answer.text()).catch(() => 'nothing')"
    assert tab.page.evaluate(read) == "nothing"
    tab.page.get_by_text("link").click()
    tab.shows("History")
    assert tab.page.url == page
    tab.page.goto(other.as_uri())
    assert tab.page.evaluate(read) == "nothing"
    assert tab.page.frames[1].evaluate("document.body.innerText.includes('smoke')") is False


def test_a_study_that_workers_write_to(tmp_path: Path, tab: Tab) -> None:
    """The page is whole while a worker trains."""
    shell = make_paced(tmp_path / "paced", 2)
    with shell.start("run", "study.toml", "--workers", "1", "--dashboard", "--dashboard-port", "0") as started:
        address = wait_for_address(started, shell.folder / "0.stderr")
        shell.wait_for("SELECT 1 FROM trial_intermediate_values")
        tab.page.goto(address)
        tab.shows("History")
        tab.shows("Intermediate values")
        assert tab.complaints == []
        (shell.folder / "pace").unlink()
        assert started.wait().code == 0


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(400, "light"), (1600, "dark"), (1000, "light")],
)
def test_a_report_draws_all_figures_offline(
    browser: Browser, report: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    """Opened from disk it asks nobody for anything, draws each figure, and is no wider than the window."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    try:
        tab = Tab(context.new_page())
        tab.page.goto(report.as_uri())
        for name in FIGURES:
            expect(tab.page.locator(f"#{name} .main-svg").first).to_be_visible(timeout=PATIENCE_MS)
        assert tab.complaints == []
        assert [url for url in tab.requests if not url.startswith(("data:", "blob:"))] == [report.as_uri()]
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    finally:
        context.close()
