"""How a study is run on this machine."""

import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from fmnist_optuna.arguments import check_count, check_limit
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.log import LogFormat
from fmnist_optuna.work.launchers.ray_options import RayOptions
from fmnist_optuna.work.limits import Limits

LEAST_SECONDS = 0.001  # of a time limit that is over: it stops at the first look


@dataclass(frozen=True)
class RunOptions:
    """How a study is run on this machine; none of it changes a result but `accepts_code`.

    Args:
        storage: Where the study is kept, and how one works there.
        n_workers: Workers at once, >= 1; None for as many as keep the usable cores busy.
        data_dir: The only folder to look for the IDX files in, the first for the user's own; None for the search order.
        mirrors: Further base URLs to download from.
        timeout_seconds: > 0; after this the study is stopped and can be resumed; None for no limit.
        limits: Of each attempt.
        log_folder: One log a worker; by default `logs` beside the artifacts.
        log_format: Of the workers' logs: "text" or "json".
        log_level: Of the records in the workers' logs.
        accepts_code: Whether the study goes on with the user's code as it is now, even if it differs from the study's.
        events_file: File that every process of the run appends its events to, one JSON object a line; None for none.
        dashboard_port: Port of 127.0.0.1 to show the studies at while this one runs, 0 for any; None for no dashboard.
        ray: The cluster on whose nodes the workers are; None for this machine alone.

    Raises:
        UsageError: A number is out of its range, or a cluster cannot do it.
    """

    storage: StorageOptions = field(default_factory=StorageOptions)
    n_workers: int | None = 1
    data_dir: Path | None = None
    mirrors: tuple[str, ...] = ()
    timeout_seconds: float | None = None
    limits: Limits = field(default_factory=Limits)
    log_folder: Path | None = None
    log_format: LogFormat = "text"
    log_level: int = logging.INFO
    accepts_code: bool = False
    events_file: Path | None = None
    dashboard_port: int | None = None
    ray: RayOptions | None = None

    def __post_init__(self) -> None:
        check_count("n_workers", self.n_workers, 1)
        check_limit("timeout_seconds", self.timeout_seconds)
        if self.ray is not None:
            self.ray.check(self.storage.url, has_events=self.events_file is not None)

    def with_rest_since(self, began: float) -> "RunOptions":
        """The same with what is left of the time.

        Args:
            began: When the time began to run, by the monotonic clock.
        """
        if self.timeout_seconds is None:
            return self
        left = self.timeout_seconds - (time.monotonic() - began)
        return replace(self, timeout_seconds=max(left, LEAST_SECONDS))
