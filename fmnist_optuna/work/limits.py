"""What a single attempt may take on this machine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a single attempt may take; None means no limit.

    Args:
        trial_seconds: Time that an attempt trains, with rungs in all its stretches together.
        memory_bytes: Resident size of a worker.
    """

    trial_seconds: float | None = None
    memory_bytes: int | None = None
