"""Which Ray cluster runs a study's workers, and what each of them asks for. Imports no Ray."""

import importlib.util
import math
import re
from dataclasses import dataclass

from fmnist_optuna.arguments import check_limit
from fmnist_optuna.errors import UsageError

LEAST_CPUS = 0.01  # of a node; less would be thousands of workers
LOCAL = "local"  # as `ray.init` has it: a cluster that it starts on this machine, and ends


@dataclass(frozen=True)
class WorkerNeeds:
    """What a worker asks for of its node: CPUs, and GPUs or a share of one."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        """For people: `1 CPU and 0.25 GPU`."""
        return f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")


@dataclass(frozen=True)
class RayOptions:
    """Which Ray cluster runs the workers of a study.

    Args:
        address: As `ray.init` takes it: auto, HOST:PORT, ray://HOST:PORT, or local.
        cpus: Of a node, for each worker; > 0; None for as many as the study has threads for one (training.threads).
        gpus: Likewise, >= 0; a share of one below 1, whole ones from there on.

    Raises:
        UsageError: One of them is none.
    """

    address: str
    cpus: float | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if not self.address.strip():
            raise UsageError("ray (--ray) must be auto, local, HOST:PORT or ray://HOST:PORT, but is empty.")
        check_limit("cpus (--cpus)", self.cpus)
        if self.cpus is not None and not LEAST_CPUS <= self.cpus < math.inf:
            raise UsageError(f"cpus (--cpus) must be a number from {LEAST_CPUS:g} on, but is {self.cpus:g}.")
        if not 0 <= self.gpus < math.inf or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise UsageError(
                f"gpus (--gpus) must be a share of a GPU from 0 to 1, or a whole number, but is {self.gpus:g}."
            )

    def for_study(self, n_threads: int) -> "WorkerNeeds":
        """What each worker asks for.

        Args:
            n_threads: Of each worker of the study.
        """
        return WorkerNeeds(float(n_threads) if self.cpus is None else self.cpus, self.gpus)

    def check(self, storage_url: str, *, has_events: bool) -> None:
        """Check that a run can be spread over the cluster.

        Args:
            storage_url: Where the study is kept.
            has_events: Whether its events are wanted in a file.

        Raises:
            UsageError: It cannot, or Ray is not installed.
        """
        if has_events:
            raise UsageError(
                "--events must be left out with --ray, as the workers are on other machines; there, worker --events "
                "writes them."
            )
        if self.address != LOCAL and re.match(r"sqlite\b", storage_url.strip(), re.IGNORECASE):
            raise UsageError(
                f"--ray {self.address} must have a storage (--storage) that every node reaches, but SQLite is a file "
                "of this machine; share the study through postgresql://USER@HOST/DATABASE, or name --ray local."
            )
        if importlib.util.find_spec("ray") is None:
            raise UsageError("--ray needs Ray, but it is not installed; pip install 'fmnist-optuna[ray]'.")
