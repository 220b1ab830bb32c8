"""What a single attempt may take on this machine."""

from dataclasses import dataclass

from fmnist_optuna.arguments import check_limit


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
