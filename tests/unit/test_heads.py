"""What ten outputs mean: decided by the end of the model and its loss, or refused."""

import numpy as np
import pytest

from fmnist_optuna.errors import SpecError
from fmnist_optuna.training.heads import reads_as_logits

NOISE = np.random.default_rng(0).normal(size=(4, 10))
SHARES = np.exp(NOISE) / np.exp(NOISE).sum(axis=1, keepdims=True)
POSITIVE = np.abs(NOISE) + 1
TENTHS = np.full((4, 10), 0.1)
LOST = np.full((4, 10), np.nan)


@pytest.mark.parametrize(
    ("activation", "from_logits", "outputs", "expected"),
    [
        ("softmax", False, SHARES, False),
        ("softmax", None, SHARES, False),
        ("softmax", False, LOST, False),
        ("softmax", False, SHARES.astype(np.float16), False),
        ("sparsemax", False, np.eye(10)[:4], False),
        (None, False, SHARES, False),
        (None, None, SHARES, False),
        ("linear", True, NOISE, True),
        ("linear", True, POSITIVE, True),  # by chance: the same model with other weights
        ("linear", True, TENTHS, True),
        ("linear", None, NOISE, True),
        ("linear", None, POSITIVE, True),
        ("log_softmax", None, np.log(SHARES), True),
        ("softplus", True, POSITIVE, True),
        (None, True, NOISE, True),
        (None, None, NOISE, True),
    ],
)
def test_one_reading_is_taken(
    activation: str | None, from_logits: bool | None, outputs: np.ndarray, expected: bool
) -> None:
    """Probabilities, or logits, whatever the weights of the moment."""
    assert reads_as_logits(activation, from_logits, outputs) is expected


@pytest.mark.parametrize(
    ("activation", "from_logits", "outputs", "words"),
    [
        ("softmax", True, SHARES, "sum to one, as probabilities do, and its loss takes them for logits"),
        (None, True, SHARES, "sum to one, as probabilities do"),
        ("softmax", False, POSITIVE, "a softmax, are no probabilities"),  # along another axis
        ("linear", False, NOISE, "a linear, are no probabilities: .* while its loss takes them for probabilities"),
        ("linear", False, TENTHS, "while its loss takes them for probabilities"),
        ("softplus", False, POSITIVE, "a softplus, are no probabilities"),
        ("sigmoid", False, SHARES, "a sigmoid, are no probabilities"),
        ("relu", None, POSITIVE, "its loss does not say what they are"),
        (None, False, POSITIVE, "while its loss takes them for probabilities"),
        (None, None, POSITIVE, "its loss does not say what they are"),
    ],
)
def test_no_reading_or_two_are_refused(
    activation: str | None, from_logits: bool | None, outputs: np.ndarray, words: str
) -> None:
    """With what the model says, what its loss says, and what to do."""
    with pytest.raises(SpecError, match=words) as raised:
        reads_as_logits(activation, from_logits, outputs)
    assert "softmax" in str(raised.value)
