"""What every store of artifacts can do, whether a folder or a bucket; and the bucket as one.

Knows of Optuna only which exception its artifact stores raise; whose the artifacts are is in `bridge.artifacts`.
"""

import io
from pathlib import Path
from typing import BinaryIO, Protocol

from optuna.artifacts.exceptions import ArtifactNotFound

from fmnist_optuna.artifacts.bucket import Bucket
from fmnist_optuna.artifacts.folder import ARTIFACT_ID
from fmnist_optuna.durable import whole_file
from fmnist_optuna.errors import MismatchError


class Store(Protocol):
    """One of Optuna's artifact stores, in which an artifact is there whole or not at all, with what is ours beyond.

    Raises:
        MismatchError: In each of its methods: the id leads out of the store.
        ArtifactsError: Likewise: a bucket does not let this machine do it, or does not answer.
    """

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open one artifact for reading; ArtifactNotFound where there is none."""

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write one artifact."""

    def remove(self, artifact_id: str) -> None:
        """Remove one artifact; ArtifactNotFound where there is none, which a bucket may not tell."""

    def holds(self, artifact_id: str) -> bool:
        """Whether there is such an artifact."""

    def describe(self, artifact_id: str) -> str:
        """Where an artifact is, or would be, for people: a path or a URL."""

    def bring(self, artifact_id: str, folder: Path) -> Path:
        """The file with an artifact on this machine: its own, or a copy in a folder of the caller's."""


class BucketStore:
    """A bucket as a store.

    Args:
        bucket: With the place.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Read one artifact.

        Raises:
            ArtifactNotFound: There is no such object.
        """
        try:
            return io.BytesIO(self._bucket.get(self._key(artifact_id)))
        except FileNotFoundError as error:
            raise ArtifactNotFound(artifact_id) from error

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write one artifact; after a failure it is there whole, or nothing of it is."""
        self._bucket.put(self._key(artifact_id), content_body.read())

    def remove(self, artifact_id: str) -> None:
        """Remove one artifact, if it is there."""
        self._bucket.remove(self._key(artifact_id))

    def holds(self, artifact_id: str) -> bool:
        """Whether there is such an object."""
        return self._bucket.holds(self._key(artifact_id))

    def describe(self, artifact_id: str) -> str:
        """Its URL."""
        return f"{self._bucket.place}/{self._key(artifact_id)}"

    def bring(self, artifact_id: str, folder: Path) -> Path:
        """A copy of one artifact, which is made once a folder: what an id stands for is never written anew.

        Raises:
            ArtifactNotFound: There is no such object.
        """
        copy = folder / self._key(artifact_id)
        if not copy.is_file():
            content = self.open_reader(artifact_id)
            folder.mkdir(parents=True, exist_ok=True)
            with whole_file(copy) as file:
                file.write(content.read())
        return copy

    def _key(self, artifact_id: str) -> str:
        if not ARTIFACT_ID.fullmatch(str(artifact_id)):
            raise MismatchError(
                f"An artifact must be an object of {self._bucket.place} itself, but {artifact_id!r:.80} is not."
            )
        return str(artifact_id)
