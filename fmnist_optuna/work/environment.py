"""What a training's numbers depend on beyond its seed, data and code: versions, processor, settings.

Kept with every trial. Versions and settings are compared when a process joins a study, and everything by `reproduce`.
"""

import functools
import logging
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from fmnist_optuna import __version__
from fmnist_optuna.json_value import Json
from fmnist_optuna.log import log_event

logger = logging.getLogger(__name__)

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
CHANGES_NO_NUMBER = ("git", "optuna")  # what changes no number of a training, so that another may go on with it
GIT_SECONDS = 5.0
MACHINE = {"python", "system", "cpu", "cpu_features", "git", "threads", "tf_threads", "optuna"}
ALWAYS = {*PACKAGES, *MACHINE, "fmnist_optuna"}  # what every record has; the rest are settings
SETTING = "floatx"  # is in a record that has settings


@functools.cache
def read_environment() -> Mapping[str, Json]:
    """The environment of this process as JSON values: versions, Python, CPU, threads, settings, revision of the code.

    Settings of Keras and TensorFlow are there once Keras is loaded, as in every process that trains; it is read when
    the user's modules are imported, and then kept.

    `git` is the revision of the repository that the current folder is in, where a user's architecture lives, with
    "-dirty" when files in it were changed; None without one.
    """
    cpu, features = _read_cpu()
    settings = _read_settings()
    return {
        "fmnist_optuna": __version__,
        **{package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "system": f"{sys.platform} {platform.machine()}",
        "cpu": cpu,
        "cpu_features": features,
        "threads": int(settings.get("tf_threads", "1").partition(" ")[0]),  # of an operation
        "git": _read_revision(),
        **settings,
    }


def _read_settings() -> dict[str, str]:
    if "keras" not in sys.modules:  # a process that does not train need not load it
        return {}
    from fmnist_optuna.training.numerics import read_numerics  # loads TensorFlow

    return read_numerics()


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


def differences(recorded: Mapping[str, Json], present: Mapping[str, Json]) -> list[str]:
    """A line for everything in which two environments differ: `tensorflow: then 2.21.0, now 2.22.0`.

    Of settings that a record of an earlier version does not have, nothing is known and nothing said.
    """
    keys = recorded.keys() | present.keys()
    if SETTING not in recorded or SETTING not in present:
        keys = keys & ALWAYS
    return [
        f"{key}: then {_show(recorded, key)}, now {_show(present, key)}"
        for key in sorted(keys)
        if recorded.get(key) != present.get(key)
    ]


def _show(environment: Mapping[str, Json], key: str) -> str:
    return str(environment[key]) if key in environment else "unset"


def warn_of_environment(name: str, recorded: Mapping[str, Json], present: Mapping[str, Json]) -> None:
    """Log in what that changes numbers this process differs from the one that brought the study's code.

    Python, processor and revision are left out: a study may well be trained by several machines.
    """
    lines = [
        line.replace(": then ", ": the study began with ", 1).replace(", now ", ", here it is ")
        for line in differences(recorded, present)
        if line.partition(":")[0] not in MACHINE
    ]
    if lines:
        log_event(logger, logging.WARNING, "environment_differs", study=name, differences="; ".join(lines))
