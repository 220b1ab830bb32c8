"""What the system refuses in the folder of the artifacts, as what it is to a study: no fault of the cell at hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmnist_optuna.durable import FULL_DISK
from fmnist_optuna.errors import ArtifactsError
from fmnist_optuna.wording import reason_of


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Let what the system refuses within this block be what a bucket's refusal is; for room on the disk one waits.

    Raises:
        ArtifactsError: The folder cannot be made or written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK or isinstance(error, FileNotFoundError):  # which others removed meanwhile
            raise
        raise ArtifactsError(
            f"The folder of the artifacts, {folder}, must let this machine write, but: {reason_of(error)}; mend that, "
            "then run again."
        ) from error
