"""Where studies are kept and how one works there: read once, from options and environment, and handed on whole."""

from dataclasses import dataclass, field
from typing import Self

from fmnist_optuna.artifacts.place import Place, parse_place
from fmnist_optuna.errors import UsageError
from fmnist_optuna.ledger.records import Timing
from fmnist_optuna.settings import DEFAULT_STORAGE, Settings, read_artifacts, read_lease_seconds

DEFAULT_PATIENCE_SECONDS = 300.0  # seconds; how long an outage of the database is waited for


@dataclass(frozen=True)
class StorageOptions:
    """How a storage is opened.

    Args:
        url: SQLAlchemy URL, with its password if any: never print it.
        patience_seconds: How long an outage is waited for, in seconds, >= 0.
        timing: Lease and intervals. SQLite's busy timeout stays below half of the lease, and Postgres ends a
            transaction that rests for so long.
        artifacts: Where a study that is made, or joined, keeps its artifacts; None for what the study says, and of a
            new one for the folder beside the storage.
    """

    url: str = field(default=DEFAULT_STORAGE, repr=False)
    patience_seconds: float = DEFAULT_PATIENCE_SECONDS
    timing: Timing = field(default_factory=Timing)
    artifacts: Place | None = None

    @classmethod
    def from_environment(
        cls,
        url: str | None = None,
        patience_seconds: float = DEFAULT_PATIENCE_SECONDS,
        artifacts: str | None = None,
    ) -> Self:
        """With the lease that the environment asks for.

        Args:
            url: None for the storage that the environment names, else the default one.
            artifacts: URL of a bucket; None for the one that the environment names, if it does.

        Raises:
            StorageError: The environment names a file with the URL, and it cannot be read.
            UsageError: A variable holds a value of the wrong kind, or the bucket is none.
        """
        for name, given in (("url (--storage)", url), ("artifacts (--artifacts)", artifacts)):
            if given == "":  # of a variable that is unset, say: no reason to go on in another place
                raise UsageError(f"{name} must be a URL, but is empty.")
        found = url or Settings.from_environment().storage
        bucket = artifacts or read_artifacts()
        place = None if bucket is None else parse_place(bucket)
        return cls(found, patience_seconds, Timing.for_lease(read_lease_seconds()), place)
