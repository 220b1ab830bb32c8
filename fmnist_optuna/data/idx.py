"""Files in the IDX format, of unsigned bytes: what one must be, how it is unpacked, and what is wrong with it.

Source of the format: yann.lecun.com/exdb/mnist. Knows no folder and no data set.
"""

import math
import zlib
from dataclasses import dataclass

UNSIGNED_BYTES = 0x08  # the third byte of a file, its type
MAGIC_SIZE = 4  # bytes: two zeros, the type, the number of dimensions


@dataclass(frozen=True)
class IdxFile:
    """What one IDX file of unsigned bytes must be; `name` is without `.gz`, `sha256` that of the unpacked file."""

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def magic(self) -> int:
        """First four bytes of the file: the type, then the number of dimensions."""
        return (UNSIGNED_BYTES << 8) + len(self.shape)

    @property
    def header_size(self) -> int:
        """Bytes before the data: the magic number and one 32-bit size per dimension."""
        return MAGIC_SIZE + 4 * len(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the whole unpacked file."""
        return self.header_size + math.prod(self.shape)


def read_shape(content: bytes) -> tuple[int, ...] | None:
    """The shape that a file of unsigned bytes says it has; None where it is no such file, or ends within its header.

    Args:
        content: Of the file, or its beginning.
    """
    n_axes = content[3] if len(content) >= MAGIC_SIZE else 0
    size = MAGIC_SIZE + 4 * n_axes
    if content[:3] != bytes((0, 0, UNSIGNED_BYTES)) or len(content) < size:
        return None
    return tuple(int.from_bytes(content[at : at + 4], "big") for at in range(MAGIC_SIZE, size, 4))


def unpack(packed: bytes, file: IdxFile) -> tuple[bytes, str]:
    """Content of a .gz, and what is wrong with it ("" when nothing is); at most one byte more than it should hold."""
    if packed[:2] != b"\x1f\x8b":
        return b"", f"must be a gzip file, but begins with {packed[:8]!r}"
    unpacker = zlib.decompressobj(wbits=31)  # 31: gzip wrapper, its CRC checked
    try:
        # Bounded, so that a hostile mirror cannot fill the memory; one byte more tells "too long" from "all".
        content = unpacker.decompress(packed, file.size + 1)
    except zlib.error as error:
        return b"", f"must be a whole gzip file, but it is damaged ({error})"
    if not unpacker.eof and len(content) <= file.size:
        return b"", f"must be a whole gzip file, but it is cut off after {len(packed):,} bytes"
    return content, ""


def find_fault(content: bytes, sha256: str, file: IdxFile) -> str:
    """What is wrong with the content of an unpacked file: header, shape, size or SHA-256; "" when nothing is."""
    if len(content) < file.header_size:
        return f"must begin with an IDX header of {file.header_size} bytes, but is {len(content)} bytes long"
    magic, shape = int.from_bytes(content[:4], "big"), read_shape(content)
    if magic != file.magic:
        kinds = {0x0801: "labels", 0x0803: "images"}
        wanted, came = kinds.get(file.magic, "IDX data"), kinds.get(magic, "no IDX file of bytes")
        hint = f": {came} where {wanted} should be, are the files swapped?" if magic in kinds else f": {came}"
        return f"must begin with the magic number {file.magic} ({wanted}), but begins with {magic}{hint}"
    if shape != file.shape:
        return f"must hold {_times(file.shape)} bytes of data, but its header says {_times(shape or ())}"
    if len(content) != file.size:
        came_size = f"more than {file.size:,}" if len(content) == file.size + 1 else f"{len(content):,}"
        return f"must be {file.size:,} bytes long when unpacked, but is {came_size}"
    if sha256 != file.sha256:
        return f"must have the SHA-256 {file.sha256} when unpacked, but has {sha256}"
    return ""


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{n:,}" for n in shape)
