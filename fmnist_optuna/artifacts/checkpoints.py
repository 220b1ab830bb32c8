"""Where the checkpoints of a study are: one file a cell, which a newer one replaces, in a folder beside the artifacts.

A checkpoint saves time and nothing else: whoever finds none, or one that is of no use, trains from the beginning and
comes to the same numbers. So no database says which there are, and any may be removed at any time.
"""

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fmnist_optuna.artifacts.refusal import writing_to
from fmnist_optuna.durable import is_part, remove_parts

FOLDER = "checkpoints"


@dataclass(frozen=True)
class DiskUse:
    """What some files take."""

    n_files: int
    n_bytes: int


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one study.

    Args:
        artifacts: Folder of the storage's artifacts.
        study_id: Of the study.
    """

    artifacts: Path
    study_id: int

    @property
    def folder(self) -> Path:
        """Theirs alone; it need not be there."""
        return self.artifacts / FOLDER / str(self.study_id)

    def file(self, cell_id: str) -> Path:
        """That of a cell; it need not be there."""
        return self.folder / cell_id

    @property
    def is_remote(self) -> bool:
        """Whether writing one may wait for a network."""
        return False

    def bring(self, cell_id: str, _folder: Path) -> Path:
        """That of a cell, which is on this machine; it need not be there."""
        return self.file(cell_id)

    @contextmanager
    def written(self, cell_id: str) -> Iterator[Path]:
        """The file to write that of a cell to, whole.

        Raises:
            ArtifactsError: Its folder cannot be made or written.
            OSError: The disk is full.
        """
        with writing_to(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            yield self.file(cell_id)

    def disk_use(self) -> DiskUse:
        """What they take on this machine's disk, those aside that are just being written."""
        sizes = []
        with contextlib.suppress(OSError):  # there is no folder
            for file in self.folder.iterdir():
                with contextlib.suppress(OSError):  # removed meanwhile
                    if not is_part(file):
                        sizes.append(file.stat().st_size)
        return DiskUse(len(sizes), sum(sizes))

    def remove(self, cell_id: str) -> None:
        """Remove that of a cell, if there is one, and what processes that died have left of one."""
        self.remove_parts(cell_id)
        with contextlib.suppress(OSError):
            self.file(cell_id).unlink(missing_ok=True)

    def remove_parts(self, cell_id: str) -> None:
        """Remove what processes that died while they wrote that of a cell have left."""
        with contextlib.suppress(OSError):
            remove_parts(self.file(cell_id))

    def clear(self) -> None:
        """The same as `remove_all`."""
        self.remove_all()

    def remove_all(self) -> None:
        """Remove all of them, with what processes that died have left of one."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # other studies have some
            self.folder.parent.rmdir()
