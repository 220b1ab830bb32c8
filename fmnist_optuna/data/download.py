"""Fashion-MNIST from a mirror: which one answers, one downloader at a time, each file verified before it is there.

Owns the mirrors, the time limits and the lock of the data folder. What a file must be, `fashion_mnist` says.
"""

import contextlib
import fcntl
import hashlib
import http.client
import logging
import os
import queue
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fmnist_optuna.data import fashion_mnist
from fmnist_optuna.data.fashion_mnist import (
    find_data_dir,
    missing_files,
    read_arrays,
    user_cache_dir,
)
from fmnist_optuna.data.idx import IdxFile, find_fault, unpack
from fmnist_optuna.durable import whole_file
from fmnist_optuna.errors import DataError
from fmnist_optuna.log import log_event

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 3.0  # seconds; grace that slower mirrors get once a first one has answered
REACH_TIMEOUT = 10.0  # seconds until some mirror must have sent a first byte, name resolution included
READ_TIMEOUT = 30.0  # seconds without a byte, once the mirror has answered
GZIP_OVERHEAD = 65_536  # bytes; no honest .gz is longer than its content plus this

DEFAULT_MIRRORS = (
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)


def fetch(
    data_dir: Path | None = None,
    mirrors: Sequence[str] = (),
) -> Path:
    """Make sure that a folder holds all four files, each as published; download only what is missing.

    Of several processes one downloads, under a lock in the folder; the others wait and find the files.

    Args:
        data_dir: The folder, created if needed; if None, a cache that is complete, else the user's cache.
        mirrors: Base URLs to try after the default ones.

    Returns:
        The folder that now holds the verified files.

    Raises:
        DataError: A file already there is corrupt, the folder is not writable, or every mirror failed.
    """
    folder = data_dir or find_data_dir() or user_cache_dir()
    missing = missing_files(folder)
    if missing:
        with _locked(folder):
            missing = missing_files(folder)  # again: another process may have been here while we waited
            if missing:
                _download(folder, missing, [*DEFAULT_MIRRORS, *mirrors])
    there = [file for file in fashion_mnist.FASHION_MNIST_FILES if file not in missing]
    read_arrays(folder, there)  # what was downloaded is verified already
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
            "name another (--data-dir DIR), or use the source synthetic (--data synthetic)"
        ) from error
    try:
        yield
    finally:
        os.close(lock)  # gives the lock back, as does the end of the process


def _download(folder: Path, missing: Sequence[IdxFile], mirrors: Sequence[str]) -> None:
    answered, causes = ask_mirrors(mirrors, missing)
    for file in missing:
        for mirror in [m for m in answered if m not in causes]:
            try:
                packed = _request(mirror, file, READ_TIMEOUT, file.size + GZIP_OVERHEAD)
            except (OSError, http.client.HTTPException, ValueError) as error:
                causes[mirror] = _cause(error)
                continue
            content, fault = unpack(packed, file)
            fault = fault or find_fault(content, hashlib.sha256(content).hexdigest(), file)
            if not fault:
                _write(folder / f"{file.name}.gz", packed)
                log_event(
                    logger,
                    logging.INFO,
                    "file_downloaded",
                    file=file.name,
                    mirror=urlsplit(mirror).hostname,
                    folder=folder,
                )
                break
            causes[mirror] = f"{file.name}.gz {fault}"
        else:
            raise DataError(
                f"{file.name}.gz must come from a mirror, but all {len(mirrors)} failed: "
                + "; ".join(f"{mirror} ({causes[mirror]})" for mirror in mirrors)
                + "; name a folder that has the files (--data-dir DIR), or use the source synthetic (--data synthetic)"
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
    """Write verified bytes, under the lock of the folder."""
    try:
        with whole_file(path, path.with_name(f"{path.name}.part")) as file:
            file.write(content)
    except OSError as error:
        raise DataError(
            f"{path} must be writable, but {error.strerror}; free space there, or name another folder (--data-dir DIR)"
        ) from error


def ask_mirrors(mirrors: Sequence[str], files: Sequence[IdxFile]) -> tuple[list[str], dict[str, str]]:
    """Ask all mirrors at once for the first byte of the smallest file.

    Each in a daemon thread, because name resolution and a host of many dead addresses heed no socket timeout.

    Returns:
        The mirrors that answered, in the given order, and the cause for each other one. Complete after
        REACH_TIMEOUT seconds, or CONNECT_TIMEOUT seconds if one has answered by then.
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
        limit = min(CONNECT_TIMEOUT, REACH_TIMEOUT) if "" in found.values() else REACH_TIMEOUT
        try:
            mirror, cause = outcomes.get(timeout=max(0.0, started + limit - time.monotonic()))
        except queue.Empty:
            break
        found[mirror] = cause
    answered = [mirror for mirror in mirrors if found.get(mirror) == ""]
    return answered, {m: found.get(m, "no answer in time") for m in mirrors if m not in answered}
