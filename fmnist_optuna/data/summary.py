"""What a data set holds, for a person who is about to train on it: counts, ranges, repeated images."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fmnist_optuna.data.dataset import DatasetInfo, Images
from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import DataError
from fmnist_optuna.wording import count, format_bytes

ROLES = ("train", "validation", "test")
UNEQUAL = 10  # times as many images of one class as of another
MOST_REPEATED = 0.5  # of the test images, that may be among those to train on
WORTH_A_WARNING = 0.01  # the same; a well-known data set may have a few
MOST_ANSWERS = 950 * 2**20  # bytes of a model's answers to the test images: SQLite keeps at most 10**9 together
DIM = 0.1  # of the way from black to white: pictures whose lightest number is below are dark to whoever looks
OTHER_SCALE = 50  # times as far from the smallest to the largest number; bytes over shares of 1 are 255
HASH_BYTES = 16


@dataclass(frozen=True)
class Summary:
    """What is said of a data set.

    Args:
        info: What its images and labels are.
        n_of_class: Images of each class, in the order of the class names, by role: train, validation and test.
        value_range: The smallest and the largest number of the images to train on.
        mean: Of the same.
        test_range: The smallest and the largest number of the test images.
        columns: Smallest and largest number of each feature of the same, where an image is a row of features.
        n_repeated: Test images that are among those to train or validate on, bit for bit.
        n_skipped: Files that were left out because they could not be read.
    """

    info: DatasetInfo
    n_of_class: Mapping[str, tuple[int, ...]]
    value_range: tuple[float, float]
    mean: float
    test_range: tuple[float, float]
    columns: tuple[tuple[float, float], ...]
    n_repeated: int
    n_skipped: int = 0

    @property
    def n_test(self) -> int:
        """Test images."""
        return sum(self.n_of_class["test"])

    @property
    def on_repeated(self) -> str:
        """How many test images are repeated, as a sentence."""
        tested = count(self.n_test, f"test {self.info.noun}")
        return f"{self.n_repeated:,} of {tested} are among those to train or validate on, bit for bit"

    @property
    def on_balance(self) -> str:
        """Which class has many times as many images to train on as another, as a sentence; empty where none has."""
        counts, names = self.n_of_class["train"], self.info.class_names
        most, fewest = max(counts), min(counts)
        if most < UNEQUAL * fewest:
            return ""
        return (
            f"the classes are unequal: {count(most, self.info.noun)} of {names[counts.index(most)]} and {fewest:,} of "
            f"{names[counts.index(fewest)]} to train on, so an accuracy says little of the rare ones"
        )

    @property
    def on_scale(self) -> str:
        """Whether the test, or what is white, is of another scale than the images, as a sentence; empty if not."""
        trained, tested = (f"from {low:g} to {high:g}" for low, high in (self.value_range, self.test_range))
        spans = sorted(high - low for low, high in (self.value_range, self.test_range))
        if spans[1] >= OTHER_SCALE * spans[0]:
            noun = self.info.noun
            return f"the test {noun}s go {tested} and those to train on {trained}, as if they were scaled in two ways"
        black, white = self.info.value_range
        if not self.info.is_of_pictures or self.value_range[1] >= black + DIM * (white - black):
            return ""
        return (
            f"the images to train on go {trained}, where {black:g} is black and {white:g} white, and so it is for "
            "`predict`; give shares of white from 0 to 1, true and false, or a Dataset whose info has their range"
        )

    @property
    def on_skipped(self) -> str:
        """How many files were left out, as a sentence; empty where none was."""
        files = count(self.n_skipped, "file that is no picture is", "files that are no pictures are")
        return f"{files} left out, as data.skip_broken says" if self.n_skipped else ""

    @property
    def warnings(self) -> dict[str, str]:
        """What everybody should know who trains on the data: a sentence by the name of its event."""
        is_much = self.n_repeated >= WORTH_A_WARNING * self.n_test
        found = {
            "data_repeated": self.on_repeated if is_much else "",
            "data_unequal": self.on_balance,
            "data_scaled": self.on_scale,
            "data_skipped": self.on_skipped,
        }
        return {event: sentence for event, sentence in found.items() if sentence}


def summarise(splits: Splits) -> Summary:
    """Count what there is."""
    labels = {role: getattr(splits, f"{role}_labels") for role in ROLES}
    n_of_class = {role: np.bincount(each, minlength=splits.info.n_classes) for role, each in labels.items()}
    images = splits.train_images
    is_of_rows = images.ndim == 2
    columns = zip(images.min(axis=0).tolist(), images.max(axis=0).tolist(), strict=True) if is_of_rows else ()
    return Summary(
        info=splits.info,
        n_of_class={role: tuple(counts.tolist()) for role, counts in n_of_class.items()},
        value_range=(float(images.min()), float(images.max())),
        mean=float(images.mean(dtype=np.float64)),
        test_range=(float(splits.test_images.min()), float(splits.test_images.max())),
        columns=tuple(columns),
        n_repeated=count_repeated(splits),
        n_skipped=splits.n_skipped,
    )


def count_repeated(splits: Splits) -> int:
    """How many test images are among those to train or validate on, bit for bit."""
    seen = {*_hash_each(splits.train_images), *_hash_each(splits.validation_images)}
    return sum(image in seen for image in _hash_each(splits.test_images))


def _hash_each(images: Images) -> Iterator[bytes]:
    for image in images:
        yield hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=HASH_BYTES).digest()


def check_content(source: str, summary: Summary) -> None:
    """Check what can be said of a data set only when all of it is at hand.

    Args:
        source: As a study file names it, for errors.

    Raises:
        DataError: Most of the test images are among those to train on, so that their score would say nothing; or the
            answers to them could not be kept.
    """
    n_classes, noun = summary.info.n_classes, summary.info.noun
    if summary.n_repeated > MOST_REPEATED * summary.n_test:
        raise DataError(
            f"The test {noun}s of {source} must be others than those to train on, but {summary.on_repeated}; keep "
            "others out."
        )
    n_bytes = summary.n_test * n_classes * np.dtype(np.float32).itemsize
    if n_bytes > MOST_ANSWERS:
        raise DataError(
            f"The answers to the test {noun}s of {source} must take at most {format_bytes(MOST_ANSWERS)}, but those to "
            f"{summary.n_test:,} {noun}s in {n_classes:,} classes take {format_bytes(n_bytes)}; keep fewer out."
        )
