"""Tiny files in the place of Fashion-MNIST's, and a web server on 127.0.0.1 in the place of its mirrors."""

import gzip
import hashlib
import http.server
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fmnist_optuna.data import download
from fmnist_optuna.data.idx import IdxFile
from fmnist_optuna.data.source import ResolvedData, load_splits, resolve_source
from fmnist_optuna.data.split import Splits

N_TRAIN, N_TEST = 60, 20

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES


def idx(array: np.ndarray) -> bytes:
    header = (0x0800 + array.ndim, *array.shape)
    return b"".join(n.to_bytes(4, "big") for n in header) + array.tobytes()


def make_contents() -> dict[str, bytes]:
    """Unpacked IDX files of 60 and 20 random images, every class equally frequent."""
    generator = np.random.Generator(np.random.PCG64(7))
    contents = {}
    for names, n_images in ((NAMES[:2], N_TRAIN), (NAMES[2:], N_TEST)):
        contents[names[0]] = idx(generator.integers(0, 256, (n_images, 28, 28), dtype=np.uint8))
        contents[names[1]] = idx((np.arange(n_images) % 10).astype(np.uint8))
    return contents


def table(contents: dict[str, bytes]) -> tuple[IdxFile, ...]:
    shapes = ((N_TRAIN, 28, 28), (N_TRAIN,), (N_TEST, 28, 28), (N_TEST,))
    return tuple(
        IdxFile(name, shape, hashlib.sha256(contents[name]).hexdigest())
        for name, shape in zip(NAMES, shapes, strict=True)
    )


CONTENTS = make_contents()

FILES = table(CONTENTS)


def fill(folder: Path, contents: dict[str, bytes] = CONTENTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content, 1))
    return folder


def load(folder: Path | None, n_validation: int = 20, split_seed: int = 0, expected: str | None = None) -> Splits:
    return load_splits("fashion-mnist", n_validation, split_seed, folder, expected)


def fetch(folder: Path | None = None, mirrors: Sequence[str] = (), *, default_mirrors: Sequence[str]) -> Path:
    """`download.fetch` with other mirrors than the real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "DEFAULT_MIRRORS", default_mirrors)
        return download.fetch(folder, mirrors)


def resolve(
    source: str, folder: Path | None = None, mirrors: Sequence[str] = (), *, default_mirrors: Sequence[str]
) -> ResolvedData:
    """`resolve_source` with other mirrors than the real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "DEFAULT_MIRRORS", default_mirrors)
        return resolve_source(source, folder, mirrors)


class Mirror:
    """A web server that serves the given bodies by file name, or a status, and counts what it was asked for."""

    def __init__(self, bodies: dict[str, bytes], status: int = 200, delay: float = 0.0) -> None:
        self.requests: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805
                name = handler.path.rsplit("/", 1)[-1]
                self.requests.append(name)
                time.sleep(delay)
                handler.send_response(status if name in bodies else 404)
                handler.end_headers()
                handler.wfile.write(bodies.get(name, b""))

            def log_message(handler, *args: object) -> None:  # noqa: N805
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/fashion/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


GOOD_BODIES = {f"{name}.gz": gzip.compress(content, 1) for name, content in CONTENTS.items()}

FLIPPED = CONTENTS[TRAIN_IMAGES][:-1] + bytes([CONTENTS[TRAIN_IMAGES][-1] ^ 1])
