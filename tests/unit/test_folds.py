"""Folds of the training images: disjoint, even, stratified, and refused in one line where there cannot be so many."""

import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmnist_optuna.bridge.spaces import ranges_of
from fmnist_optuna.data.dataset import Dataset, DatasetInfo
from fmnist_optuna.data.folds import fold_numbers
from fmnist_optuna.data.sharing import map_splits, write_splits
from fmnist_optuna.data.source import with_source
from fmnist_optuna.data.split import Splits, split_dataset, split_into_folds, with_validation
from fmnist_optuna.errors import DataError, SpecError, UsageError
from fmnist_optuna.search.repeats import Repeats, fold_of, place_of, point_of
from fmnist_optuna.spec.data_spec import DataSpec
from fmnist_optuna.spec.growth import stage_of
from fmnist_optuna.spec.reading import parse_spec, restore_spec
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.stages import ordered_points, search_of

NAMES = ("cat", "dog", "fox")
INFO = DatasetInfo("rows", (2,), "float32", (0.0, 1000.0), NAMES)
GRID = "[data]\nfolds = 3\n[grid]\nhidden_size = [64, 128]\n"
RANDOM = '[search]\nsampler = "random"\nn_trials = 4\nrepeats = 2\n[space]\nhidden_size = {low = 1, high = 512}\n'


def read(text: str) -> StudySpec:
    """A study file."""
    return parse_spec(tomllib.loads(text), "study.toml")


def make_dataset(counts: tuple[int, ...] = (5, 7, 4), weights: list[float] | None = None) -> Dataset:
    """Rows that are told apart by their number, in no order of their labels."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.uint8)
    images = np.arange(2 * len(labels), dtype=np.float32).reshape(-1, 2)
    test_images = np.full((3, 2), 999.0, dtype=np.float32)
    given_weights = None if weights is None else np.array(weights, dtype=np.float32)
    return Dataset(INFO, images, labels, test_images, np.arange(3, dtype=np.uint8), given_weights)


@given(
    counts=st.lists(st.integers(2, 40), min_size=2, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_folds_are_even_and_stratified(counts: list[int], seed: int, data: st.DataObject) -> None:
    """Each image is in one; their sizes differ by at most one, and their numbers of each class too."""
    n_folds = data.draw(st.integers(2, min(counts)))
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.uint8)
    folds = fold_numbers(labels, [str(label) for label in range(len(counts))], n_folds, seed)
    assert len(folds) == len(labels)
    assert set(folds.tolist()) == set(range(1, n_folds + 1))
    sizes = np.bincount(folds)[1:]
    assert sizes.max() - sizes.min() <= 1
    for label in range(len(counts)):
        of_class = np.bincount(folds[labels == label], minlength=n_folds + 1)[1:]
        assert of_class.max() - of_class.min() <= 1
        assert of_class.min() >= 1
    assert np.array_equal(folds, fold_numbers(labels, [str(label) for label in range(len(counts))], n_folds, seed))


def test_every_image_validates_once() -> None:
    """The others are trained on, each with its label and weight, in their order."""
    dataset = make_dataset(weights=list(range(1, 17)))
    splits = split_into_folds(dataset, "npz:a", 4, 0)
    assert (len(splits.train_images), len(splits.validation_images)) == (16, 0)
    seen = []
    for number in range(1, 5):
        fold = splits.fold(number)
        for role in ("train", "validation"):
            rows = (getattr(fold, f"{role}_images")[:, 0] / 2).astype(int).tolist()
            assert rows == sorted(rows)
            assert getattr(fold, f"{role}_labels").tolist() == dataset.train_labels[rows].tolist()
            assert getattr(fold, f"{role}_weights").tolist() == [row + 1 for row in rows]
        seen += (fold.validation_images[:, 0] / 2).astype(int).tolist()
        assert len(fold.train_images) + len(fold.validation_images) == 16
        assert np.array_equal(fold.test_images, splits.test_images)
    assert sorted(seen) == list(range(16))


def test_on_all_images_none_is_left_out() -> None:
    """What is measured meanwhile are images that are trained on, whose arrays are not copied."""
    splits = split_into_folds(make_dataset(weights=[float(row) for row in range(16)]), "npz:a", 2, 0)
    whole = with_validation(splits)
    assert np.array_equal(whole.train_images, splits.train_images)
    assert np.array_equal(whole.train_labels, splits.train_labels)
    for name in ("validation_images", "validation_labels", "validation_weights"):
        assert np.array_equal(getattr(whole, name), getattr(splits.fold(1), name))
    assert whole.train_images is splits.train_images
    assert (whole.folder, whole.folds) == (None, None)
    assert whole.fingerprint != splits.fingerprint


def test_the_fingerprint_is_over_the_folds() -> None:
    """Another number or seed of them is other data, and so is a share that is held out."""
    dataset = make_dataset()
    found = [
        split_into_folds(dataset, "npz:a", 2, 0),
        split_into_folds(dataset, "npz:a", 3, 0),
        split_into_folds(dataset, "npz:a", 2, 1),
        split_dataset(dataset, "npz:a", 4, 0),
    ]
    assert len({splits.fingerprint for splits in found}) == 4
    assert split_into_folds(dataset, "npz:a", 2, 0).fingerprint == found[0].fingerprint


def test_folds_are_shared_as_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Who maps them has the same."""
    folder = tmp_path_factory.mktemp("shared")
    splits = split_into_folds(make_dataset(), "npz:a", 3, 0)
    write_splits(splits, folder)
    found: Splits = map_splits(folder)
    assert found.folds is not None
    assert splits.folds is not None
    assert np.array_equal(found.folds, splits.folds)
    assert len(found.validation_images) == 0
    assert np.array_equal(found.fold(2).train_images, splits.fold(2).train_images)


@pytest.mark.parametrize("n_folds", [1, 5])
def test_more_folds_than_images_of_a_class_are_refused(n_folds: int) -> None:
    """Of the rarest, which is named."""
    with pytest.raises(UsageError) as refused:
        split_into_folds(make_dataset(), "npz:a", n_folds, 0)
    assert str(refused.value) == (
        "data.folds must be 2 to 4, the number of training images of the rarest class (fox), so that every fold has "
        f"one of each class, but got {n_folds}"
    )


def test_weights_of_one_fold_alone_are_refused() -> None:
    """Beside it nothing would be trained."""
    with pytest.raises(DataError, match="must not all be 0 for the images that are trained on"):
        split_into_folds(make_dataset(weights=[1.0] + [0.0] * 15), "npz:a", 2, 0)


def test_each_point_has_a_cell_for_each_fold() -> None:
    """In the order of claims they are neighbours; the study that is stored says the same when it is read again."""
    spec = read(GRID)
    assert (spec.n_points, spec.n_cells, spec.pruner.name) == (2, 6, "none")
    assert [point.params["validation_fold"] for point in ordered_points(spec)] == [1, 2, 3] * 2
    stored = spec.model_dump(mode="json")
    assert stored["data"] == {"source": "auto", "folds": 3, "split_seed": 0}
    assert restore_spec(stored, "stored") == spec
    assert with_source(spec.data, "synthetic") == DataSpec(source="synthetic", folds=3)


def test_without_folds_it_is_the_study_of_before() -> None:
    """Nothing of them is stored, so that older studies are joined."""
    spec = read("[data]\nfolds = 0")
    assert (spec, spec.digest) == (StudySpec(), StudySpec().digest)
    assert "folds" not in spec.model_dump(mode="json")["data"]


def test_repeats_and_folds_together_are_all_pairs() -> None:
    """The folds of a seed follow one another, in a search as in a grid; Optuna has the ranges of both."""
    spec = read(RANDOM + "[data]\nfolds = 3")
    search = search_of([spec])
    cells = [search.point(number) for number in range(12)]
    assert search.n_cells == spec.n_cells == 24
    assert [place_of(cell) for cell in cells[:6]] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert point_of(cells[0]) == point_of(cells[5]) != point_of(cells[6])
    assert [fold_of(cell) for cell in cells[:3]] == [1, 2, 3]
    ranges = ranges_of(spec.dimensions, [stage_of(spec)], 3)
    assert {name: ranges[name].high for name in ("training_seed", "validation_fold")} == {  # type: ignore[attr-defined]
        "training_seed": 2,
        "validation_fold": 3,
    }
    assert Repeats().cell_of({"rate": 1}, 0) == {"rate": 1}


def test_what_follows_on_all_images_has_no_folds() -> None:
    """Its data is that of the study, its cells are not."""
    content = {**read(GRID).model_dump(mode="json"), "name": "a/all-data"}
    content["grid"] = {"hidden_size": [64], "training_seed": [1]}
    spec = restore_spec(content, "study")
    assert (spec.data.folds, spec.n_cells, spec.cell_grid) == (3, 1, spec.grid)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[data]\nfolds = 1", "data.folds must be at least 2, or 0 for none, but got 1"),
        ("[data]\nfolds = -1", "data.folds must be at least 0, but got -1"),
        ("[data]\nfolds = 1001", "data.folds must be at most 1000, but got 1001"),
        ("[data]\nfolds = 2.0", "data.folds must be an integer, but got 2.0"),
        (
            "[data]\nfolds = 5\nn_validation = 100",
            "data.folds must go without n_validation, as each image validates once, but is 5; remove one of both",
        ),
        (
            GRID + '[pruner]\nname = "ladder"',
            'pruner.name must be "none" with data.folds = 3, as points are compared by the mean of all their folds, '
            'but is "ladder"; leave it out',
        ),
        (
            GRID + "training_seed = [1, 2]",
            "data.folds must go without training_seed in what is searched, but is 3; search.repeats trains each fold",
        ),
        (
            "[grid]\nhidden_size = [64]\nvalidation_fold = [1, 2]",
            "validation_fold must not be searched, as every point has all folds that data.folds says",
        ),
        (
            GRID + '[training]\nteacher = "other"',
            "training.teacher must go without data.folds, as a teacher was validated by other images, but data.folds",
        ),
    ],
)
def test_what_does_not_fit_folds_is_refused(text: str, expected: str) -> None:
    """In one line."""
    with pytest.raises(SpecError) as refused:
        read(text)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)
