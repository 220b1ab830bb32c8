"""The lines of `run` on a terminal."""

from typing import cast

import pytest
from rich.table import Table

from fmnist_optuna.cli.live import LiveObserver, make_observer
from fmnist_optuna.cli.options import Common


def test_brackets_in_a_table_are_no_markup(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor in the tables of the view: a value such as `a[/b]` is neither swallowed nor an error."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    observer = cast("LiveObserver", make_observer(Common(None, 1.0, "text", 20)))
    table = Table("kind")
    table.add_row("conv[small] a[/b]")
    observer._live.console.print(table)
    assert "conv[small] a[/b]" in capsys.readouterr().err


def test_colons_in_a_line_are_no_emoji(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A value such as `conv:x:3` stands there as it was written."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes a terminal of what is captured
    observer = make_observer(Common(None, 1.0, "text", 20))
    cast("LiveObserver", observer).line("kind conv:x:3, [bold]up:on:down[/]")
    assert isinstance(observer, LiveObserver)
    assert capsys.readouterr().err == "kind conv:x:3, [bold]up:on:down[/]\n"
