"""Artifacts as files of one folder: whole or not at all, and durable before anything refers to them.

Knows of Optuna only which exception its artifact stores raise; whose the artifacts are is in `bridge.artifacts`.
"""

import re
import shutil
from pathlib import Path
from typing import BinaryIO

from optuna.artifacts.exceptions import ArtifactNotFound

from fmnist_optuna.artifacts.refusal import writing_to
from fmnist_optuna.durable import flush, remove_parts, whole_file
from fmnist_optuna.errors import MismatchError

ARTIFACT_ID = re.compile(r"[0-9A-Za-z-]{1,100}")  # Optuna's are UUIDs; a database may say anything


class DurableStore:
    """One of Optuna's artifact stores: a folder in which a file is there whole and on disk, or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open one artifact for reading.

        Raises:
            MismatchError: The id leads out of the folder.
            ArtifactNotFound: There is no such file.
        """
        try:
            return self.find(artifact_id).open("rb")
        except FileNotFoundError as error:
            raise ArtifactNotFound(artifact_id) from error

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write one artifact; after a failure nothing is left.

        Raises:
            MismatchError: The id leads out of the folder.
            ArtifactsError: The folder cannot be written.
            OSError: The disk is full.
        """
        final = self.find(artifact_id)
        with writing_to(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            with whole_file(final) as file:
                shutil.copyfileobj(content_body, file)
            flush(self._folder)

    def remove(self, artifact_id: str) -> None:
        """Remove one artifact, and what a process that died left of its writing.

        Raises:
            MismatchError: The id leads out of the folder.
            ArtifactNotFound: There is no such file.
        """
        final = self.find(artifact_id)
        remove_parts(final)
        try:
            final.unlink()
        except FileNotFoundError as error:
            raise ArtifactNotFound(artifact_id) from error

    def holds(self, artifact_id: str) -> bool:
        """Whether there is such a file.

        Raises:
            MismatchError: The id leads out of the folder.
        """
        return self.find(artifact_id).is_file()

    def describe(self, artifact_id: str) -> str:
        """Its path, for people.

        Raises:
            MismatchError: The id leads out of the folder.
        """
        return str(self.find(artifact_id))

    def bring(self, artifact_id: str, _folder: Path) -> Path:
        """The file itself.

        Raises:
            MismatchError: The id leads out of the folder.
            ArtifactNotFound: There is no such file.
        """
        if not self.holds(artifact_id):
            raise ArtifactNotFound(artifact_id)
        return self.find(artifact_id)

    def find(self, artifact_id: str) -> Path:
        """Where an artifact is, or would be.

        Raises:
            MismatchError: The id leads out of the folder.
        """
        path = self._folder / str(artifact_id)
        if not ARTIFACT_ID.fullmatch(str(artifact_id)) or path.is_symlink():
            raise MismatchError(f"An artifact must be a file of {self._folder} itself, but {artifact_id!r:.80} is not.")
        return path
