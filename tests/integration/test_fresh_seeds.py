"""What a model begins with follows the seed: what does not is named, and a confirmation of it refused."""

import pytest
from small_study import begin_trial, claim_cell, finish_cell, finish_trial, open_small
from users_modules import PLAIN, MakeModule, make_spec

from fmnist_optuna.confirming import confirm_study
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import SpecError
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.running.options import RunOptions
from fmnist_optuna.running.preparation import prepare_study
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study_or_none
from fmnist_optuna.training.initial_values import compare_seeds, describe_unseeded, refuse_fixed_weights
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.work.fresh_seeds import check_seeds_in_child

pytestmark = pytest.mark.usefixtures("one_thread", "settings_set_back")

SEEDS = (
    PLAIN
    + """
def net(kind):
    if kind == "fixed":
        keras.utils.set_random_seed(42)
    hidden = keras.layers.Dense(4, name="hidden")
    if kind == "seeded":
        hidden = keras.layers.Dense(4, kernel_initializer=keras.initializers.HeNormal(seed=1), name="hidden")
    if kind == "masks":
        return compiled(hidden, keras.layers.Dropout(0.5, seed=1, name="drop"), head())
    if kind == "zeros":
        return compiled(head(kernel_initializer="zeros"))
    if kind == "frozen":
        hidden = keras.layers.Dense(4, kernel_initializer=keras.initializers.HeNormal(seed=1), trainable=False)
    return compiled(hidden, head())
"""
)


@pytest.mark.parametrize(
    ("kind", "weights", "states", "is_all"),
    [
        ("plain", None, None, False),
        ("zeros", None, None, False),
        ("frozen", None, None, False),
        ("fixed", 2, 0, True),
        ("seeded", 1, 0, False),
        ("masks", 0, 1, False),
    ],
)
def test_parts_that_no_seed_changes_are_named(
    make_module: MakeModule, kind: str, weights: int | None, states: int | None, is_all: bool
) -> None:
    """Layers with the same initial weights or random numbers under two seeds; zeros and frozen layers are let be."""
    code = UserCode(make_spec(make_module("user_seeds", SEEDS), kind=[kind]), FASHION_MNIST)
    fixed = compare_seeds(code, [({"kind": kind}, 1, 2)])
    if weights is None:
        assert fixed is None
        return
    assert fixed is not None
    assert (len(fixed.weights), len(fixed.random_states), fixed.is_all) == (weights, states, is_all)
    assert "user_seeds:net gives the same" in str(fixed.describe())
    if not is_all:
        assert ("hidden" if weights else "drop") in str(fixed.describe())
        assert refuse_fixed_weights(code, [({"kind": kind}, 1, 2)]) == fixed.describe()


UNSEEDED = (
    PLAIN
    + """
import random
import numpy as np
def net(kind):
    draws = {"own": np.random.default_rng().normal, "set": np.random.normal}
    bias = keras.initializers.Constant(draws[kind]() + random.random())
    return compiled(keras.layers.Dense(2, bias_initializer=bias, name="hidden"), head())
"""
)


def test_numbers_that_no_seed_decides_are_named(make_module: MakeModule) -> None:
    """A generator of the user's own without a seed; NumPy's and Python's are set before each trial."""
    code = UserCode(make_spec(make_module("user_unseeded", UNSEEDED), kind=["own", "set"]), FASHION_MNIST)
    assert describe_unseeded(code, {"kind": "set"}, 1) is None
    found = describe_unseeded(code, {"kind": "own"}, 1)
    assert str(found).startswith("user_unseeded:net gives other initial values in hidden under the same seed, so that")


def test_identity_of_built_in_convolutions_is_no_warning() -> None:
    """They begin as the identity on purpose: their like in a model of one's own would be named."""
    spec = StudySpec.model_validate({"model": {"architecture": "conv"}, "grid": {"learning_rate": [0.01]}})
    cells = [({"learning_rate": 0.01}, 1, 2)]
    assert "the same initial weights in conv2d" in str(refuse_fixed_weights(UserCode(spec, FASHION_MNIST), cells))
    assert check_seeds_in_child(spec, FASHION_MNIST, cells).result() is None


@pytest.mark.more
def test_run_warns_of_what_no_seed_changes(
    make_module: MakeModule, sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, before any training, with what to do."""
    spec = make_spec(make_module("user_seeded", SEEDS), kind=["seeded"])
    prepare_study(spec, RunOptions(StorageOptions(sqlite_url)), has_workers=False).session.storage.close()
    reasons = [vars(record)["reason"] for record in caplog.records if getattr(record, "event", "") == "seeds_fixed"]
    assert reasons == [
        "user_seeded:net gives the same initial weights in hidden under every seed, so that fresh seeds vary less; "
        "leave seeds to the study: no set_random_seed and no seed= in the function, and weights drawn in it by Keras."
    ]


@pytest.mark.more
def test_confirmation_from_equal_weights_is_refused(make_module: MakeModule, sqlite_url: str, garments: Splits) -> None:
    """`confirm` says so before it makes a study or trains anything."""
    spec = make_spec(make_module("user_fixed", SEEDS), kind=["fixed"])
    storage = open_small(sqlite_url)
    record, _ = create_or_join(storage, spec, garments.fingerprint)
    session = Session(storage, record, "worker")
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    finish_trial(session, trial_id, 0.5)
    finish_cell(session, claim, trial_id)
    with pytest.raises(SpecError) as caught:
        confirm_study(session, RunOptions(StorageOptions(sqlite_url)))
    assert str(caught.value) == (
        "model.architecture must start from fresh weights for each seed of a confirmation, but user_fixed:net gives "
        "the same under every seed; leave seeds to the study: no set_random_seed and no seed= in the function, and "
        "weights drawn in it by Keras."
    )
    assert caught.value.exit_status == 2
    assert find_study_or_none(storage, "mine/confirm") is None
    storage.close()
