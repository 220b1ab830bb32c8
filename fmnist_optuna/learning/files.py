"""The four Fashion-MNIST files on disk: where they are looked for, downloaded, verified and parsed.

Owns the file table, the search order, the mirrors and every message about a bad file. Knows nothing of the split,
of Keras or of any study. A corrupt file is an error that names the file; it is never replaced silently.
"""

import contextlib
import fcntl
import hashlib
import http.client
import logging
import math
import os
import queue
import sys
import threading
import time
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fmnist_optuna.errors import DataError

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 3.0  # seconds; grace that slower mirrors get once a first one has answered
REACH_TIMEOUT = 10.0  # seconds until some mirror must have sent a first byte, name resolution included
READ_TIMEOUT = 30.0  # seconds without a byte, once the mirror has answered
GZIP_OVERHEAD = 65_536  # bytes; no honest .gz is longer than its content plus this

DEFAULT_MIRRORS = (
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)


@dataclass(frozen=True)
class IdxFile:
    """What one IDX file of unsigned bytes must be; `name` is without `.gz`, `sha256` that of the unpacked file."""

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def magic(self) -> int:
        """First four bytes of the file: 0x08 for unsigned bytes, then the number of dimensions."""
        return 0x0800 + len(self.shape)

    @property
    def header_size(self) -> int:
        """Bytes before the data: the magic number and one 32-bit size per dimension."""
        return 4 + 4 * len(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the whole unpacked file."""
        return self.header_size + math.prod(self.shape)


# Checksums of the files published at github.com/zalandoresearch/fashion-mnist, whose README prints the MD5 of each .gz.
FASHION_MNIST_FILES = (
    IdxFile(
        "train-images-idx3-ubyte",
        (60_000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    IdxFile("train-labels-idx1-ubyte", (60_000,), "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    IdxFile(
        "t10k-images-idx3-ubyte",
        (10_000, 28, 28),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    IdxFile("t10k-labels-idx1-ubyte", (10_000,), "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
)


@dataclass(frozen=True)
class FileCheck:
    """One line of `data verify`: `path` is None when the file is missing, `n_items` and `sha256` when unreadable."""

    name: str
    path: Path | None
    ok: bool
    n_items: int | None
    sha256: str | None
    message: str


def user_cache_dir() -> Path:
    """Folder that downloads go to: `fmnist-optuna/fashion-mnist` in the user's cache.

    Raises:
        DataError: The user has no home folder and XDG_CACHE_HOME is not set.
    """
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    usual = "Library/Caches" if sys.platform == "darwin" else ".cache"
    base = xdg if xdg.is_absolute() else _home() / usual  # XDG says that a relative path must be ignored
    return base / "fmnist-optuna" / "fashion-mnist"


def keras_cache_dir() -> Path:
    """Folder where `keras.datasets.fashion_mnist` leaves the same four files."""
    keras_home = os.environ.get("KERAS_HOME")
    return (Path(keras_home) if keras_home else _home() / ".keras") / "datasets" / "fashion-mnist"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:  # a container that runs under a user id without an entry
        raise DataError(
            "the user's cache needs a home folder, but this user has none; set XDG_CACHE_HOME and KERAS_HOME, "
            "or name the folder with --data-dir DIR"
        ) from error


def find_data_dir(data_dir: Path | None = None, *, files: Sequence[IdxFile] = FASHION_MNIST_FILES) -> Path | None:
    """Find the folder that holds all four files, without reading them.

    Args:
        data_dir: The only folder looked at, if given; else the user's cache, then that of Keras.
        files: What must be there, each as `NAME.gz` or unpacked as `NAME`.

    Returns:
        The folder, or None if no cache holds the complete set.

    Raises:
        DataError: The given folder is missing, is no folder, or lacks a file.
    """
    if data_dir is None:
        for cache_dir in (user_cache_dir(), keras_cache_dir()):
            if not _missing(cache_dir, files):
                return cache_dir
        return None
    fetch_command = f"run: fmnist-optuna data fetch --data-dir {data_dir}"
    if not data_dir.exists():
        raise DataError(f"the data folder must exist, but {data_dir} does not; {fetch_command}")
    if not data_dir.is_dir():
        raise DataError(f"the data folder must be a folder, but {data_dir} is a file; name another with --data-dir DIR")
    missing = _missing(data_dir, files)
    if missing:
        names = ", ".join(f"{file.name}.gz" for file in missing)
        raise DataError(
            f"the data folder must hold {len(files)} files, but {data_dir} lacks {len(missing)}: {names}; "
            f"{fetch_command}"
        )
    return data_dir


def _locate(folder: Path, file: IdxFile) -> Path | None:
    for path in (folder / file.name, folder / f"{file.name}.gz"):  # unpacked first: it is what the checksum is of
        with contextlib.suppress(PermissionError):  # a folder that may not be searched is not there for us
            if path.is_file():
                return path
    return None


def _missing(folder: Path, files: Sequence[IdxFile]) -> list[IdxFile]:
    return [file for file in files if _locate(folder, file) is None]


def read_arrays(data_dir: Path, files: Sequence[IdxFile] = FASHION_MNIST_FILES) -> list[npt.NDArray[np.uint8]]:
    """Read, verify and parse every file of the table, in its order; each is unpacked and hashed once.

    Returns:
        One read-only uint8 array per file, of the table's shape.

    Raises:
        DataError: A file is missing, unreadable or not what the table says.
    """
    arrays = []
    for file in files:
        path = _locate(data_dir, file)
        if path is None:
            raise DataError(f"{data_dir} must hold {file.name}.gz, but it is gone; {_remedy(data_dir)}")
        content, _, fault = _inspect(path, file)
        if fault:
            raise DataError(f"{path}: {fault}; delete this file, then {_remedy(data_dir)}")
        arrays.append(np.frombuffer(content, np.uint8, offset=file.header_size).reshape(file.shape))
    return arrays


def _remedy(data_dir: Path) -> str:
    return f"run: fmnist-optuna data fetch --data-dir {data_dir}"


def verify_files(data_dir: Path, *, files: Sequence[IdxFile] = FASHION_MNIST_FILES) -> list[FileCheck]:
    """Check every file of the table and report on each; a bad or missing file is a line, not an exception."""
    checks = []
    for file in files:
        path = _locate(data_dir, file)
        if path is None:
            checks.append(FileCheck(file.name, None, False, None, None, f"missing; {_remedy(data_dir)}"))
            continue
        content, sha256, fault = _inspect(path, file)
        n_items = int.from_bytes(content[4:8], "big") if len(content) >= 8 else None
        message = f"{fault}; delete this file, then {_remedy(data_dir)}" if fault else "ok"
        checks.append(FileCheck(file.name, path, not fault, n_items, sha256, message))
    return checks


def _inspect(path: Path, file: IdxFile) -> tuple[bytes, str | None, str]:
    """Content of the unpacked file, its SHA-256, and what is wrong with it ("" when nothing is)."""
    try:
        packed = path.read_bytes()
    except OSError as error:
        return b"", None, f"must be readable, but {error.strerror or error}"
    content, fault = _unpack(packed, file) if path.suffix == ".gz" else (packed, "")
    if fault:
        return b"", None, fault
    sha256 = hashlib.sha256(content).hexdigest()
    return content, sha256, _find_fault(content, sha256, file)


def _unpack(packed: bytes, file: IdxFile) -> tuple[bytes, str]:
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


def _find_fault(content: bytes, sha256: str, file: IdxFile) -> str:
    if len(content) < file.header_size:
        return f"must begin with an IDX header of {file.header_size} bytes, but is {len(content)} bytes long"
    magic = int.from_bytes(content[:4], "big")
    if magic != file.magic:
        kinds = {0x0801: "labels", 0x0803: "images"}
        wanted, came = kinds.get(file.magic, "IDX data"), kinds.get(magic, "no IDX file of bytes")
        hint = f": {came} where {wanted} should be, are the files swapped?" if magic in kinds else f": {came}"
        return f"must begin with the magic number {file.magic} ({wanted}), but begins with {magic}{hint}"
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, file.header_size, 4))
    if shape != file.shape:
        return f"must hold {_times(file.shape)} bytes of data, but its header says {_times(shape)}"
    if len(content) != file.size:
        came_size = f"more than {file.size:,}" if len(content) == file.size + 1 else f"{len(content):,}"
        return f"must be {file.size:,} bytes long when unpacked, but is {came_size}"
    if sha256 != file.sha256:
        return f"must have the SHA-256 {file.sha256} when unpacked, but has {sha256}"
    return ""


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{n:,}" for n in shape)


def fetch(
    data_dir: Path | None = None,
    mirrors: Sequence[str] = (),
    *,
    files: Sequence[IdxFile] = FASHION_MNIST_FILES,
    default_mirrors: Sequence[str] = DEFAULT_MIRRORS,
    reach_timeout: float = REACH_TIMEOUT,
) -> Path:
    """Make sure that a folder holds all four files, each as published; download only what is missing.

    Of several processes one downloads, under a lock in the folder; the others wait and find the files.

    Args:
        data_dir: The folder, created if needed; if None, a cache that is complete, else the user's cache.
        mirrors: Base URLs to try after the default ones.
        files: What to fetch; for tests.
        default_mirrors: Base URLs to try first, in this order; for tests.
        reach_timeout: Seconds until some mirror must have answered.

    Returns:
        The folder that now holds the verified files.

    Raises:
        DataError: A file already there is corrupt, the folder is not writable, or every mirror failed.
    """
    folder = data_dir or find_data_dir(files=files) or user_cache_dir()
    missing = _missing(folder, files)
    if missing:
        with _locked(folder):
            missing = _missing(folder, files)  # again: another process may have been here while we waited
            if missing:
                _download(folder, missing, [*default_mirrors, *mirrors], reach_timeout)
    read_arrays(folder, [file for file in files if file not in missing])  # what was downloaded is verified already
    return folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Never deleted: a waiter would hold the lock of a file that is gone.
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise DataError(
            f"the data folder must be writable, but {folder} is not ({error.strerror}); "
            "name another with --data-dir DIR, or use --data synthetic"
        ) from error
    try:
        yield
    finally:
        os.close(lock)  # gives the lock back, as does the end of the process


def _download(folder: Path, missing: Sequence[IdxFile], mirrors: Sequence[str], reach_timeout: float) -> None:
    answered, causes = ask_mirrors(mirrors, missing, reach_timeout)
    for file in missing:
        for mirror in [m for m in answered if m not in causes]:
            try:
                packed = _request(mirror, file, READ_TIMEOUT, file.size + GZIP_OVERHEAD)
            except (OSError, http.client.HTTPException, ValueError) as error:
                causes[mirror] = _cause(error)
                continue
            content, fault = _unpack(packed, file)
            fault = fault or _find_fault(content, hashlib.sha256(content).hexdigest(), file)
            if not fault:
                _write(folder / f"{file.name}.gz", packed)
                logger.info("data file downloaded", extra={"file": file.name, "mirror": mirror, "folder": str(folder)})
                break
            causes[mirror] = f"{file.name}.gz {fault}"
        else:
            raise DataError(
                f"{file.name}.gz must come from a mirror, but all {len(mirrors)} failed: "
                + "; ".join(f"{mirror} ({causes[mirror]})" for mirror in mirrors)
                + "; name a folder that has the files with --data-dir DIR, or use --data synthetic"
            )


def _request(mirror: str, file: IdxFile, timeout: float, n_bytes: int) -> bytes:
    with urllib.request.urlopen(f"{mirror.rstrip('/')}/{file.name}.gz", timeout=timeout) as response:
        content: bytes = response.read(n_bytes)
    return content


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", None)  # URLError hides the OSError here, HTTPError the words of its status
    code = getattr(error, "code", "")
    return " ".join(f"{code} {reason or error}".split()) or type(error).__name__


def _write(path: Path, content: bytes) -> None:
    """Write verified bytes so that `path` is whole or absent, whatever interrupts; an old `.part` is overwritten."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise DataError(
            f"{path} must be writable, but {error.strerror}; free space there, or name another folder "
            "with --data-dir DIR"
        ) from error


def ask_mirrors(
    mirrors: Sequence[str], files: Sequence[IdxFile] = FASHION_MNIST_FILES, reach_timeout: float = REACH_TIMEOUT
) -> tuple[list[str], dict[str, str]]:
    """Ask all mirrors at once for the first byte of the smallest file.

    Each in a daemon thread, because name resolution and a host of many dead addresses heed no socket timeout.

    Returns:
        The mirrors that answered, in the given order, and the cause for each other one. Complete after
        `reach_timeout` seconds, or CONNECT_TIMEOUT seconds if one has answered by then.
    """
    smallest = min(files, key=lambda file: file.size)
    outcomes: queue.Queue[tuple[str, str]] = queue.Queue()

    def ask(mirror: str) -> None:
        try:
            outcomes.put((mirror, "" if _request(mirror, smallest, CONNECT_TIMEOUT, 1) else "sent nothing"))
        except Exception as error:  # whatever it is, it is this mirror's cause, not the caller's end
            outcomes.put((mirror, _cause(error)))

    for mirror in mirrors:
        threading.Thread(target=ask, args=(mirror,), daemon=True).start()
    started = time.monotonic()
    found: dict[str, str] = {}
    while len(found) < len(set(mirrors)):
        limit = min(CONNECT_TIMEOUT, reach_timeout) if "" in found.values() else reach_timeout
        try:
            mirror, cause = outcomes.get(timeout=max(0.0, started + limit - time.monotonic()))
        except queue.Empty:
            break
        found[mirror] = cause
    answered = [mirror for mirror in mirrors if found.get(mirror) == ""]
    return answered, {m: found.get(m, "no answer in time") for m in mirrors if m not in answered}
