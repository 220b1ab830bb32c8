"""What the callbacks of an attempt wrote into its folder, and whether it is small enough to be kept."""

import logging
from pathlib import Path

from fmnist_optuna.log import log_event

logger = logging.getLogger(__name__)

MAX_FILES = 100  # of an attempt's callbacks
MAX_BYTES = 10_000_000  # of them all together


def files_in(folder: Path) -> list[Path]:
    """Files in a folder and in those in it, links left out, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def is_small(folder: Path, event: str) -> bool:
    """Whether what was written may be kept; if not, a warning says so.

    Args:
        event: Name of the warning's record.
    """
    files = files_in(folder)
    n_bytes = sum(file.stat().st_size for file in files)
    if len(files) <= MAX_FILES and n_bytes <= MAX_BYTES:
        return True
    log_event(
        logger,
        logging.WARNING,
        event,
        reason=f"callbacks may write at most {MAX_FILES} files of {MAX_BYTES:,} bytes in all",
        files=len(files),
        bytes=n_bytes,
    )
    return False
