"""The checkpoints of a study in a bucket: one object a cell, which a newer one replaces, below the mark of the study.

As those in a folder they save time and nothing else. What is removed here and there is removed if the bucket lets it;
with the study it must.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fmnist_optuna.artifacts.bucket import Bucket
from fmnist_optuna.artifacts.checkpoints import FOLDER, DiskUse
from fmnist_optuna.errors import ArtifactsError, UsageError
from fmnist_optuna.log import log_event

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BucketCheckpoints:
    """The checkpoints of one study.

    Args:
        bucket: With the place of the study, and its mark.
    """

    bucket: Bucket

    @property
    def is_remote(self) -> bool:
        """Whether writing one may wait for a network."""
        return True

    def bring(self, cell_id: str, folder: Path) -> Path:
        """The file with that of a cell; it need not be there.

        Args:
            folder: For a copy.

        Raises:
            ArtifactsError: The bucket does not answer, or does not let this machine read.
        """
        copy = folder / cell_id
        with contextlib.suppress(FileNotFoundError):
            copy.write_bytes(self.bucket.get(self._key(cell_id)))
        return copy

    @contextmanager
    def written(self, cell_id: str) -> Iterator[Path]:
        """A file to write that of a cell to, which is kept when this block has ended.

        Raises:
            ArtifactsError: The bucket does not answer, or does not let this machine write.
            OSError: There is no room for a temporary file.
        """
        with tempfile.TemporaryDirectory(prefix="fmnist-optuna-") as folder:
            file = Path(folder) / cell_id
            yield file
            self.bucket.put(self._key(cell_id), file.read_bytes())

    def disk_use(self) -> DiskUse | None:
        """What they take in the bucket; None where it does not say so now."""
        try:
            sizes = [size for _, size in self.bucket.keys(self._key(""))]
        except (ArtifactsError, UsageError):
            return None
        return DiskUse(len(sizes), sum(sizes))

    def remove(self, cell_id: str) -> None:
        """Remove that of a cell, if there is one."""
        with self._at_best():
            self.bucket.remove(self._key(cell_id))

    def remove_parts(self, cell_id: str) -> None:
        """A bucket keeps nothing of what was not written whole."""

    def remove_all(self) -> None:
        """Remove all of them, as far as the bucket lets it now."""
        with self._at_best():
            self.clear()

    def clear(self) -> None:
        """Remove all of them.

        Raises:
            ArtifactsError: The bucket does not answer, or does not let this machine remove.
        """
        for key, _ in list(self.bucket.keys(self._key(""))):  # first, as some servers count where a page begins
            self.bucket.remove(key)

    @contextmanager
    def _at_best(self) -> Iterator[None]:
        """Whatever is left is removed with the study."""
        try:
            yield
        except ArtifactsError as error:
            log_event(logger, logging.WARNING, "checkpoints_not_removed", error=str(error))

    def _key(self, cell_id: str) -> str:
        return f"{FOLDER}/{self.bucket.place.mark}/{cell_id}"
