"""The learning rates of an epoch: shares of their peak, against the rule written out by hand."""

import math

import numpy as np
import pytest

from fmnist_optuna.spec.options import Options
from fmnist_optuna.training.schedule import is_scheduled, learning_rates

N_STEPS, MAX_EPOCHS = 5, 4  # 20 steps in all


def all_rates(**options: object) -> list[float]:
    """Of every step of a training."""
    found = Options.model_validate(options)
    return [float(rate) for epoch in range(MAX_EPOCHS) for rate in learning_rates(found, epoch, N_STEPS, MAX_EPOCHS)]


def test_a_constant_rate_is_none() -> None:
    """Without a schedule and a warm-up nothing is to be set."""
    assert not is_scheduled(Options())
    assert all_rates() == [1.0] * 20


def test_cosine_falls_to_its_floor() -> None:
    """From the peak at the first step, half of the way in the middle."""
    rates = all_rates(schedule="cosine", learning_rate_floor=0.1)
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(20)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    assert rates[0] == 1.0
    assert rates[10] == pytest.approx(0.55)


def test_one_cycle_rises_and_falls_straight() -> None:
    """Five steps up, fifteen down."""
    rates = all_rates(schedule="one-cycle", warmup_epochs=1)
    up, down = [(step + 1) / 6 for step in range(5)], [1 - step / 15 for step in range(15)]
    np.testing.assert_allclose(rates, [*up, *down], rtol=1e-6)


def test_one_cycle_rises_for_a_quarter_by_default() -> None:
    """One epoch of four."""
    assert all_rates(schedule="one-cycle") == all_rates(schedule="one-cycle", warmup_epochs=1)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle"])
def test_a_warm_up_may_take_parts_of_an_epoch(schedule: str) -> None:
    """Half an epoch is two and a half steps; the peak comes right after it."""
    rates = all_rates(schedule=schedule, warmup_epochs=0.5)
    np.testing.assert_allclose(rates[:3], [1 / 3.5, 2 / 3.5, 3 / 3.5], rtol=1e-6)
    assert max(rates) == rates[3] > 0.97
    assert is_scheduled(Options.model_validate({"schedule": schedule, "warmup_epochs": 0.5}))


def test_a_warm_up_longer_than_the_training_only_rises() -> None:
    """It is cut at the cap on epochs."""
    rates = all_rates(schedule="cosine", warmup_epochs=100)
    np.testing.assert_allclose(rates, [(step + 1) / 21 for step in range(20)], rtol=1e-6)


def test_a_constant_rate_warms_up_whatever_the_cap() -> None:
    """Fewer epochs, as those on all data may be, have the same rates as far as they go."""
    options = Options(warmup_epochs=8.0)
    rates = all_rates(warmup_epochs=8.0)
    np.testing.assert_allclose(rates, [(step + 1) / 41 for step in range(20)], rtol=1e-6)
    for cap in (1, 3, 8, 30):
        assert learning_rates(options, 0, N_STEPS, cap).tolist() == rates[:N_STEPS]
