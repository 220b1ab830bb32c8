"""Where the artifacts are: of one study, and of all studies of a storage, as a dashboard asks for them."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from optuna.artifacts.exceptions import ArtifactNotFound
from sqlalchemy import select

from fmnist_optuna.artifacts.bucket import Bucket
from fmnist_optuna.artifacts.folder import DurableStore
from fmnist_optuna.artifacts.place import Place, read_place
from fmnist_optuna.artifacts.store import BucketStore, Store
from fmnist_optuna.errors import ArtifactsError, UsageError
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import studies


def open_store(folder: Path, place: Place | None) -> Store:
    """The store of a study: a bucket, or where it names none the folder beside the storage."""
    return DurableStore(folder) if place is None else BucketStore(Bucket(place))


class SharedStore:
    """All stores of a storage's studies as one: an artifact's id does not say which study it is of.

    Args:
        storage: Open.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._folder = DurableStore(storage.artifacts)
        self._stores: dict[Place, BucketStore] = {}

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open one artifact.

        Raises:
            ArtifactNotFound: No store has it.
        """
        for store in self._all():
            with contextlib.suppress(ArtifactNotFound):
                return store.open_reader(artifact_id)
        raise ArtifactNotFound(artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write one artifact, where it is plain whose it would be.

        Raises:
            ArtifactsError: The studies have several stores.
        """
        places = list_places(self._storage)
        if len(places) > 1:
            raise ArtifactsError(
                "An upload must have one place to go to, but the studies here keep their artifacts in "
                f"{' and '.join('the folder' if place is None else str(place) for place in places)}."
            )
        self._of(places[0] if places else None).write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """Remove one artifact.

        Raises:
            ArtifactNotFound: No store has it.
        """
        for store in self._all():
            if store.holds(artifact_id):
                store.remove(artifact_id)
                return
        raise ArtifactNotFound(artifact_id)

    def _all(self) -> list[Store]:
        """The folder first, which answers at once."""
        places = [place for place in list_places(self._storage) if place is not None]
        return [self._folder, *map(self._of, places)]

    def _of(self, place: Place | None) -> Store:
        if place is None:
            return self._folder
        return self._stores.setdefault(place, BucketStore(Bucket(place)))


@retrying
def list_places(storage: Storage) -> Sequence[Place | None]:
    """Each place of the studies once; None for the folder."""
    with storage.read() as connection:
        found = connection.execute(select(studies.c.artifacts).distinct()).scalars().all()
    places: dict[Place | None, None] = {}
    for url in found:
        with contextlib.suppress(UsageError):  # a row that somebody has changed
            places[None if url is None else read_place(url).without_mark()] = None
    return list(places)
