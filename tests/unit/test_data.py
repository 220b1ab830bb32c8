"""Fashion-MNIST on disk, from a mirror and split: every promise of `data.source` and `data.download`.

The files are tiny and made here; a real HTTP server on 127.0.0.1 plays the mirror. No test leaves this machine.
"""

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from idx_files import (
    CONTENTS,
    FILES,
    FLIPPED,
    N_TEST,
    N_TRAIN,
    NAMES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    fill,
    load,
    table,
)

from fmnist_optuna.data import fashion_mnist
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST, find_data_dir, keras_cache_dir, user_cache_dir, verify_files
from fmnist_optuna.data.source import load_splits
from fmnist_optuna.data.split import split_indices, with_validation
from fmnist_optuna.errors import DataError, MismatchError, UsageError

pytestmark = pytest.mark.usefixtures("own_caches")

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


def test_validation_images_come_after_the_others() -> None:
    """All images to train on, in one order; those to validate and to test stay, and it is no longer the same data."""
    splits = load_splits("synthetic", 2_400, 0)
    joined = with_validation(splits)
    assert joined.train_images.shape == (12_000, 28, 28)
    assert np.array_equal(joined.train_images[:9_600], splits.train_images)
    assert np.array_equal(joined.train_images[9_600:], splits.validation_images)
    assert np.array_equal(joined.train_labels, np.concatenate([splits.train_labels, splits.validation_labels]))
    assert joined.validation_images is splits.validation_images
    assert joined.test_labels is splits.test_labels
    assert (joined.folder, len(joined.fingerprint)) == (None, 64)
    assert joined.fingerprint != splits.fingerprint


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
def test_fingerprint_changes_with_one_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """One other pixel or one other label anywhere gives another fingerprint."""
    changed = {**CONTENTS, name: CONTENTS[name][:-1] + bytes([CONTENTS[name][-1] ^ 1])}
    fingerprint = load(fill(tmp_path / "data")).fingerprint
    monkeypatch.setattr(fashion_mnist, "FASHION_MNIST_FILES", table(changed))
    assert load(fill(tmp_path / "changed", changed)).fingerprint != fingerprint


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
    bad, labels, images, missing = verify_files(folder)
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
        find_data_dir(folder)
    assert str(caught.value) == (
        f"the data folder must exist, but {folder} does not; run: fmnist-optuna data fetch --data-dir {folder}"
    )


def test_a_folder_with_a_space_is_quoted_in_what_helps(tmp_path: Path) -> None:
    """As a person would copy the command from the error."""
    with pytest.raises(DataError) as error:
        find_data_dir(tmp_path / "my data")
    assert str(error.value).endswith(f"data fetch --data-dir '{tmp_path / 'my data'}'")


def test_given_folder_must_be_a_folder(tmp_path: Path) -> None:
    """A file given as the folder is an error that says so."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=f"must be a folder, but {path} is a file"):
        find_data_dir(path)


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
    assert find_data_dir() is None
    keras = fill(keras_cache_dir())
    assert find_data_dir() == keras == tmp_path / "keras" / "datasets" / "fashion-mnist"
    user = fill(user_cache_dir())
    assert find_data_dir() == user == tmp_path / "cache" / "fmnist-optuna" / "fashion-mnist"
    assert find_data_dir(given) == given
    (user / f"{TRAIN_LABELS}.gz").unlink()
    assert find_data_dir() == keras


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


# The real files


@pytest.mark.skipif("FMNIST_OPTUNA_DATA" not in os.environ, reason="set FMNIST_OPTUNA_DATA to the four real files")
def test_real_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published files verify, have 6,000 and 1,000 images of each class, and one fingerprint."""
    monkeypatch.undo()  # the tiny files in their place
    folder = Path(os.environ["FMNIST_OPTUNA_DATA"])
    splits, again = (load_splits("fashion-mnist", 12_000, 0, folder) for _ in range(2))
    assert np.bincount(splits.train_labels).tolist() == [4_800] * 10
    assert np.bincount(splits.validation_labels).tolist() == [1_200] * 10
    assert np.bincount(splits.test_labels).tolist() == [1_000] * 10
    assert splits.fingerprint == again.fingerprint
