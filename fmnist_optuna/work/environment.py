"""What a training's numbers depend on beyond its seed and data: versions, processor, threads. Kept with every trial."""

import functools
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fmnist_optuna import __version__

PACKAGES = ("tensorflow", "keras", "numpy", "optuna")
# Instruction sets that oneDNN and Eigen choose their kernels by.
CPU_FEATURES = frozenset(
    (
        *("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"),
        *("avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"),
        *("asimd", "asimdhp", "asimddp", "sve", "sve2", "bf16", "i8mm"),
    )
)
CPU_INFO = Path("/proc/cpuinfo")
GIT_SECONDS = 5.0
N_THREADS = 1  # of TensorFlow, in every process that trains


@functools.cache
def read_environment() -> dict[str, Any]:
    """The environment of this process as JSON values: versions, Python, CPU, threads, and the revision of the code.

    `git` is the revision of the repository that the current folder is in, where a user's architecture lives, with
    "-dirty" when files in it were changed; None without one.
    """
    cpu, features = _read_cpu()
    return {
        "fmnist_optuna": __version__,
        **{package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "system": f"{sys.platform} {platform.machine()}",
        "cpu": cpu,
        "cpu_features": features,
        "threads": N_THREADS,
        "git": _read_revision(),
    }


def _read_cpu() -> tuple[str, str]:
    """Model name and the features that matter, of the first processor; by Python's own knowledge off Linux."""
    try:
        lines = CPU_INFO.read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor(), ""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", fields.get("Features", "")).split()
    return fields.get("model name", platform.processor()), " ".join(sorted(CPU_FEATURES & set(flags)))


def _read_revision() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def differences(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """A line for everything in which two environments differ: `tensorflow: then 2.21.0, now 2.22.0`."""
    return [
        f"{key}: then {recorded.get(key)}, now {present.get(key)}"
        for key in sorted(recorded.keys() | present.keys())
        if recorded.get(key) != present.get(key)
    ]
