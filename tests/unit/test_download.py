"""Fashion-MNIST from a mirror, and which source is taken where it cannot be had. No test leaves this machine."""

import gzip
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from idx_files import (
    CONTENTS,
    FILES,
    FLIPPED,
    GOOD_BODIES,
    N_TEST,
    TEST_LABELS,
    TRAIN_IMAGES,
    Mirror,
    fetch,
    fill,
    load,
    resolve,
)

from fmnist_optuna.data import download
from fmnist_optuna.data.fashion_mnist import keras_cache_dir, user_cache_dir, verify_files
from fmnist_optuna.errors import DataError

pytestmark = pytest.mark.usefixtures("own_caches")


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_fetch_downloads_the_four_files(mirror: Mirror) -> None:
    """fetch leaves the four packed files in the user's cache, and nothing else but its lock."""
    folder = fetch(default_mirrors=[mirror.url])
    assert folder == user_cache_dir()
    assert names_in(folder) == set(GOOD_BODIES)
    assert load(None).train_labels.shape == (40,)


def test_fetch_into_a_folder_gets_only_what_is_missing(tmp_path: Path, mirror: Mirror) -> None:
    """Good files in the folder stay; the missing one alone is downloaded."""
    folder = fill(tmp_path / "data")
    (folder / f"{TRAIN_IMAGES}.gz").unlink()
    assert fetch(folder, default_mirrors=[mirror.url]) == folder
    assert set(mirror.requests) == {f"{TRAIN_IMAGES}.gz"}
    assert all(check.ok for check in verify_files(folder))


def test_fetch_asks_no_mirror_when_all_is_there(closed_url: str) -> None:
    """A complete cache, Keras' too, is returned as it is."""
    keras = fill(keras_cache_dir())
    assert fetch(default_mirrors=[closed_url]) == keras


def test_fetch_never_replaces_a_corrupt_file(tmp_path: Path, mirror: Mirror) -> None:
    """A corrupt file in the folder is an error, and stays for the user to look at."""
    folder = fill(tmp_path / "data", {**CONTENTS, TRAIN_IMAGES: FLIPPED})
    with pytest.raises(DataError, match="must have the SHA-256"):
        fetch(folder, default_mirrors=[mirror.url])
    assert gzip.decompress((folder / f"{TRAIN_IMAGES}.gz").read_bytes()) == FLIPPED
    assert mirror.requests == []


def test_second_mirror_serves_when_the_first_refuses(tmp_path: Path, mirror: Mirror, closed_url: str) -> None:
    """A mirror that cannot be reached is passed over; the user's own comes last and works."""
    folder = fetch(tmp_path / "data", [mirror.url], default_mirrors=[closed_url])
    assert names_in(folder) == set(GOOD_BODIES)


def test_second_mirror_serves_what_the_first_lacks(tmp_path: Path, mirror: Mirror) -> None:
    """A mirror that answers but lacks a file is left for the next one."""
    lacking = Mirror({f"{TEST_LABELS}.gz": GOOD_BODIES[f"{TEST_LABELS}.gz"]})
    folder = fetch(tmp_path / "data", default_mirrors=[lacking.url, mirror.url])
    lacking.close()
    assert names_in(folder) == set(GOOD_BODIES)


def test_wrong_content_is_refused(tmp_path: Path) -> None:
    """A mirror with other content leaves no file behind, and the error says what came."""
    wrong = Mirror({**GOOD_BODIES, f"{TRAIN_IMAGES}.gz": gzip.compress(FLIPPED, 1)})
    with pytest.raises(DataError) as caught:
        fetch(tmp_path / "data", default_mirrors=[wrong.url])
    wrong.close()
    assert f"{wrong.url} ({TRAIN_IMAGES}.gz must have the SHA-256 {FILES[0].sha256}" in str(caught.value)
    assert names_in(tmp_path / "data") == set()


def test_right_content_from_the_second_mirror(tmp_path: Path, mirror: Mirror) -> None:
    """After wrong content from the first mirror the second one's is used."""
    wrong = Mirror({**GOOD_BODIES, f"{TRAIN_IMAGES}.gz": b"<html>sign in</html>"})
    folder = fetch(tmp_path / "data", default_mirrors=[wrong.url, mirror.url])
    wrong.close()
    assert all(check.ok for check in verify_files(folder))


def test_all_mirrors_failing_names_each_cause(tmp_path: Path, closed_url: str) -> None:
    """When no mirror works, one line names each with its cause and the two ways out."""
    broken, lacking = Mirror(GOOD_BODIES, status=503), Mirror({})
    with pytest.raises(DataError) as caught:
        fetch(tmp_path / "data", [lacking.url], default_mirrors=[closed_url, broken.url])
    broken.close()
    lacking.close()
    text = str(caught.value)
    assert f"all 3 failed: {closed_url} ([Errno " in text
    assert "Connection refused)" in text
    assert f"{broken.url} (503 Service Unavailable); {lacking.url} (404 Not Found)" in text
    assert text.endswith("(--data-dir DIR), or use the source synthetic (--data synthetic)")
    assert "\n" not in text


def test_leftover_part_file_is_overwritten(tmp_path: Path, mirror: Mirror) -> None:
    """What a killed download left is overwritten and gone after the next one."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / f"{TRAIN_IMAGES}.gz.part").write_bytes(b"half" * 100_000)
    fetch(folder, default_mirrors=[mirror.url])
    assert names_in(folder) == set(GOOD_BODIES)
    assert (folder / f"{TRAIN_IMAGES}.gz").read_bytes() == GOOD_BODIES[f"{TRAIN_IMAGES}.gz"]


def test_concurrent_fetches_download_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four that fetch at once one downloads; the others wait and find the files."""
    slow = Mirror(GOOD_BODIES, delay=0.03)
    monkeypatch.setattr(download, "DEFAULT_MIRRORS", [slow.url])
    with ThreadPoolExecutor(4) as pool:
        fetches = [pool.submit(download.fetch, tmp_path / "data") for _ in range(4)]
        assert {future.result() for future in fetches} == {tmp_path / "data"}
    slow.close()
    # The smallest file is asked for twice: its first byte tells that the mirror is there.
    assert sorted(slow.requests) == sorted([*GOOD_BODIES, f"{TEST_LABELS}.gz"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_folder_that_cannot_be_written_is_an_error(tmp_path: Path, mirror: Mirror) -> None:
    """A read-only place is an error that names the folder and the ways out."""
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match=f"must be writable, but {tmp_path / 'data'} is not"):
        fetch(tmp_path / "data", default_mirrors=[mirror.url])


def test_failed_write_leaves_no_part_file(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up is an error that names the file; the half file is removed."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=f"{TRAIN_IMAGES}.gz must be writable, but No space left on device"):
        fetch(tmp_path / "data", default_mirrors=[mirror.url])
    assert names_in(tmp_path / "data") == set()


def test_auto_falls_back_only_without_files_and_mirrors(closed_url: str) -> None:
    """auto is synthetic when nothing is on disk and no mirror answers, and the reason names the mirror."""
    resolved = resolve("auto", default_mirrors=[closed_url])
    assert (resolved.source, resolved.data_dir) == ("synthetic", None)
    assert "neither on disk nor reachable" in resolved.reason
    assert closed_url in resolved.reason


def test_auto_gives_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror that accepts and then says nothing costs no more than the time allowed."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(download, "REACH_TIMEOUT", 0.2)
        started = time.monotonic()
        resolved = resolve("auto", default_mirrors=[url])
        assert 0.2 <= time.monotonic() - started < 2.0
    assert resolved.source == "synthetic"
    assert f"{url} (no answer in time)" in resolved.reason


def test_auto_uses_the_mirror_that_answers(mirror: Mirror, closed_url: str) -> None:
    """auto downloads when any mirror answers, the user's own included."""
    resolved = resolve("auto", None, [mirror.url], default_mirrors=[closed_url])
    assert (resolved.source, resolved.data_dir) == ("fashion-mnist", user_cache_dir())
    assert load(resolved.data_dir).test_labels.shape == (N_TEST,)


def test_auto_prefers_files_on_disk(closed_url: str) -> None:
    """auto asks no mirror when a cache is complete."""
    keras = fill(keras_cache_dir())
    resolved = resolve("auto", default_mirrors=[closed_url])
    assert (resolved.source, resolved.data_dir) == ("fashion-mnist", keras)
    assert resolved.reason == f"Fashion-MNIST found in {keras}"


@pytest.mark.parametrize("source", ["auto", "fashion-mnist"])
def test_bad_given_folder_is_an_error(tmp_path: Path, source: str, mirror: Mirror) -> None:
    """A folder that was named but lacks files is never replaced by anything, not even under auto."""
    with pytest.raises(DataError, match="the data folder must exist"):
        resolve(source, tmp_path / "no", default_mirrors=[mirror.url])
    assert mirror.requests == []


def test_auto_with_wrong_content_is_an_error() -> None:
    """A mirror that answers with wrong content ends auto with an error, not with synthetic data."""
    wrong = Mirror(dict.fromkeys(GOOD_BODIES, b"<html>sign in</html>"))
    with pytest.raises(DataError, match="must be a gzip file, but begins with b'<html>si'"):
        resolve("auto", default_mirrors=[wrong.url])
    wrong.close()


def test_fashion_mnist_never_falls_back(closed_url: str) -> None:
    """Asked for by name, Fashion-MNIST that cannot be had is an error."""
    with pytest.raises(DataError, match=r"all 1 failed: .*--data synthetic"):
        resolve("fashion-mnist", default_mirrors=[closed_url])


def test_synthetic_looks_nowhere(tmp_path: Path, mirror: Mirror) -> None:
    """synthetic neither looks at the folder nor asks a mirror."""
    resolved = resolve("synthetic", tmp_path / "no", default_mirrors=[mirror.url])
    assert (resolved.source, resolved.data_dir, mirror.requests) == ("synthetic", None, [])
