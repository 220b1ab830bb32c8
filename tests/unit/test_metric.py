"""What a study compares by: which way is better, how it is written, and what the table [objective] may say."""

import math
import tomllib
from typing import Any

import numpy as np
import pytest

from fmnist_optuna.data.dataset import Dataset, DatasetInfo
from fmnist_optuna.data.readers.arrays import make_dataset
from fmnist_optuna.data.split import split_dataset, with_validation
from fmnist_optuna.errors import DataError, SpecError
from fmnist_optuna.ledger.records import Attempt, TrialAttributes
from fmnist_optuna.ledger.states import State
from fmnist_optuna.results.confirmation import Candidate, choose
from fmnist_optuna.results.seeds import Sample
from fmnist_optuna.search.ladder import LadderRule, Standing, describe_cut
from fmnist_optuna.search.metric import VAL_ACCURACY, VAL_LOSS, Epoch, Metric, find_direction
from fmnist_optuna.spec.data_spec import DataSpec
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.attempts import attempt_row, sort_attempts

F1 = Metric("val_f1", "maximize")
COST = Metric("val_cost", "minimize")


def spec_of(text: str) -> StudySpec:
    return parse_spec(tomllib.loads(text), "study.toml")


@pytest.mark.parametrize(
    ("names", "direction"),
    [
        (("accuracy", "acc", "sparse_top_k_categorical_accuracy", "top5", "top_5", "auc", "auc_1"), "maximize"),
        (("f1_score", "macro_f1", "fbeta_score", "precision_at_recall", "recall", "mean_iou", "mean_io_u"), "maximize"),
        (
            ("loss", "sparse_categorical_crossentropy", "mean_squared_error", "kl_divergence", "hinge", "poisson"),
            "minimize",
        ),
        (("gain", "accuracy_loss", "cosine_similarity", "f2", "losses_of_aucs"), None),
    ],
)
def test_names_say_which_way_is_better(names: tuple[str, ...], direction: str | None) -> None:
    """Where a word of them does, and no other contradicts it."""
    assert {find_direction(f"val_{name}") for name in names} == {direction}


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("", VAL_ACCURACY),
        ('metric = "val_loss"', VAL_LOSS),
        ('metric = "val_loss"\ndirection = "minimize"', VAL_LOSS),
        ('metric = "val_f1"', F1),
        ('metric = "val_cost"\ndirection = "minimize"', COST),
        ('metric = "val_top5"\ndirection = "minimize"', Metric("val_top5", "minimize")),
    ],
)
def test_a_direction_is_known_or_given(text: str, metric: Metric) -> None:
    """What is stored has it in any case, so that who gives a known one has the same study."""
    spec = spec_of(f"[objective]\n{text}")
    assert spec.metric == metric
    assert parse_spec(spec.model_dump(mode="json"), "stored").digest == spec.digest
    assert spec.model_dump().get("objective") == (
        None if metric == VAL_ACCURACY else {"metric": metric.name, "direction": metric.direction}
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'metric = "f1"',
            'objective.metric must be "val_accuracy", "val_loss", or "val_" and the name of a metric that the model is '
            "compiled with, as in the history of `fit`, but got 'f1'.",
        ),
        (
            'metric = "val_gain"',
            'objective.direction must be "maximize" or "minimize" for val_gain, as its name does not say which way is '
            "better, but is not given.",
        ),
        (
            'metric = "val_loss"\ndirection = "maximize"',
            "objective.direction must be \"minimize\" for val_loss, but got 'maximize'.",
        ),
        ('goal = "val_f1"', "unknown key objective.goal; known here: metric, direction."),
    ],
)
def test_another_objective_is_refused(text: str, words: str) -> None:
    """In one line."""
    with pytest.raises(SpecError) as error:
        spec_of(f"[objective]\n{text}")
    assert str(error.value) == f"study.toml: {words}"


def test_the_study_of_the_accuracy_is_what_it_was() -> None:
    """Neither its stored form nor what a training depends on has a word of the new keys."""
    plain, given = spec_of(""), spec_of('[objective]\nmetric = "val_accuracy"\n[training]\nclass_weight = "none"')
    assert plain.digest == given.digest
    assert not {"objective", "class_weight"} & {*plain.model_dump(), *plain.model_dump()["training"]}
    assert plain.objective_note is None
    other = spec_of('[objective]\nmetric = "val_loss"\n[training]\nclass_weight = "balanced"')
    assert other.trained_part()["objective"] == {"metric": "val_loss", "direction": "minimize"}
    assert "class_weight" in other.model_dump()["training"]


def test_the_better_value_comes_first() -> None:
    """The larger one, or the smaller one; what is no number last."""
    values = [0.5, math.nan, 0.2, None, 0.9]
    assert sorted(values, key=VAL_ACCURACY.rank)[:3] == [0.9, 0.5, 0.2]
    assert sorted(values, key=VAL_LOSS.rank)[:3] == [0.2, 0.5, 0.9]
    assert (VAL_LOSS.best_of(values), F1.best_of(values), F1.best_of([None, math.inf])) == (0.2, 0.9, None)
    attempts = [Attempt(n, n, "c", {}, State.COMPLETE, value) for n, value in enumerate([0.5, 0.2])]
    assert [attempt.number for attempt in sort_attempts(attempts, VAL_LOSS)] == [1, 0]


def test_numbers_are_written_in_their_own_unit() -> None:
    """An accuracy in percent, any other as it is."""
    assert (VAL_ACCURACY.format(0.9123), VAL_LOSS.format(0.30124), F1.format(None)) == ("91.23 %", "0.3012", "-")
    assert (VAL_ACCURACY.format_distance(0.0031), VAL_LOSS.format_distance(0.0031)) == ("0.31", "0.0031")
    assert VAL_LOSS.format_interval((0.25, 0.5)) == "0.2500 to 0.5000"


def test_an_epoch_has_the_value_of_each_metric() -> None:
    """Accuracy and loss are always there; of another one, what is not there was no number."""
    epoch = Epoch(0, 1.0, 0.5, 0.75, 0.25, 1.0, objective=0.4)
    assert [metric.value_of(epoch) for metric in (VAL_ACCURACY, VAL_LOSS, F1)] == [0.25, 0.75, 0.4]
    assert math.isnan(F1.value_of(Epoch(0, 1.0, 0.5, 0.75, 0.25, 1.0)))
    assert epoch.is_finite
    assert not Epoch(0, 1.0, 0.5, 0.75, 0.25, 1.0, objective=math.nan).is_finite


def test_an_accuracy_stands_beside_another_value() -> None:
    """Noted on the trial; the value is the accuracy where the study compares by that, and nowhere else."""
    beside = Attempt(0, 0, "c", {}, State.COMPLETE, 0.3, TrialAttributes(val_accuracy=0.9), metric=VAL_LOSS)
    assert (beside.value, beside.val_accuracy) == (0.3, 0.9)
    assert Attempt(0, 0, "c", {}, State.COMPLETE, 0.8).val_accuracy == 0.8
    assert Attempt(0, 0, "c", {}, State.FAILED, None, TrialAttributes(val_accuracy=0.9)).val_accuracy is None
    foreign = Attempt(0, 0, "", {}, State.COMPLETE, 0.8, metric=VAL_LOSS)  # nobody has noted an accuracy beside it
    row = attempt_row(foreign)
    assert (foreign.val_accuracy, row["val_accuracy"], row["value"], row["metric"]) == (None, None, 0.8, "val_loss")


def test_a_margin_has_the_unit_of_the_metric() -> None:
    """Of a share sqrt(p (1 - p) / n); of a loss |leader| / sqrt(n), so that the unit is of no account."""
    spec = spec_of('[data]\nn_validation = 10_000\n[objective]\nmetric = "val_loss"')
    assert spec.ladder_rule().margin_below(-0.3) == pytest.approx(0.003)
    assert spec_of('[objective]\nmetric = "val_f1"').ladder_rule() == spec_of("").ladder_rule()
    rule = LadderRule(2, kappa=1.0, margin=1.0, n_validation=100, max_epochs=30, is_share=False)
    for unit in (1.0, 1_000.0):
        curves = {"a": Standing(-1.0 * unit, -1.5 * unit), "b": Standing(-1.09 * unit, -1.09 * unit)}
        assert not rule.decide(curves, {}).cut
        assert list(rule.decide({**curves, "b": Standing(-1.11 * unit, -1.11 * unit)}, {}).cut) == ["b"]


def test_a_cut_is_told_in_the_unit_of_the_metric() -> None:
    """The scores are turned back."""
    told = describe_cut(4, Standing(-0.5, -0.55), -0.4, VAL_LOSS)
    assert told == "cut at epoch 4: 0.500 and gaining 0.050 a doubling, the best had 0.400"
    diverged = describe_cut(4, Standing(None, None), -0.4, VAL_LOSS)
    assert diverged == "cut at epoch 4: its val_loss is not a finite number"


def test_the_choice_follows_the_direction() -> None:
    """Of losses the smallest mean, and the smallest model within one standard error of it."""

    def candidate(number: int, n_parameters: int, *values: float) -> Candidate:
        attempt = Attempt(number, number, "cell", {}, State.COMPLETE, values[0])
        return Candidate(attempt, Sample(values, VAL_LOSS), n_parameters, 0, (attempt,))

    best, close, far = candidate(0, 100, 0.30, 0.32), candidate(1, 50, 0.319, 0.319), candidate(2, 10, 0.33, 0.33)
    assert choose([best, close, far], VAL_LOSS) is close
    assert choose([best, close, far], F1) is far


# Weights of images


INFO = DatasetInfo("dots", (2, 2), "uint8", (0, 255), ("a", "b"))
LABELS = np.array([0, 1] * 5)
IMAGES = np.zeros((10, 2, 2), np.uint8)


def dataset_of(weights: Any) -> Dataset:
    return Dataset(INFO, IMAGES, LABELS, IMAGES, LABELS, weights)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0] * 10, "must be a NumPy array, but got list"),
        (np.array(["a"] * 10), "must be numbers, but are <U1"),
        (np.ones(9), r"must have the shape \(10,\), one weight an image, but have \(9,\)"),
        (np.array([1.0] * 7 + [-2.0, 1.0, 1.0]), "must be finite and at least 0, but the image 7 has -2.0"),
        (np.array([np.nan] + [1.0] * 9), "must be finite and at least 0, but the image 0 has nan"),
        (np.array([1e300] + [1.0] * 9), r"must be finite and at least 0, but the image 0 has 1e\+300"),
        (np.zeros(10), "must not all be 0, but are"),
    ],
)
def test_other_weights_are_refused(weights: Any, words: str) -> None:
    """Of another length, below 0, no numbers, all 0: in one line."""
    with pytest.raises(DataError, match=f"^Dataset.train_weights {words}"):
        dataset_of(weights)


def test_weights_go_with_their_images() -> None:
    """Through the split, into the fingerprint, and to all images where the validation images are trained on too."""
    weights = np.arange(10)
    splits, plain = (split_dataset(dataset_of(each), "m:f", 4, 0) for each in (weights, None))
    assert splits.train_weights is not None
    assert splits.validation_weights is not None
    assert sorted([*splits.train_weights, *splits.validation_weights]) == list(range(10))
    assert splits.fingerprint != plain.fingerprint
    whole = with_validation(splits)
    assert whole.train_weights is not None
    assert list(whole.train_weights) == [*splits.train_weights, *splits.validation_weights]
    assert (plain.train_weights, with_validation(plain).train_weights) == (None, None)


def test_a_split_leaves_weights_to_train_with() -> None:
    """Weights that are 0 but for those of images held out are refused."""
    held_out = split_dataset(dataset_of(np.arange(10)), "m:f", 4, 0).validation_weights
    assert held_out is not None
    weights = np.isin(np.arange(10), held_out).astype(float)
    with pytest.raises(DataError, match="must not all be 0 for the images that are trained on"):
        split_dataset(dataset_of(weights), "m:f", 4, 0)


def test_arrays_by_name_may_have_weights() -> None:
    """Of x_train, or of x, where those of the examples kept out go with them."""
    data, weights = DataSpec(source="npz:dots.npz"), np.arange(1, 11)
    split = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS, "train_weights": weights}
    assert make_dataset(split, data, "dots.npz", "dots").train_weights is not None
    whole = make_dataset({"x": IMAGES, "y": LABELS, "train_weights": weights}, data, "dots.npz", "dots")
    assert whole.train_weights is not None
    assert len(whole.train_weights) == len(whole.train_labels) < 10
    assert set(whole.train_weights) < set(weights)
    with pytest.raises(DataError, match=r"^dots.npz: train_weights must have the shape \(10,\), one weight"):
        make_dataset({**split, "train_weights": np.ones(3)}, data, "dots.npz", "dots")
