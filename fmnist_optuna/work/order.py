"""What a supervisor tells a worker. Kept apart so that the supervisor need not import TensorFlow."""

import logging
from dataclasses import dataclass
from pathlib import Path

from fmnist_optuna.ledger.codes import OfferedCode
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.log import LogFormat
from fmnist_optuna.work.limits import NO_LIMITS, WorkerLimits

WORKER_FAILED = "worker_failed"  # the last record in the log of a worker that something broke


@dataclass(frozen=True)
class WorkerOrder:
    """Everything a worker process needs; it travels by pickle, never on a command line.

    Args:
        storage: Where the study is kept, and how one works there.
        study_name: The study to work on.
        worker_id: Unique among all workers.
        generation: Stop generation when the work was ordered.
        data_dir: Folder with the IDX files, or None for the search order.
        limits: When the worker leaves by itself.
        shared_data: Folder with the arrays that the supervisor wrote for all its workers, if it did.
        code: What the supervisor has joined the study with, where all of it is ours; None lets the worker read its own.
        slot: 0-based place among the workers of its supervisor, which says on which GPU it trains.
        gpu_memory_bytes: The most that it takes of that GPU's memory; None lets it take what it needs.
        log_file: Gets all output of the process; None leaves it where it is.
        log_format: "text" or "json".
        log_level: Of the records that are kept.
        given_up: cell_ids that the worker leaves alone.
        allowed_modules: The only modules of the user's that the worker imports; None lets it import all that the
            study names.
        checks_bucket: Whether the worker first tries the study's bucket, which nobody has tried from its machine.
        events_file: Gets the events of the process; None for nowhere.
    """

    storage: StorageOptions
    study_name: str
    worker_id: str
    generation: int
    data_dir: Path | None
    limits: WorkerLimits = NO_LIMITS
    shared_data: Path | None = None
    code: OfferedCode | None = None
    slot: int = 0
    gpu_memory_bytes: int | None = None
    log_file: Path | None = None
    log_format: LogFormat = "text"
    log_level: int = logging.INFO
    given_up: frozenset[str] = frozenset()
    allowed_modules: frozenset[str] | None = None
    checks_bucket: bool = False
    events_file: Path | None = None
