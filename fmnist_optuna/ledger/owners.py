"""What owns the running trials of a study: the cells that name them, or are about to."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Owners:
    """What owns the running trials of a study.

    Args:
        trial_ids: Trials that cells name which are neither done nor failed.
        tokens: Of running cells that have no trial yet: one that carries such a token is about to be bound.
    """

    trial_ids: frozenset[int]
    tokens: frozenset[str]

    @classmethod
    def of(cls, unfinished: Iterable[tuple[str | None, int | None]]) -> "Owners":
        """From token and trial of each cell that waits, runs or is parked."""
        pairs = list(unfinished)
        return cls(
            frozenset(trial_id for _, trial_id in pairs if trial_id is not None),
            frozenset(token for token, trial_id in pairs if trial_id is None and token is not None),
        )

    def own(self, trial_id: int, token: str | None) -> bool:
        """Whether a running trial, made under a token, has an owner."""
        return trial_id in self.trial_ids or token in self.tokens
