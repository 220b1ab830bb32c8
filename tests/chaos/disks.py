"""Small disks that fill up: mounted where that is allowed, else a refusal where the package writes."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DISK_BYTES = 512 * 1024  # several trials' weights
FILLER = "full"

# A module whose `make` is one of a study's callbacks: below a folder with a file `full` nothing can be written.
REFUSAL = """\
import errno
import os
import pathlib
import shutil


def check(path):
    if any((folder / "full").exists() for folder in pathlib.Path(path).parents[:3]):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def make():
    write, copy = pathlib.Path.write_bytes, shutil.copyfileobj
    pathlib.Path.write_bytes = lambda self, data: (check(self), write(self, data))[1]
    shutil.copyfileobj = lambda source, target: (check(target.name), copy(source, target))[1]
    return []
"""


@dataclass(frozen=True)
class Disk:
    """A folder that may be filled.

    Args:
        folder: Where.
        is_mounted: Whether it really is a disk of its own.
    """

    folder: Path
    is_mounted: bool

    @property
    def callbacks(self) -> tuple[str, ...]:
        """What a study's callbacks need where nothing could be mounted."""
        return () if self.is_mounted else ("refusal:make",)

    def fill(self) -> None:
        """Leave no room for anything."""
        with (self.folder / FILLER).open("wb", buffering=0) as file:
            if self.is_mounted:
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(4096))
                assert os.statvfs(self.folder).f_bavail == 0

    def free(self) -> None:
        """Make room again."""
        (self.folder / FILLER).unlink()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """A disk of its own at a folder, which is made; taken away at the end."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield Disk(folder, is_mounted)
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
