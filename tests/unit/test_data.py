"""Fashion-MNIST on disk, from a mirror and split: every promise of `learning.data`, `files` and `download`.

The files are tiny and made here; a real HTTP server on 127.0.0.1 plays the mirror. No test leaves this machine.
"""

import gzip
import hashlib
import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fmnist_optuna.data.download import fetch
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST, find_data_dir, keras_cache_dir, user_cache_dir, verify_files
from fmnist_optuna.data.idx import IdxFile
from fmnist_optuna.data.source import load_splits, resolve_source
from fmnist_optuna.data.split import Splits, split_indices
from fmnist_optuna.errors import DataError, MismatchError, UsageError

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
    return load_splits("fashion-mnist", n_validation, split_seed, folder, expected, files=FILES)


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches for every test, and no proxy between it and its server."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("no_proxy", "*")


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


# Loading and splitting


def test_load_gives_the_bytes_of_the_files(tmp_path: Path) -> None:
    """Every training image is in exactly one role, in the order of the file, and the test images are untouched."""
    splits = load(fill(tmp_path / "data"))
    images = np.frombuffer(CONTENTS[TRAIN_IMAGES], np.uint8, offset=16).reshape(N_TRAIN, 28, 28)
    rows = [image.tobytes() for image in images]
    train = [rows.index(image.tobytes()) for image in splits.train_images]
    validation = [rows.index(image.tobytes()) for image in splits.validation_images]
    assert sorted(train + validation) == list(range(N_TRAIN))
    assert train == sorted(train)
    assert validation == sorted(validation)
    assert splits.train_labels.tolist() == [i % 10 for i in train]
    assert splits.validation_labels.tolist() == [i % 10 for i in validation]
    assert splits.test_images.tobytes() == CONTENTS[TEST_IMAGES][16:]
    assert splits.test_labels.tobytes() == CONTENTS[TEST_LABELS][8:]


def test_arrays_are_contiguous_read_only_uint8(tmp_path: Path) -> None:
    """All six arrays are C-contiguous uint8 of the promised shapes that nobody can write to."""
    splits = load(fill(tmp_path / "data"), n_validation=20)
    expected = {
        "train_images": (40, 28, 28),
        "train_labels": (40,),
        "validation_images": (20, 28, 28),
        "validation_labels": (20,),
        "test_images": (N_TEST, 28, 28),
        "test_labels": (N_TEST,),
    }
    for name, shape in expected.items():
        array = getattr(splits, name)
        assert (array.shape, array.dtype) == (shape, np.uint8)
        assert array.flags.c_contiguous
        assert not array.flags.writeable
    assert splits.source == "fashion-mnist"
    assert splits.info == FASHION_MNIST


def test_unpacked_files_load_like_packed_ones(tmp_path: Path) -> None:
    """A file without .gz is used as it is, and the data are the same."""
    packed = load(fill(tmp_path / "packed"))
    unpacked = fill(tmp_path / "unpacked")
    for name in NAMES[:2]:
        (unpacked / f"{name}.gz").unlink()
        (unpacked / name).write_bytes(CONTENTS[name])
    assert load(unpacked).fingerprint == packed.fingerprint


@pytest.mark.parametrize("n_validation", [10, 20, 50])
def test_split_is_stratified_exactly(tmp_path: Path, n_validation: int) -> None:
    """Of ten equally frequent classes each gives a tenth of the validation images."""
    splits = load(fill(tmp_path / "data"), n_validation)
    assert np.bincount(splits.validation_labels).tolist() == [n_validation // 10] * 10


def test_split_rounds_by_largest_remainder() -> None:
    """Uneven classes get their rounded share, and the shares add up to n_validation."""
    labels = np.repeat(np.arange(10, dtype=np.uint8), [1, 2, 3, 4, 5, 6, 7, 8, 9, 15])
    _, validation = split_indices(labels, FASHION_MNIST.class_names, 13, 0)
    # 13 / 60 of each: .22 .43 .65 .87 1.08 1.30 1.52 1.73 1.95 3.25; the floors add up to 8; the five
    # largest remainders are .95 .87 .73 .65 .52 of classes 8 3 7 2 6.
    assert np.bincount(labels[validation], minlength=10).tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2, 3]


def test_split_depends_on_its_seed_only(tmp_path: Path) -> None:
    """The same seed gives the same split, another seed another one."""
    folder = fill(tmp_path / "data")
    first, again, other = load(folder), load(folder), load(folder, split_seed=1)
    assert first.fingerprint == again.fingerprint
    assert first.validation_images.tobytes() == again.validation_images.tobytes()
    assert first.validation_images.tobytes() != other.validation_images.tobytes()
    assert first.fingerprint != other.fingerprint


@pytest.mark.parametrize("n_validation", [-1, 0, 9, 51, 60])
def test_n_validation_out_of_range_is_refused(tmp_path: Path, n_validation: int) -> None:
    """Fewer validation images than classes, or fewer training images, is a usage error with the range."""
    with pytest.raises(UsageError, match=f"n_validation must be 10 to 50 for 60 .* but got {n_validation}$"):
        load(fill(tmp_path / "data"), n_validation)


def test_negative_split_seed_is_refused(tmp_path: Path) -> None:
    """A seed below 0 is a usage error, not a traceback from numpy."""
    with pytest.raises(UsageError, match="split_seed must be 0 or more, but got -1"):
        load(fill(tmp_path / "data"), split_seed=-1)


def test_unresolved_source_is_refused() -> None:
    """load_splits decides nothing: "auto" must be resolved before."""
    with pytest.raises(UsageError, match="once resolved, but got 'auto'"):
        load_splits("auto", 12_000, 0)


# Fingerprint


def test_fingerprint_is_what_its_docstring_says(tmp_path: Path) -> None:
    """The fingerprint can be computed by hand from source, shapes, bytes and indices."""
    splits = load(fill(tmp_path / "data"), 20)
    train, validation = split_indices((np.arange(N_TRAIN) % 10).astype(np.uint8), FASHION_MNIST.class_names, 20, 0)
    parts = [b"fashion-mnist"]
    for name in NAMES:
        offset = 16 if "images" in name else 8
        n_images = N_TRAIN if "train" in name else N_TEST
        shape = (n_images, 28, 28) if "images" in name else (n_images,)
        parts += [f"\n{shape}\n".encode(), CONTENTS[name][offset:]]
    for indices in (train, validation):
        parts += [f"\n({len(indices)},)\n".encode(), indices.astype("<i8").tobytes()]
    assert splits.fingerprint == hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_fingerprint_changes_with_one_byte(tmp_path: Path, name: str) -> None:
    """One other pixel or one other label anywhere gives another fingerprint."""
    changed = {**CONTENTS, name: CONTENTS[name][:-1] + bytes([CONTENTS[name][-1] ^ 1])}
    folder = fill(tmp_path / "changed", changed)
    other = load_splits("fashion-mnist", 20, 0, folder, files=table(changed))
    assert other.fingerprint != load(fill(tmp_path / "data")).fingerprint


def test_expected_fingerprint_is_enforced(tmp_path: Path) -> None:
    """The expected fingerprint passes, any other is an error that shows both."""
    folder = fill(tmp_path / "data")
    fingerprint = load(folder).fingerprint
    assert load(folder, expected=fingerprint).fingerprint == fingerprint
    with pytest.raises(MismatchError) as caught:
        load(folder, split_seed=1, expected=fingerprint)
    assert fingerprint in str(caught.value)
    assert "split_seed=1" in str(caught.value)


# Bad files


def header(magic: int, *shape: int) -> bytes:
    return b"".join(n.to_bytes(4, "big") for n in (magic, *shape))


PACKED = gzip.compress(CONTENTS[TRAIN_IMAGES], 1)
FLIPPED = CONTENTS[TRAIN_IMAGES][:-1] + bytes([CONTENTS[TRAIN_IMAGES][-1] ^ 1])
BAD_FILES = {
    "empty": (b"", "must be a gzip file, but begins with b''"),
    "not gzip": (b"<html>sign in</html>", "must be a gzip file, but begins with b'<html>si'"),
    "cut off": (PACKED[:1000], "must be a whole gzip file, but it is cut off after 1,000 bytes"),
    "no trailer": (PACKED[:-4], f"must be a whole gzip file, but it is cut off after {len(PACKED) - 4:,} bytes"),
    "damaged": (PACKED[:10] + b"\xff" * 20 + PACKED[30:], "must be a whole gzip file, but it is damaged"),
    "wrong crc": (PACKED[:-8] + b"\0" * 4 + PACKED[-4:], "must be a whole gzip file, but it is damaged"),
    "no header": (gzip.compress(b"abc"), "must begin with an IDX header of 16 bytes, but is 3 bytes long"),
    "swapped": (
        gzip.compress(CONTENTS[TRAIN_LABELS]),
        "must begin with the magic number 2051 (images), but begins with 2049: labels where images should be, "
        "are the files swapped?",
    ),
    "other magic": (
        gzip.compress(header(1, 60, 28, 28)),
        "must begin with the magic number 2051 (images), but begins with 1: no IDX file of bytes",
    ),
    "test for train": (
        gzip.compress(CONTENTS[TEST_IMAGES]),
        "must hold 60 x 28 x 28 bytes of data, but its header says 20 x 28 x 28",
    ),
    "too short": (
        gzip.compress(CONTENTS[TRAIN_IMAGES][:-1]),
        "must be 47,056 bytes long when unpacked, but is 47,055",  # 16 + 60 * 28 * 28
    ),
    "too long": (
        gzip.compress(CONTENTS[TRAIN_IMAGES] + b"1234"),
        "must be 47,056 bytes long when unpacked, but is more than 47,056",
    ),
    "other pixel": (
        gzip.compress(FLIPPED),
        f"must have the SHA-256 {FILES[0].sha256} when unpacked, but has {hashlib.sha256(FLIPPED).hexdigest()}",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_file_is_an_error_that_says_what_is_wrong(tmp_path: Path, kind: str) -> None:
    """Every way to be wrong has its own words, names the file and ends with the next command; the file stays."""
    body, message = BAD_FILES[kind]
    folder = fill(tmp_path / "data")
    path = folder / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(body)
    with pytest.raises(DataError) as caught:
        load(folder)
    text = str(caught.value)
    assert text.startswith(f"{path}: {message}")
    assert text.endswith(f"delete this file, then run: fmnist-optuna data fetch --data-dir {folder}")
    assert "\n" not in text
    assert path.read_bytes() == body


def test_images_where_labels_should_be_is_named(tmp_path: Path) -> None:
    """A label file that holds images is called swapped, too."""
    folder = fill(tmp_path / "data", {**CONTENTS, TEST_LABELS: CONTENTS[TEST_IMAGES]})
    # The label file's bound of bytes is passed long before the images end; the header still tells.
    with pytest.raises(DataError, match=r"begins with 2051: images where labels should be, are the files swapped\?"):
        load(folder)


def test_corrupt_unpacked_file_is_an_error(tmp_path: Path) -> None:
    """An unpacked file is checked like a packed one, even beside a good packed one."""
    folder = fill(tmp_path / "data")
    (folder / TRAIN_IMAGES).write_bytes(FLIPPED)
    with pytest.raises(DataError, match=f"{TRAIN_IMAGES}: must have the SHA-256"):
        load(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_an_error(tmp_path: Path) -> None:
    """A file that may not be read is an error that says so."""
    folder = fill(tmp_path / "data")
    (folder / f"{TRAIN_IMAGES}.gz").chmod(0)
    with pytest.raises(DataError, match="must be readable, but Permission denied"):
        load(folder)


def test_verify_reports_on_every_file(tmp_path: Path) -> None:
    """One line per file, good, corrupt or missing, without an exception."""
    folder = fill(tmp_path / "data", {**CONTENTS, TRAIN_IMAGES: FLIPPED})
    (folder / f"{TEST_LABELS}.gz").unlink()
    bad, labels, images, missing = verify_files(folder, files=FILES)
    assert (bad.ok, bad.n_items, bad.sha256) == (False, N_TRAIN, hashlib.sha256(FLIPPED).hexdigest())
    assert bad.message.startswith("must have the SHA-256")
    assert (labels.ok, labels.name, labels.n_items, labels.message) == (True, TRAIN_LABELS, N_TRAIN, "ok")
    assert (images.ok, images.path, images.sha256) == (True, folder / f"{TEST_IMAGES}.gz", FILES[2].sha256)
    assert (missing.ok, missing.path, missing.n_items, missing.sha256) == (False, None, None, None)
    assert missing.message == f"missing; run: fmnist-optuna data fetch --data-dir {folder}"


# Where it is looked for


def test_given_folder_must_exist(tmp_path: Path) -> None:
    """A folder that is named but missing is an error with the command that fills it."""
    folder = tmp_path / "nowhere"
    fill(user_cache_dir())
    with pytest.raises(DataError) as caught:
        find_data_dir(folder, files=FILES)
    assert str(caught.value) == (
        f"the data folder must exist, but {folder} does not; run: fmnist-optuna data fetch --data-dir {folder}"
    )


def test_given_folder_must_be_a_folder(tmp_path: Path) -> None:
    """A file given as the folder is an error that says so."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=f"must be a folder, but {path} is a file"):
        find_data_dir(path, files=FILES)


def test_three_of_four_files_names_the_fourth(tmp_path: Path) -> None:
    """A given folder that lacks a file is an error that names it and the command that fetches it."""
    folder = fill(tmp_path / "data")
    (folder / f"{TEST_IMAGES}.gz").unlink()
    with pytest.raises(DataError) as caught:
        load(folder)
    assert str(caught.value) == (
        f"the data folder must hold 4 files, but {folder} lacks 1: {TEST_IMAGES}.gz; "
        f"run: fmnist-optuna data fetch --data-dir {folder}"
    )


def test_search_order(tmp_path: Path) -> None:
    """The given folder alone counts; else the user's cache, then Keras'; an incomplete cache is not there."""
    given = fill(tmp_path / "given")
    assert find_data_dir(files=FILES) is None
    keras = fill(keras_cache_dir())
    assert find_data_dir(files=FILES) == keras == tmp_path / "keras" / "datasets" / "fashion-mnist"
    user = fill(user_cache_dir())
    assert find_data_dir(files=FILES) == user == tmp_path / "cache" / "fmnist-optuna" / "fashion-mnist"
    assert find_data_dir(given, files=FILES) == given
    (user / f"{TRAIN_LABELS}.gz").unlink()
    assert find_data_dir(files=FILES) == keras


def test_caches_without_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without variables the caches are where the system and Keras have them; a relative XDG path is ignored."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    assert user_cache_dir() == tmp_path / ".cache" / "fmnist-optuna" / "fashion-mnist"
    assert keras_cache_dir() == tmp_path / ".keras" / "datasets" / "fashion-mnist"
    monkeypatch.setattr("sys.platform", "darwin")
    assert user_cache_dir() == tmp_path / "Library" / "Caches" / "fmnist-optuna" / "fashion-mnist"


def test_load_never_downloads() -> None:
    """Without files on disk, load_splits names both caches and the command that fetches."""
    with pytest.raises(DataError) as caught:
        load(None)
    assert str(caught.value) == (
        f"Fashion-MNIST must be on disk, but neither {user_cache_dir()} nor {keras_cache_dir()} holds all 4 files; "
        "run: fmnist-optuna data fetch"
    )


def test_corrupt_cache_raises(tmp_path: Path) -> None:
    """A complete cache with a corrupt file is an error, although the next cache is good."""
    fill(user_cache_dir(), {**CONTENTS, TRAIN_IMAGES: FLIPPED})
    fill(keras_cache_dir())
    with pytest.raises(DataError, match="must have the SHA-256"):
        load(None)


# Download


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_fetch_downloads_the_four_files(mirror: Mirror) -> None:
    """fetch leaves the four packed files in the user's cache, and nothing else but its lock."""
    folder = fetch(files=FILES, default_mirrors=[mirror.url])
    assert folder == user_cache_dir()
    assert names_in(folder) == set(GOOD_BODIES)
    assert load(None).train_labels.shape == (40,)


def test_fetch_into_a_folder_gets_only_what_is_missing(tmp_path: Path, mirror: Mirror) -> None:
    """Good files in the folder stay; the missing one alone is downloaded."""
    folder = fill(tmp_path / "data")
    (folder / f"{TRAIN_IMAGES}.gz").unlink()
    assert fetch(folder, files=FILES, default_mirrors=[mirror.url]) == folder
    assert set(mirror.requests) == {f"{TRAIN_IMAGES}.gz"}
    assert all(check.ok for check in verify_files(folder, files=FILES))


def test_fetch_asks_no_mirror_when_all_is_there(closed_url: str) -> None:
    """A complete cache, Keras' too, is returned as it is."""
    keras = fill(keras_cache_dir())
    assert fetch(files=FILES, default_mirrors=[closed_url]) == keras


def test_fetch_never_replaces_a_corrupt_file(tmp_path: Path, mirror: Mirror) -> None:
    """A corrupt file in the folder is an error, and stays for the user to look at."""
    folder = fill(tmp_path / "data", {**CONTENTS, TRAIN_IMAGES: FLIPPED})
    with pytest.raises(DataError, match="must have the SHA-256"):
        fetch(folder, files=FILES, default_mirrors=[mirror.url])
    assert gzip.decompress((folder / f"{TRAIN_IMAGES}.gz").read_bytes()) == FLIPPED
    assert mirror.requests == []


def test_second_mirror_serves_when_the_first_refuses(tmp_path: Path, mirror: Mirror, closed_url: str) -> None:
    """A mirror that cannot be reached is passed over; the user's own comes last and works."""
    folder = fetch(tmp_path / "data", [mirror.url], files=FILES, default_mirrors=[closed_url])
    assert names_in(folder) == set(GOOD_BODIES)


def test_second_mirror_serves_what_the_first_lacks(tmp_path: Path, mirror: Mirror) -> None:
    """A mirror that answers but lacks a file is left for the next one."""
    lacking = Mirror({f"{TEST_LABELS}.gz": GOOD_BODIES[f"{TEST_LABELS}.gz"]})
    folder = fetch(tmp_path / "data", files=FILES, default_mirrors=[lacking.url, mirror.url])
    lacking.close()
    assert names_in(folder) == set(GOOD_BODIES)


def test_wrong_content_is_refused(tmp_path: Path) -> None:
    """A mirror with other content leaves no file behind, and the error says what came."""
    wrong = Mirror({**GOOD_BODIES, f"{TRAIN_IMAGES}.gz": gzip.compress(FLIPPED, 1)})
    with pytest.raises(DataError) as caught:
        fetch(tmp_path / "data", files=FILES, default_mirrors=[wrong.url])
    wrong.close()
    assert f"{wrong.url} ({TRAIN_IMAGES}.gz must have the SHA-256 {FILES[0].sha256}" in str(caught.value)
    assert names_in(tmp_path / "data") == set()


def test_right_content_from_the_second_mirror(tmp_path: Path, mirror: Mirror) -> None:
    """After wrong content from the first mirror the second one's is used."""
    wrong = Mirror({**GOOD_BODIES, f"{TRAIN_IMAGES}.gz": b"<html>sign in</html>"})
    folder = fetch(tmp_path / "data", files=FILES, default_mirrors=[wrong.url, mirror.url])
    wrong.close()
    assert all(check.ok for check in verify_files(folder, files=FILES))


def test_all_mirrors_failing_names_each_cause(tmp_path: Path, closed_url: str) -> None:
    """When no mirror works, one line names each with its cause and the two ways out."""
    broken, lacking = Mirror(GOOD_BODIES, status=503), Mirror({})
    with pytest.raises(DataError) as caught:
        fetch(tmp_path / "data", [lacking.url], files=FILES, default_mirrors=[closed_url, broken.url])
    broken.close()
    lacking.close()
    text = str(caught.value)
    assert f"all 3 failed: {closed_url} ([Errno " in text
    assert "Connection refused)" in text
    assert f"{broken.url} (503 Service Unavailable); {lacking.url} (404 Not Found)" in text
    assert text.endswith("--data-dir DIR, or use --data synthetic")
    assert "\n" not in text


def test_leftover_part_file_is_overwritten(tmp_path: Path, mirror: Mirror) -> None:
    """What a killed download left is overwritten and gone after the next one."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / f"{TRAIN_IMAGES}.gz.part").write_bytes(b"half" * 100_000)
    fetch(folder, files=FILES, default_mirrors=[mirror.url])
    assert names_in(folder) == set(GOOD_BODIES)
    assert (folder / f"{TRAIN_IMAGES}.gz").read_bytes() == GOOD_BODIES[f"{TRAIN_IMAGES}.gz"]


def test_concurrent_fetches_download_once(tmp_path: Path) -> None:
    """Of four that fetch at once one downloads; the others wait and find the files."""
    slow = Mirror(GOOD_BODIES, delay=0.03)
    with ThreadPoolExecutor(4) as pool:
        fetches = [pool.submit(fetch, tmp_path / "data", files=FILES, default_mirrors=[slow.url]) for _ in range(4)]
        assert {future.result() for future in fetches} == {tmp_path / "data"}
    slow.close()
    # The smallest file is asked for twice: its first byte tells that the mirror is there.
    assert sorted(slow.requests) == sorted([*GOOD_BODIES, f"{TEST_LABELS}.gz"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_folder_that_cannot_be_written_is_an_error(tmp_path: Path, mirror: Mirror) -> None:
    """A read-only place is an error that names the folder and the ways out."""
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match=f"must be writable, but {tmp_path / 'data'} is not"):
        fetch(tmp_path / "data", files=FILES, default_mirrors=[mirror.url])


def test_failed_write_leaves_no_part_file(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up is an error that names the file; the half file is removed."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=f"{TRAIN_IMAGES}.gz must be writable, but No space left on device"):
        fetch(tmp_path / "data", files=FILES, default_mirrors=[mirror.url])
    assert names_in(tmp_path / "data") == set()


# Which source


def test_auto_falls_back_only_without_files_and_mirrors(closed_url: str) -> None:
    """auto is synthetic when nothing is on disk and no mirror answers, and the reason names the mirror."""
    resolved = resolve_source("auto", files=FILES, default_mirrors=[closed_url])
    assert (resolved.source, resolved.data_dir) == ("synthetic", None)
    assert "neither on disk nor reachable" in resolved.reason
    assert closed_url in resolved.reason


def test_auto_gives_up_in_time() -> None:
    """A mirror that accepts and then says nothing costs no more than the time allowed."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        started = time.monotonic()
        resolved = resolve_source("auto", files=FILES, default_mirrors=[url], reach_timeout=0.2)
        assert 0.2 <= time.monotonic() - started < 2.0
    assert resolved.source == "synthetic"
    assert f"{url} (no answer in time)" in resolved.reason


def test_auto_uses_the_mirror_that_answers(mirror: Mirror, closed_url: str) -> None:
    """auto downloads when any mirror answers, the user's own included."""
    resolved = resolve_source("auto", None, [mirror.url], files=FILES, default_mirrors=[closed_url])
    assert (resolved.source, resolved.data_dir) == ("fashion-mnist", user_cache_dir())
    assert load(resolved.data_dir).test_labels.shape == (N_TEST,)


def test_auto_prefers_files_on_disk(closed_url: str) -> None:
    """auto asks no mirror when a cache is complete."""
    keras = fill(keras_cache_dir())
    resolved = resolve_source("auto", files=FILES, default_mirrors=[closed_url])
    assert (resolved.source, resolved.data_dir) == ("fashion-mnist", keras)
    assert resolved.reason == f"Fashion-MNIST found in {keras}"


@pytest.mark.parametrize("source", ["auto", "fashion-mnist"])
def test_bad_given_folder_is_an_error(tmp_path: Path, source: str, mirror: Mirror) -> None:
    """A folder that was named but lacks files is never replaced by anything, not even under auto."""
    with pytest.raises(DataError, match="the data folder must exist"):
        resolve_source(source, tmp_path / "no", files=FILES, default_mirrors=[mirror.url])
    assert mirror.requests == []


def test_auto_with_wrong_content_is_an_error() -> None:
    """A mirror that answers with wrong content ends auto with an error, not with synthetic data."""
    wrong = Mirror(dict.fromkeys(GOOD_BODIES, b"<html>sign in</html>"))
    with pytest.raises(DataError, match="must be a gzip file, but begins with b'<html>si'"):
        resolve_source("auto", files=FILES, default_mirrors=[wrong.url])
    wrong.close()


def test_fashion_mnist_never_falls_back(closed_url: str) -> None:
    """Asked for by name, Fashion-MNIST that cannot be had is an error."""
    with pytest.raises(DataError, match=r"all 1 failed: .*--data synthetic"):
        resolve_source("fashion-mnist", files=FILES, default_mirrors=[closed_url])


def test_synthetic_looks_nowhere(tmp_path: Path, mirror: Mirror) -> None:
    """synthetic neither looks at the folder nor asks a mirror."""
    resolved = resolve_source("synthetic", tmp_path / "no", files=FILES, default_mirrors=[mirror.url])
    assert (resolved.source, resolved.data_dir, mirror.requests) == ("synthetic", None, [])


# The real files


@pytest.mark.skipif("FMNIST_OPTUNA_DATA" not in os.environ, reason="set FMNIST_OPTUNA_DATA to the four real files")
def test_real_files() -> None:
    """The published files verify, have 6,000 and 1,000 images of each class, and one fingerprint."""
    folder = Path(os.environ["FMNIST_OPTUNA_DATA"])
    splits, again = (load_splits("fashion-mnist", 12_000, 0, folder) for _ in range(2))
    assert np.bincount(splits.train_labels).tolist() == [4_800] * 10
    assert np.bincount(splits.validation_labels).tolist() == [1_200] * 10
    assert np.bincount(splits.test_labels).tolist() == [1_000] * 10
    assert splits.fingerprint == again.fingerprint
