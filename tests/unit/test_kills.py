"""Which cells are to blame for the kills of their workers, on made-up histories of a queue."""

import itertools
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from fmnist_optuna.study import kills
from fmnist_optuna.study.kills import Tally, describe_blame, has_oom_killed, is_to_blame, read_oom_counter

MAX_KILLS = 40


def play(
    n_cells: int, n_workers: int, *, bad: Iterable[int] = (), chance: float = 0.0, neighbour: float = 0.0, seed: int = 0
) -> dict[int, int]:
    """Let workers take cells in the order of the queue, where one that was killed goes behind.

    Args:
        bad: Cells that are killed each time.
        chance: Of any other attempt to be killed from outside.
        neighbour: Chance that another running attempt is killed in the place of a bad one.

    Returns:
        Kills until the cell was found to be to blame, by cell; cells are given up after `MAX_KILLS`.
    """
    choices, bad = random.Random(seed), set(bad)
    waiting = list(range(n_cells))
    running: list[int] = []
    blamed: dict[int, int] = {}
    tallies: dict[str, Tally] = {}

    def kill(cell: int) -> None:
        tally = tallies.get(str(cell), Tally())
        tallies[str(cell)] = Tally(tally.n_killed + 1, tally.n_through)
        if is_to_blame(str(cell), tallies):
            blamed[cell] = tally.n_killed + 1
        elif tally.n_killed + 1 < MAX_KILLS:
            waiting.append(cell)

    while waiting or running:
        while waiting and len(running) < n_workers:
            running.append(waiting.pop(0))
        cell = running.pop(choices.randrange(len(running)))
        if cell in bad and running and choices.random() < neighbour:
            victim = running.pop(choices.randrange(len(running)))
            running.append(cell)
            kill(victim)
        elif cell in bad or choices.random() < chance:
            kill(cell)
        else:
            tally = tallies.get(str(cell), Tally())
            tallies[str(cell)] = Tally(tally.n_killed, tally.n_through + 1)
    return blamed


@pytest.mark.parametrize("n_workers", [1, 2, 4])
@pytest.mark.parametrize(("n_cells", "n_kills"), [(5, 14), (6, 11), (8, 8), (12, 6), (16, 5), (27, 4)])
def test_one_bad_cell_fails_as_early_as_may_be(n_cells: int, n_kills: int, n_workers: int) -> None:
    """The more others came through, the fewer kills it takes, wherever the cell stands in the queue."""
    for place in (0, n_cells // 2, n_cells - 1):
        assert play(n_cells, n_workers, bad=[place]) == {place: n_kills}


@pytest.mark.parametrize("n_workers", [1, 2, 4])
def test_several_bad_cells_fail_and_no_other(n_workers: int) -> None:
    """Each by itself, none because of the others."""
    for bad in ({0, 5}, {0, 13, 26}, set(range(9))):
        blamed = play(27, n_workers, bad=bad)
        assert set(blamed) == bad
        assert max(blamed.values()) <= 7


@pytest.mark.parametrize("seed", range(10))
def test_a_neighbour_that_is_killed_instead_is_not_blamed(seed: int) -> None:
    """The system often kills the process beside the one that took the memory; that one comes through another time."""
    assert set(play(27, 2, bad=[4], neighbour=0.5, seed=seed)) <= {4}


@pytest.mark.parametrize("n_cells", [1, 2, 27, 100])
@pytest.mark.parametrize("chance", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_kills_from_outside_blame_no_cell(n_cells: int, chance: float) -> None:
    """However many hit whatever attempt."""
    for seed in range(20):
        assert play(n_cells, 2, chance=chance, seed=seed) == {}


def test_a_storm_rarely_blames_in_small_studies() -> None:
    """With few cells, which say little, fewer than one study of 1,000 has a wrong blame."""
    sizes, chances, workers = (3, 4, 5, 6, 8, 12), (0.2, 0.4, 0.6), (1, 2, 4)
    studies = [(*study, seed) for study in itertools.product(sizes, chances, workers) for seed in range(150)]
    n_wrong = sum(bool(play(n, worker, chance=chance, seed=seed)) for n, chance, worker, seed in studies)
    assert len(studies) > 8_000
    assert n_wrong < len(studies) / 1_000


def test_nothing_to_compare_with_blames_nobody() -> None:
    """A cell alone, killed a hundred times."""
    assert not is_to_blame("a", {"a": Tally(n_killed=99)})


def test_kills_that_the_kernel_counted_are_evidence() -> None:
    """Three for want of memory blame a cell that is alone; not where another was killed and came through later."""
    assert is_to_blame("a", {"a": Tally(n_killed=3, n_oom=3)})
    assert not is_to_blame("a", {"a": Tally(n_killed=3, n_oom=2)})
    assert not is_to_blame("a", {"a": Tally(n_killed=3, n_oom=3), "b": Tally(n_killed=1, n_through=1)})


def test_a_cell_that_came_through_is_not_blamed() -> None:
    """An exception after all shows that it can be trained here."""
    others = {str(number): Tally(n_through=1) for number in range(50)}
    assert is_to_blame("a", {"a": Tally(n_killed=4), **others})
    assert not is_to_blame("a", {"a": Tally(n_killed=9, n_through=1), **others})


def test_the_blame_is_said_in_words() -> None:
    """How often, how, and what to do."""
    assert describe_blame(Tally(n_killed=3), -9) == (
        "its worker was killed by signal 9 (SIGKILL) three times while other cells finished; often for want of memory, "
        "see --memory-limit"
    )
    assert describe_blame(Tally(n_killed=4), None).startswith("its worker died 4 times while")
    assert describe_blame(Tally(n_killed=4), 3).startswith("its worker ended with exit code 3 4 times while")
    assert "when the system killed for want of memory" in describe_blame(Tally(n_killed=3, n_oom=3), -9)


def test_the_kernels_counter_is_read_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the process's own cgroup, of either version; else of the machine; else none."""
    cgroup, machine = tmp_path / "cgroup", tmp_path / "vmstat"
    monkeypatch.setattr(kills, "CGROUPS", tmp_path)
    monkeypatch.setattr(kills, "OWN_CGROUP", cgroup)
    monkeypatch.setattr(kills, "WHOLE_MACHINE", machine)
    assert read_oom_counter() is None
    assert not has_oom_killed(None)
    machine.write_text("nr_free_pages 7\noom_kill 2\n")
    before = read_oom_counter()
    assert before == {"file": str(machine), "count": 2}
    assert not has_oom_killed(before)
    machine.write_text("oom_kill 3\n")
    assert has_oom_killed(before)
    for line, file in (("0::/a", "a/memory.events"), ("4:cpu,memory:/b", "memory/b/memory.oom_control")):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("max 4\noom_kill 5\n")
        cgroup.write_text(f"1:name=systemd:/\n{line}\n")
        assert read_oom_counter() == {"file": str(tmp_path / file), "count": 5}
