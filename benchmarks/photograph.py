"""A figure of Plotly as a PNG, drawn by a headless Chromium."""

import shutil
from pathlib import Path

import plotly.graph_objects as go
from playwright.sync_api import sync_playwright


def photograph(figure: go.Figure, width: int, height: int, file: Path) -> None:
    """Write a PNG of a figure that has this width and height in pixels."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_content(figure.to_html(include_plotlyjs=True, config={"displayModeBar": False}))
        page.locator(".main-svg").first.wait_for()
        page.locator(".js-plotly-plot").screenshot(path=file)
        browser.close()
