"""What the tests of data share: empty caches, tiny files in the place of the real ones, a mirror."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from idx_files import FILES, GOOD_BODIES, Mirror

from fmnist_optuna.data import fashion_mnist


@pytest.fixture
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches for every test, the small files in the place of the real ones, and no proxy before its server."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fashion_mnist, "FASHION_MNIST_FILES", FILES)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror(GOOD_BODIES)
    yield server
    server.close()


@pytest.fixture
def closed_url() -> str:
    """Address of a port on which nothing listens: the connection is refused at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"
