"""How long the cell of a killed worker stays without a holder: the installed command, real training, real signals.

    python benchmarks/recovery.py [--case supervised unsupervised elsewhere] [--kills 20] [--stalls 10] [--json FILE]

supervised    `run --workers 2`: a worker that holds a cell is killed at a random moment; its supervisor sees it end.
unsupervised  two `worker` commands on one cell: the holder is killed, the other finds a dead process of its host.
elsewhere     the same, but the holder is stopped by SIGSTOP: it lives and says nothing, as a lost host would, so its
              lease of SHORT_LEASE_SECONDS has to run out.

SQLite, polled every POLL_SECONDS. "given back" is when the cell's row no longer carries the killed worker's token,
"claimed again" when another attempt holds it. Only processes started here are signalled, and none is left.
"""

import argparse
import contextlib
import json
import random
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from databases import describe_machine
from tables import print_machine, print_table

sys.path.append(str(Path(__file__).parents[1] / "tests" / "acceptance"))

from shell import PACE, Shell, Started, kill

from fmnist_optuna.ledger.records import Timing
from fmnist_optuna.settings import DEFAULT_LEASE_SECONDS, LEASE_SECONDS

T = TypeVar("T")

POLL_SECONDS = 0.005
SHORT_LEASE_SECONDS = 6.0
EPOCH_SECONDS = 1.0  # supervised: long enough to be killed in, short enough for a result between two kills
ENDLESS_SECONDS = 3600.0  # unsupervised: the holder keeps its cell until it is killed
START_SECONDS = 120.0  # for a command to import TensorFlow on a busy machine
LONGEST_SECONDS = 90.0  # after so long without a holder the measurement is given up
LOOK_SECONDS = 0.6  # the supervisor counts finished cells twice a second; one between two kills, or it backs off
N_CELLS = 200  # supervised: more than are finished between so many kills

STUDY = """\
name = "recovery"
[data]
source = "synthetic"
[grid]
hidden_size = {sizes}
dropout_rate = [0.2]
learning_rate = [0.01]
[training]
max_epochs = 2
callbacks = ["pace:make"]
[pruner]
name = "none"
"""
HOLDERS = """
SELECT cells.cell_id, cells.token, cells.claims, workers.pid
FROM fmnist_cells AS cells JOIN fmnist_workers AS workers ON workers.worker_id = cells.worker
WHERE cells.state = 'running' AND cells.trial_id IS NOT NULL
"""
CELL = "SELECT state, token, claims FROM fmnist_cells WHERE cell_id = ?"
N_DONE = "SELECT count(*) FROM fmnist_cells WHERE state = 'done'"
WAITING_WORKERS = "SELECT pid FROM fmnist_workers WHERE last_seen > started"  # they said so after a look in vain


@dataclass(frozen=True)
class Held:
    """A cell in training, and by which process."""

    cell_id: str
    token: str
    claims: int
    pid: int


@dataclass(frozen=True)
class Gap:
    """Seconds from the signal until the cell was given back, and until another attempt held it."""

    given_back: float
    claimed_again: float


class Watch:
    """The study's database, read without ever locking it.

    Args:
        file: Which exists.
    """

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)

    def rows(self, statement: str, *values: Any) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()

    def holders(self) -> list[Held]:
        return [Held(*row) for row in self.rows(HOLDERS)]

    def measure_gap(self, held: Held) -> Gap:
        """Poll the cell's row, from now until another attempt holds it."""
        began, given_back = time.monotonic(), None
        while (now := time.monotonic()) - began < LONGEST_SECONDS:
            ((state, token, claims),) = self.rows(CELL, held.cell_id)
            if token != held.token and given_back is None:
                given_back = now - began
            if given_back is not None and state == "running" and claims > held.claims:
                return Gap(given_back, now - began)
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"the cell must be claimed again within {LONGEST_SECONDS:.0f} s, but is {state}")

    def close(self) -> None:
        self._connection.close()


def wait_for(ask: Callable[[], T], what: str) -> T:
    """Ask until the answer is something."""
    deadline = time.monotonic() + START_SECONDS
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"there must be {what} within {START_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
    return answer


@contextlib.contextmanager
def new_study(n_cells: int, epoch_seconds: float, lease_seconds: float) -> Iterator[tuple[Shell, Watch]]:
    """A folder with a study whose epochs take so long, and a view of its database."""
    with tempfile.TemporaryDirectory() as name:
        shell = Shell(Path(name)).with_variables(**{LEASE_SECONDS: str(lease_seconds)})
        shell.write("pace.py", PACE)
        shell.write("pace", str(epoch_seconds))
        answer = shell("init", shell.write("study.toml", STUDY.format(sizes=list(range(8, 8 + n_cells)))))
        if answer.code != 0:
            raise RuntimeError(f"init must succeed, but ended with {answer.code}: {answer.stderr}")
        watch = Watch(shell.database)
        try:
            yield shell, watch
        finally:
            watch.close()


def measure_supervised(n_kills: int) -> list[Gap]:
    gaps: list[Gap] = []
    with (
        new_study(N_CELLS, EPOCH_SECONDS, DEFAULT_LEASE_SECONDS) as (shell, watch),
        shell.start("run", "study.toml", "--workers", "2") as run,
    ):
        for _ in range(n_kills):
            ((n_done,),) = watch.rows(N_DONE)
            wait_for(lambda: watch.rows(N_DONE)[0][0] > n_done, "a result")  # noqa: B023
            time.sleep(LOOK_SECONDS + random.uniform(0, 2 * EPOCH_SECONDS))  # anywhere in a trial
            gaps.append(kill_one(run, watch))
            say_gap("supervised", gaps)
    return gaps


def kill_one(run: Started, watch: Watch) -> Gap:
    """Kill a worker of `run` that holds a cell."""
    processes = {process.pid: process for process in run.descendants()}
    held = random.choice(wait_for(lambda: [h for h in watch.holders() if h.pid in processes], "a holder"))
    kill(processes[held.pid])
    return watch.measure_gap(held)


def measure_pairs(case: str, signum: int, lease_seconds: float, n_times: int) -> list[Gap]:
    """Two workers on one cell: the holder gets the signal, the other takes the cell, a new one takes its place."""
    gaps: list[Gap] = []
    poll_seconds = Timing.for_lease(lease_seconds).poll_seconds
    with new_study(1, ENDLESS_SECONDS, lease_seconds) as (shell, watch), contextlib.ExitStack() as stack:
        holder = stack.enter_context(shell.start("worker", "recovery"))
        for _ in range(n_times):
            wait_for(lambda: [h for h in watch.holders() if h.pid == holder.pid], "a holder")  # noqa: B023
            other = stack.enter_context(shell.start("worker", "recovery"))
            wait_for(lambda: (other.pid,) in watch.rows(WAITING_WORKERS), "a worker that waits")  # noqa: B023
            time.sleep(random.uniform(0, poll_seconds))  # anywhere between two looks of the other
            (held,) = watch.holders()
            holder.process.send_signal(signum)
            gaps.append(watch.measure_gap(held))
            holder.process.kill()
            holder.process.wait()
            holder = other
            say_gap(case, gaps)
    return gaps


def say_gap(case: str, gaps: Sequence[Gap]) -> None:
    gap = gaps[-1]
    line = f"{case} {len(gaps)}: given back after {gap.given_back:.3f} s, claimed again after {gap.claimed_again:.3f} s"
    print(line, file=sys.stderr, flush=True)


def summarise(case: str, promise: str, gaps: Sequence[Gap]) -> dict[str, Any]:
    given_back, claimed_again = [g.given_back for g in gaps], [g.claimed_again for g in gaps]
    return {
        "case": case,
        "promise": promise,
        "times": len(gaps),
        "given_back_seconds_median": statistics.median(given_back),
        "given_back_seconds_max": max(given_back),
        "claimed_again_seconds_median": statistics.median(claimed_again),
        "claimed_again_seconds_max": max(claimed_again),
        "given_back_seconds": given_back,
        "claimed_again_seconds": claimed_again,
    }


def measure(case: str, options: argparse.Namespace) -> dict[str, Any]:
    if case == "supervised":
        return summarise(case, "the supervisor's look", measure_supervised(options.kills))
    if case == "unsupervised":
        poll_seconds = Timing.for_lease(DEFAULT_LEASE_SECONDS).poll_seconds
        gaps = measure_pairs(case, signal.SIGKILL, DEFAULT_LEASE_SECONDS, options.kills)
        return summarise(case, f"poll, {poll_seconds:g} s", gaps)
    bound_seconds = SHORT_LEASE_SECONDS + 2 * Timing.for_lease(SHORT_LEASE_SECONDS).poll_seconds
    gaps = measure_pairs(case, signal.SIGSTOP, SHORT_LEASE_SECONDS, options.stalls)
    return summarise(case, f"lease + two polls, {bound_seconds:g} s", gaps)


CASES = ("supervised", "unsupervised", "elsewhere")


def main() -> None:
    parser = argparse.ArgumentParser(description="How long the cell of a killed worker stays without a holder")
    parser.add_argument("--case", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--kills", type=int, default=20, help="of the first two cases, each")
    parser.add_argument("--stalls", type=int, default=10, help="of the third")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every single time")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended on the way out
    machine = describe_machine()
    print_machine(machine)
    rows = []
    for case in options.case:
        rows.append(measure(case, options))
        if options.json:
            options.json.write_text(json.dumps({"machine": machine, "cases": rows}, indent=1))
    print_table(
        "Seconds from the signal until the cell was given back, and until another attempt held it.",
        ("case", "promise", "times", "given back: median", "max", "claimed again: median", "max"),
        [
            (row["case"], row["promise"], row["times"], *(f"{row[name]:.2f}" for name in row if "_seconds_m" in name))
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
