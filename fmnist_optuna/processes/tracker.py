"""The helper that multiprocessing keeps beside its server of all children, started with streams of its own.

Multiprocessing would start it with ours, and it lives as long as any child does: whoever reads the output of a command
that was killed would wait for its orphans.
"""

import os
import subprocess
import sys
from multiprocessing import resource_tracker
from pathlib import Path


def start_tracker(output: Path) -> None:
    """Start it, unless it runs.

    Args:
        output: The file that it writes to, if to any.
    """
    tracker = vars(resource_tracker._resource_tracker)
    if tracker["_fd"] is not None:
        return
    reader, writer = os.pipe()
    command = f"from multiprocessing.resource_tracker import main; main({reader})"
    with output.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", command],
            pass_fds=[reader],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    os.close(reader)
    process.returncode = 0  # multiprocessing waits for it
    tracker.update(_fd=writer, _pid=process.pid)
