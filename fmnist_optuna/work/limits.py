"""What a single attempt may take on this machine, and when a worker leaves by itself."""

from dataclasses import dataclass

from fmnist_optuna.arguments import check_count, check_limit


@dataclass(frozen=True)
class Limits:
    """What a single attempt may take; None means no limit.

    Args:
        trial_seconds: Time that an attempt trains, with rungs in all its stretches together; > 0.
        memory_bytes: Resident size of a worker; > 0.

    Raises:
        UsageError: A limit is not greater than 0.
    """

    trial_seconds: float | None = None
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        check_limit("trial_seconds", self.trial_seconds)
        check_limit("memory_bytes", self.memory_bytes)


@dataclass(frozen=True)
class WorkerLimits:
    """When a worker leaves between two cells although the study is not finished; None means no limit.

    Args:
        memory_bytes: Resident size past which a fresh process shall take its place.
        max_trials: Attempts at cells: trained to the end or to the next rung, failed, or lost with their lease; >= 1.
        idle_seconds: Time in which it could claim none, as others have them all; > 0.

    Raises:
        UsageError: A limit is too small.
    """

    memory_bytes: int | None = None
    max_trials: int | None = None
    idle_seconds: float | None = None

    def __post_init__(self) -> None:
        check_limit("memory_bytes", self.memory_bytes)
        check_count("max_trials", self.max_trials, 1)
        check_limit("idle_seconds", self.idle_seconds)


NO_LIMITS = WorkerLimits()
