"""Where a process writes: its standard streams sent to a file."""

import os
from pathlib import Path


def redirect_output(file: Path) -> None:
    """Let everything that this process and its children write go to the end of a file."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
