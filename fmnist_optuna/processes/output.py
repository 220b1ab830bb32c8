"""Where a process writes: its standard streams sent to a file, and streams whose failure ends nothing."""

import io
import os
import sys
from pathlib import Path
from typing import TextIO


class Remarks(io.TextIOWrapper):
    """A standard stream for what is not an answer: that nobody takes it is nobody's business."""

    def write(self, text: str, /) -> int:
        """Write what can be written."""
        try:
            return super().write(text)
        except OSError:  # a full disk, or a terminal or pipe that is gone
            return len(text)

    def flush(self) -> None:
        """Write what is left, if it can be written."""
        try:
            super().flush()
        except OSError:
            return


def rewrap(stream: TextIO | None, kind: type[io.TextIOWrapper], errors: str) -> TextIO:
    """The same stream as one of a kind, which it may be already.

    Args:
        stream: None for one that is closed, of which the null device takes the place.
        errors: Handler of characters that its encoding lacks.
    """
    if stream is None:
        return kind(open(os.devnull, "wb"), encoding="utf-8", errors=errors)  # noqa: PTH123 - until the end
    if isinstance(stream, kind) or not isinstance(stream, io.TextIOWrapper):  # replaced by somebody who knows why
        return stream
    encoding, line_buffering, write_through = stream.encoding, stream.line_buffering, stream.write_through
    # Python keeps the streams that it began with; any other would close what both write to once nobody holds it.
    buffer = stream.buffer if stream in (sys.__stdout__, sys.__stderr__) else stream.detach()
    return kind(buffer, encoding, errors, line_buffering=line_buffering, write_through=write_through)


def take_prints_for_remarks() -> None:
    """Let no `print` of the user's code fail a training: neither for a full disk nor for what an encoding lacks."""
    sys.stdout = rewrap(sys.stdout, Remarks, "backslashreplace")
    sys.stderr = rewrap(sys.stderr, Remarks, "backslashreplace")


def redirect_output(file: Path, mode: int = 0o600) -> None:
    """Let everything that this process and its children write go to the end of a file.

    Args:
        mode: Of the file, where it is new.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
