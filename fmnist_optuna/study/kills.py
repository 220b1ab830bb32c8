"""Whether a cell is to blame when the processes that train it are killed, or whether kills come from outside.

Nobody tells who sent a signal 9: the system for want of memory, a person, a test that kills at random. What can be
known is who was hit. Kills from outside hit any attempt; a cell that needs more memory than there is dies each time,
while the others come through. So the attempts on one machine are counted by cell, and a cell is to blame once it was
killed at least three times, never came through, and it is improbable that kills from outside would have picked out just
the cells that never do: the fewer cells came through, the more kills that takes, and with two cells it never is. Where
the kernel counts its kills for want of memory, and counted one in each of the attempts, that is evidence as well.
Everything is read from trials, so it outlives the processes. Knows no Keras.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.ledger.states import State
from fmnist_optuna.wording import describe_exit

MIN_KILLS = 3
# How improbable kills from outside must be: as long as no other cell was ever hit, and once one was. Simulated storms
# (3 to 30 cells, 1 to 4 workers, 10 to 90 % of all attempts killed, 10,000 studies each, measured 2026-11) blamed a
# cell wrongly in fewer than 1 of 1,000 studies. Three kills among six cells would not do: where three attempts of eight
# are killed at random, one cell dies three times and the five others come through in 30 of 1,000 studies.
IMPROBABLE = 1 / 2_500
VERY_IMPROBABLE = 1e-6
RARITY = 8  # by how much less probable each further cell is that kills its workers
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
WHOLE_MACHINE = Path("/proc/vmstat")
NOBODY: Mapping[str, int] = {}


@dataclass(frozen=True)
class Tally:
    """How the attempts at one cell ended on one machine.

    Args:
        n_killed: By a signal from somewhere.
        n_through: By themselves: with a result, an exception, or a limit of ours; and one that came to a rung, unless
            its cell is the accused one, whose attempts then count from that rung on.
        n_oom: Killed ones during which the kernel killed for want of memory.
    """

    n_killed: int = 0
    n_through: int = 0
    n_oom: int = 0


def is_to_blame(cell_id: str, tallies: Mapping[str, Tally]) -> bool:
    """Whether a cell is to blame for the kills of its attempts.

    Compares two readings of the tallies: kills come from outside and hit each attempt with one probability; or the
    cells that never came through are killed each time, and the others with a probability of their own. The likelihood
    of the first over that of the second, times the number of ways to pick out so many cells, is the chance of an error.

    Args:
        cell_id: Of the cell.
        tallies: Of all cells that were tried on this machine.
    """
    own = tallies.get(cell_id, Tally())
    if own.n_killed < MIN_KILLS or own.n_through:
        return False
    suspects = [tally for tally in tallies.values() if tally.n_killed >= MIN_KILLS - 1 and not tally.n_through]
    n_through = sum(tally.n_through for tally in tallies.values())
    n_suspected = sum(tally.n_killed for tally in suspects)
    n_others = sum(tally.n_killed for tally in tallies.values()) - n_suspected
    if own.n_oom >= MIN_KILLS and n_others == 0:
        return True
    outside = _log_likelihood(n_suspected + n_others, n_through)
    guilty = _log_likelihood(n_others, n_through)
    ways = math.log(math.comb(len(tallies), len(suspects)))
    # With others hit as well, each further kill is another look and another chance to err. With none, it is not: the
    # cells that are killed so often are among those that were killed less often.
    n_looks = own.n_killed / MIN_KILLS if n_others else 1
    allowed = math.log(VERY_IMPROBABLE if n_others else IMPROBABLE) - 2 * math.log(n_looks)
    allowed -= (len(suspects) - 1) * math.log(RARITY)
    return outside - guilty + ways <= allowed


def _log_likelihood(n_killed: int, n_through: int) -> float:
    """Of so many attempts killed and through, at the probability that fits them best."""
    n = n_killed + n_through
    return sum(count * math.log(count / n) for count in (n_killed, n_through) if count)


def tally_attempts(
    attempts: Iterable[Attempt], machine: str, climbed: Mapping[str, int] = NOBODY, accused: str = ""
) -> dict[str, Tally]:
    """Count how finished attempts ended on one machine, by cell.

    Args:
        attempts: At all cells of the study.
        machine: Where those that count were made.
        climbed: Rungs of the cells without a result that have come to one: they were trained and not killed.
        accused: The cell that may be to blame. What kills may wait beyond its rung, so only its attempts from there on
            say anything, and that it came there does not speak for it.
    """
    tallies: dict[str, Tally] = {}
    for attempt in attempts:
        is_before = attempt.cell_id == accused and _began_with(attempt) < climbed.get(accused, 0)
        if attempt.attributes.machine == machine and not attempt.is_foreign and not is_before:
            tallies[attempt.cell_id] = _add(tallies.get(attempt.cell_id, Tally()), attempt)
    for cell_id in tallies.keys() & climbed.keys() - {accused}:
        tallies[cell_id] = replace(tallies[cell_id], n_through=tallies[cell_id].n_through + 1)
    return tallies


def _began_with(attempt: Attempt) -> int:
    """How many epochs there were when a training began, or went on last."""
    legs = attempt.attributes.legs or ()
    return max([attempt.attributes.kept_epochs or 0, *(leg.n_epochs for leg in legs)])


def _add(tally: Tally, attempt: Attempt) -> Tally:
    reason, state = attempt.attributes.reason, attempt.state
    if state is State.FAILED and reason in ("killed", "blamed"):
        is_oom = bool(attempt.attributes.killed_for_memory)
        return Tally(tally.n_killed + 1, tally.n_through, tally.n_oom + is_oom)
    if (state.has_result or state is State.FAILED) and reason not in ("lost", "stopped", "moved"):
        return Tally(tally.n_killed, tally.n_through + 1, tally.n_oom)
    return tally


def describe_blame(tally: Tally, exit_code: int | None) -> str:
    """Why a cell failed for kills, in words.

    Args:
        tally: Of the cell.
        exit_code: How its last worker ended; None when nobody saw it.
    """
    how = "its worker died" if exit_code is None else f"its worker {describe_exit(exit_code).partition(',')[0]}"
    times = "three times" if tally.n_killed == MIN_KILLS else f"{tally.n_killed} times"
    if tally.n_oom >= MIN_KILLS:
        return f"{how} {times}, when the system killed for want of memory; see --memory-limit"
    return f"{how} {times} while other cells finished; often for want of memory, see --memory-limit"


def read_oom_counter() -> dict[str, Json] | None:
    """The kernel's count of processes killed for want of memory, in this process's cgroup or on the machine.

    Returns:
        File and count, to be compared by `has_oom_killed`; None where nothing counts.
    """
    for file in (*_cgroup_files(), WHOLE_MACHINE):
        if (count := _read_count(file)) is not None:
            return {"file": str(file), "count": count}
    return None


def has_oom_killed(before: Mapping[str, Json] | None) -> bool:
    """Whether the kernel has killed for want of memory since the counter was read."""
    count = None if before is None else _read_count(Path(str(before["file"])))
    return count is not None and before is not None and count > int(str(before["count"]))


def _cgroup_files() -> list[Path]:
    try:
        lines = OWN_CGROUP.read_text().splitlines()
    except OSError:
        return []
    groups = [line.split(":", 2)[1:] for line in lines if line.count(":") >= 2]
    unified = [CGROUPS / path.lstrip("/") / "memory.events" for names, path in groups if names == ""]
    legacy = [
        CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control"
        for names, path in groups
        if "memory" in names.split(",")
    ]
    return unified + legacy


def _read_count(file: Path) -> int | None:
    try:
        fields = dict(line.split(maxsplit=1) for line in file.read_text().splitlines() if " " in line)
        return int(fields["oom_kill"])
    except (OSError, KeyError, ValueError):
        return None
