"""How a worker leaves: real processes and real signals, at every moment of its life."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fmnist_optuna.cli.departure import SLICE_SECONDS
from fmnist_optuna.statuses import Status

LEAVER = Path(__file__).with_name("leaver.py")
TERM, INT = signal.SIGTERM, signal.SIGINT
ENGINE = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)
SHORT, LONG = 3.5, 60.0  # grace in seconds, of which 3 are kept for giving back by force
pytestmark = pytest.mark.more


@dataclass(frozen=True)
class Left:
    """How a process left: its status, what it said, and seconds from the first signal to its end."""

    status: int
    lines: Sequence[str]
    errors: str
    seconds: float


def leave(
    how: str,
    *signals: int,
    grace: float = SHORT,
    max_time: float = 0.0,
    apart: float = 0.0,
    nohup: bool = False,
    slice_of_wait: float = SLICE_SECONDS,
) -> Left:
    """Start a process, send it signals once it is ready, and wait for its end."""
    given = [how, str(grace), str(max_time), "nohup" if nohup else "", str(slice_of_wait)]
    command = [sys.executable, str(LEAVER), *given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            began = time.monotonic()
            for number, signum in enumerate(signals):
                time.sleep(apart if number else 0.0)
                process.send_signal(signum)
            out, errors = process.communicate(timeout=30)
        finally:
            process.kill()
        return Left(process.returncode, out.splitlines(), errors, time.monotonic() - began)


@pytest.mark.parametrize("signum", ENGINE)
def test_an_engine_s_signal_ends_it_with_75(signum: signal.Signals) -> None:
    """In order, as what it does is told; the reason is the signal's name."""
    left = leave("works", signum)
    assert (left.status, left.lines) == (Status.HANDED_BACK, [f"in order: {signum.name}"])


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT])
def test_a_person_s_signal_has_its_own_status(signum: signal.Signals) -> None:
    """Nobody starts it again: 130 and 131."""
    left = leave("works", signum)
    assert (left.status, left.lines) == (128 + signum, [f"in order: {signum.name}"])


@pytest.mark.parametrize("signum", [*ENGINE, signal.SIGINT])
def test_what_holds_nothing_ends_at_once(signum: signal.Signals) -> None:
    """While TensorFlow is imported, say: whatever the grace."""
    left = leave("nothing held", signum, grace=LONG)
    assert left.status == (128 + signum if signum == INT else Status.HANDED_BACK)
    assert left.seconds < 6.0
    assert f"Left after {signum.name}" in left.errors


def test_a_call_that_does_not_return_is_left_behind() -> None:
    """The signal is heard within it; shortly before the grace is over all is given back from another thread."""
    left = leave("stuck", TERM)
    assert (left.status, left.lines) == (Status.HANDED_BACK, ["handed back"])
    assert 0.4 <= left.seconds < SHORT


def test_a_database_that_hangs_cannot_keep_it() -> None:
    """What cannot be given back in two seconds is left to its lease."""
    left = leave("stuck in handing back", TERM)
    assert (left.status, left.lines) == (Status.HANDED_BACK, [])
    assert left.seconds < SHORT + 1.0


def test_a_short_grace_is_kept_as_well() -> None:
    """One that is shorter than the two seconds: what hangs is left to its lease by then."""
    left = leave("stuck in handing back", TERM, grace=0.5)
    assert (left.status, left.lines) == (Status.HANDED_BACK, [])
    assert 0.5 <= left.seconds < 2.0


@pytest.mark.parametrize("seconds", [200_000 * 86_400.0, math.inf])
def test_it_hears_signals_however_long_it_may_take(seconds: float) -> None:
    """Under a limit of centuries and a grace as long: it is told to leave, and a second Ctrl-C ends it."""
    assert leave("works", TERM, max_time=seconds).lines == ["in order: SIGTERM"]
    assert leave("stuck", TERM, INT, grace=seconds, apart=0.7).status == Status.INTERRUPTED


def test_a_long_time_is_waited_for_in_slices() -> None:
    """Its time is not up at the end of the first slice."""
    left = leave("works", max_time=1.0, slice_of_wait=0.1)
    assert (left.status, left.lines) == (Status.HANDED_BACK, ["in order: --max-time"])
    assert left.seconds >= 0.5  # it is ready 0.1 s after its time began


def test_an_error_on_the_way_out_is_no_failure() -> None:
    """The database is away, or the signal to the group ended a child: what can be given back is, and 75 is right."""
    left = leave("breaks", TERM, grace=LONG)
    assert (left.status, left.lines) == (Status.HANDED_BACK, ["handed back"])
    assert "the database is away" in left.errors
    assert "Traceback" not in left.errors


@pytest.mark.parametrize("signals", [(TERM, TERM), (TERM, signal.SIGHUP, TERM), (signal.SIGUSR1, TERM), (INT, INT)])
def test_signals_to_the_group_and_by_the_parent_are_one(signals: Sequence[signal.Signals]) -> None:
    """sh, tini and srun pass on what the process has got already: nothing ends before what is held is given back."""
    left = leave("stuck", *signals)
    assert (left.status, left.lines) == (130 if signals[0] == INT else Status.HANDED_BACK, ["handed back"])
    assert left.seconds >= 0.4


def test_a_second_warning_much_later_changes_nothing() -> None:
    """Slurm sends SIGUSR1 first and SIGTERM at the end of the time: the first has set the end already."""
    left = leave("stuck", signal.SIGUSR1, TERM, grace=7.0, apart=3.5)
    assert (left.status, left.lines) == (Status.HANDED_BACK, ["handed back"])
    assert "Left after SIGUSR1" in left.errors
    assert 3.9 <= left.seconds < 7.0  # by the first signal after 4 s; the second alone would have given it until 7.5 s


@pytest.mark.parametrize("first", [INT, TERM])
def test_a_second_ctrl_c_ends_it_at_once(first: signal.Signals) -> None:
    """Nothing is given back: 130, in no time."""
    left = leave("stuck", first, INT, grace=LONG, apart=0.7)
    assert (left.status, left.lines) == (Status.INTERRUPTED, [])
    assert left.seconds < 6.0


def test_its_time_is_up_like_a_signal() -> None:
    """--max-time: what works is told to leave, with 75."""
    left = leave("works", max_time=0.5)
    assert (left.status, left.lines) == (Status.HANDED_BACK, ["in order: --max-time"])


def test_its_time_is_up_while_it_is_stuck() -> None:
    """The grace begins then, and at its end all is given back by force."""
    left = leave("stuck", max_time=0.5)
    assert (left.status, left.lines) == (Status.HANDED_BACK, ["handed back"])


def test_an_ignored_signal_stays_ignored() -> None:
    """Under nohup SIGHUP asks nothing: SIGTERM does, later."""
    left = leave("works", signal.SIGHUP, TERM, apart=0.5, nohup=True)
    assert (left.status, left.lines) == (Status.HANDED_BACK, ["in order: SIGTERM"])
    assert left.seconds >= 0.5


def test_a_signal_after_the_end_changes_no_status() -> None:
    """The study is finished, and Python is tidying up: 0 stays 0."""
    assert leave("is finished", TERM).status == Status.DONE


def test_a_whole_group_leaves_once() -> None:
    """A shell as parent, and the signal to both: the worker gives back what it holds."""
    script = f"{sys.executable} {LEAVER} stuck {SHORT} 0 '' {SLICE_SECONDS} & wait; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, process_group=0) as shell:
        try:
            assert shell.stdout is not None
            assert shell.stdout.readline() == "ready\n"
            os.killpg(shell.pid, TERM)
            assert shell.communicate(timeout=30)[0] == "handed back\n"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
