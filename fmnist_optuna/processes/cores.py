"""How many cores this process may use: the machine's, less what an affinity or a container's limit takes away."""

import math
import os
from pathlib import Path

ROOT = Path("/")  # where /proc and /sys are
V1_MOUNTS = ("cpu,cpuacct", "cpu", "cpuacct,cpu")  # where systems mount the controller of version 1


def usable_cores() -> int:
    """Cores that workers may keep busy at once, at least 1."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, n_cores if quota is None else min(n_cores, math.ceil(quota)))


def workers_for(n_threads: int) -> int:
    """How many workers of so many threads keep the usable cores busy, at least 1."""
    return max(1, usable_cores() // n_threads)


def _cgroup_quota() -> float | None:
    """Smallest number of cores' time that a control group around this process may take; None without a limit."""
    try:
        lines = (ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:  # "0::/a/b" of version 2, "4:cpu,cpuacct:/a/b" of version 1
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            mounts = [ROOT / "sys/fs/cgroup", ROOT / "sys/fs/cgroup/unified"]
        elif "cpu" in controllers.split(","):
            mounts = [ROOT / "sys/fs/cgroup" / name for name in V1_MOUNTS]
        else:
            continue
        for mount in mounts:
            folder = mount / path.strip("/")
            # In a container the path may be the host's, which is not there; the limit is then that of the mount.
            for group in (folder, *folder.parents):
                quotas.extend(_quota_of(group))
                if group == mount:
                    break
    return min(quotas, default=None)


def _quota_of(group: Path) -> list[float]:
    """The limit of one group in cores, as a list of at most one."""
    try:
        if (file := group / "cpu.max").exists():
            quota, period = file.read_text().split()  # "max 100000" without a limit
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()  # -1 without a limit
            period = (group / "cpu.cfs_period_us").read_text()
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return []
    return [cores] if cores > 0 else []
