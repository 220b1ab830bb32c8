"""How many workers a machine is good for, where the process may not use all of it."""

import os
from pathlib import Path

import pytest

from fmnist_optuna.processes import cores
from fmnist_optuna.processes.cores import usable_cores, workers_for

N_CORES = 6


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of six cores whose /proc and /sys are the test's."""
    monkeypatch.setattr(cores, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(N_CORES)), raising=False)
    return tmp_path


def write(machine: Path, group: str, files: dict[str, str]) -> None:
    """The process's control groups and the files of one of them."""
    (machine / "proc/self").mkdir(parents=True, exist_ok=True)
    (machine / "proc/self/cgroup").write_text(group)
    for name, text in files.items():
        file = machine / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a/cpu.max": "max 100000\n"}, N_CORES),
        ({"a/cpu.max": "200000 100000\n"}, 2),
        ({"a/cpu.max": "150000 100000\n"}, 2),  # rounded up
        ({"a/cpu.max": "5000 100000\n"}, 1),
        ({"a/cpu.max": "1600000 100000\n"}, N_CORES),
        ({"a/cpu.max": "max 100000\n", "a/b/cpu.max": "300000 100000"}, 3),
        ({"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "300000 100000"}, 1),  # the outer one holds as well
        ({"cpu.max": "400000 100000\n"}, 4),  # a container sees its own group as the root
        ({"a/b/cpu.max": "rubbish"}, N_CORES),
        ({}, N_CORES),
    ],
)
def test_a_quota_of_version_2_bounds_the_cores(machine: Path, files: dict[str, str], expected: int) -> None:
    """The smallest of all groups around the process."""
    write(machine, "0::/a/b\n", files)
    assert usable_cores() == expected


@pytest.mark.parametrize(
    ("quota", "expected"), [("-1", N_CORES), ("250000", 3), ("100000", 1), ("0", N_CORES), ("x", N_CORES)]
)
@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_a_quota_of_version_1_bounds_the_cores(machine: Path, mount: str, quota: str, expected: int) -> None:
    """As older systems and hybrid ones have it."""
    files = {f"{mount}/docker/1/cpu.cfs_quota_us": quota, f"{mount}/docker/1/cpu.cfs_period_us": "100000\n"}
    write(machine, "5:memory:/x\n4:cpu,cpuacct:/docker/1\n0::/\n", files)
    assert usable_cores() == expected


def test_a_path_of_the_host_is_that_of_the_mount(machine: Path) -> None:
    """A container of version 1 without a namespace is told the host's path, which it does not see."""
    write(machine, "4:cpu:/docker/1\n", {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"})
    assert usable_cores() == 2


def test_without_control_groups_the_affinity_counts(machine: Path) -> None:
    """As on macOS, or where /proc is not mounted."""
    assert usable_cores() == N_CORES


def test_workers_share_the_cores_by_their_threads(machine: Path) -> None:
    """As many as the cores have threads for, at least one."""
    assert [workers_for(n_threads) for n_threads in (1, N_CORES, N_CORES + 1)] == [N_CORES, 1, 1]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_bound_to_one_core_has_one() -> None:
    """Asked of the system itself."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
