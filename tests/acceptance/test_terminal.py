"""What a person sees at a terminal of 80 columns and 24 lines."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pyte
import pytest
from shell import COMMAND, TIMEOUT_SECONDS, Shell, make_paced

COLUMNS, LINES = 80, 24


class Terminal:
    """A command at a terminal, and the screen that it draws."""

    def __init__(self, shell: Shell, *typed: str) -> None:
        environment = {key: value for key, value in shell.environment.items() if key != "COLUMNS"}
        self.child = pexpect.spawn(
            str(COMMAND), list(typed), cwd=str(shell.folder), env={**environment, "TERM": "xterm-256color"},
            encoding="utf-8", dimensions=(LINES, COLUMNS), timeout=TIMEOUT_SECONDS,
        )  # fmt: skip
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.Stream(self._screen)

    @property
    def lines(self) -> list[str]:
        """The screen as it is."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def is_cursor_shown(self) -> bool:
        """Whether the person sees where typing goes."""
        return not self._screen.cursor.hidden

    def wait_for(self, is_there: Callable[[list[str]], bool]) -> list[str]:
        """Read on until the screen shows something."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            try:
                self._stream.feed(self.child.read_nonblocking(4096, timeout=1))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                break
            if is_there(self.lines):
                return self.lines
        raise AssertionError("the screen must show it, but ended as:\n" + "\n".join(self.lines))

    def end(self) -> int:
        """Read to the end; returns the exit status."""
        while True:
            try:
                self._stream.feed(self.child.read_nonblocking(4096, timeout=TIMEOUT_SECONDS))
            except pexpect.EOF:
                break
        self.child.close()
        return int(self.child.exitstatus if self.child.exitstatus is not None else -self.child.signalstatus)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Terminal]:
    """A run with one worker, a second for each epoch."""
    terminal = Terminal(make_paced(tmp_path / "study", 1.0), "run", "study.toml", "--workers", "1")
    yield terminal
    terminal.child.close(force=True)


def has(*words: str) -> Callable[[list[str]], bool]:
    """Whether the screen shows all of these."""
    return lambda lines: all(any(word in line for line in lines) for word in words)


@pytest.mark.more
def test_the_live_view_shows_bar_worker_and_best(run: Terminal) -> None:
    """A bar over the cells, a line for each worker with its curve, the best so far; then only the answer stands."""
    lines = run.wait_for(has("0/2 cells", "worker", "best so far: none yet"))
    assert any("━" in line for line in lines)
    assert any(line.split()[:4] == ["1", "16", "0.2", "0.001"] or "16 0.2" in line for line in lines)
    lines = run.wait_for(has("1/2 cells", "best so far: "))
    assert any("by trial 0 (hidden_size 16" in line for line in lines)
    assert run.end() == 0
    shown = run.lines
    assert any(line.startswith("Winner of small (SYNTHETIC") for line in shown)
    assert any(line.startswith("Next: fmnist-optuna verify small") for line in shown)
    assert not any("/2 cells " in line or "best so far" in line for line in shown)
    assert run.is_cursor_shown


@pytest.mark.slow
def test_ctrl_c_at_the_terminal_says_what_happens_and_exits_130(run: Terminal) -> None:
    """The first Ctrl-C is acknowledged, the view is cleared away, and the last line says how to go on."""
    run.wait_for(has("0/2 cells", "worker"))
    run.child.sendintr()
    run.wait_for(has("Stopping"))
    assert run.end() == 130
    text = " ".join(" ".join(run.lines).split())  # the terminal breaks lines where it likes
    assert "workers finish their epoch" in text
    assert "run it again to go on" in text
    assert "Traceback" not in text
    assert run.is_cursor_shown
