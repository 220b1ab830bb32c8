"""The legs of trials that are made up, as the timeline has them."""

import pytest

from fmnist_optuna.ledger.records import Attempt, Leg, TrialAttributes
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.figures.timeline import choose_unit, list_bars
from fmnist_optuna.search.metric import Epoch

NEWEST = 500.0
Drawn = tuple[str, int, int, float, float]


def make_attempt(state: State, ended: float | None = None, rung: int | None = None, kept: int | None = None) -> Attempt:
    """Five epochs of ten seconds each; after two of them another worker went on, 80 s later."""
    noted = TrialAttributes(worker="first", kept_epochs=kept, legs=(Leg(2, 200.0, "second"),))
    epochs = tuple(Epoch(number, 1.0, 0.5, 1.0, 0.5, 10.0) for number in range(5))
    return Attempt(7, 3, "cell", {}, state, 0.5, noted, epochs=epochs, rung=rung, began=100.0, ended=ended)


def draw(attempt: Attempt) -> list[Drawn]:
    """The bars as worker, epochs before and after, begin and end."""
    return [(bar.worker, bar.first, bar.last, bar.began, bar.ended) for bar in list_bars(attempt, NEWEST)]


@pytest.mark.parametrize(
    ("attempt", "end"),
    [
        pytest.param(make_attempt(State.COMPLETE, ended=240.0), 240.0, id="complete"),
        pytest.param(make_attempt(State.FAILED, ended=300.0), 300.0, id="failed"),
        pytest.param(make_attempt(State.PRUNED, ended=250.0), 250.0, id="diverged"),
        pytest.param(make_attempt(State.PRUNED, ended=400.0, rung=5), 230.0, id="cut after a pause"),
        pytest.param(make_attempt(State.RUNNING, rung=5), 230.0, id="parked"),
        pytest.param(make_attempt(State.RUNNING), NEWEST, id="in training"),
    ],
)
def test_a_pause_parts_two_legs(attempt: Attempt, end: float) -> None:
    """The first leg lasts as long as its epochs; the last one ends with its trial, or with a pause that still lasts."""
    assert draw(attempt) == [("first", 0, 2, 100.0, 120.0), ("second", 2, 5, 200.0, end)]


def test_a_trial_is_its_last_workers() -> None:
    """Who went on with it has what it raised in the log, and is named wherever a trial has one worker."""
    assert make_attempt(State.FAILED, ended=300.0).worker == "second"
    assert Attempt(7, 3, "cell", {}, State.RUNNING, None, TrialAttributes(worker="first")).worker == "first"
    assert Attempt(7, 3, "", {}, State.COMPLETE, 0.5).worker == ""


def test_kept_epochs_are_of_no_leg() -> None:
    """What an earlier attempt trained took none of this one's time."""
    assert draw(make_attempt(State.COMPLETE, ended=240.0, kept=1))[0] == ("first", 1, 2, 100.0, 110.0)


def test_a_trial_without_a_pause_has_one_leg() -> None:
    """From its begin to its end, whatever its epochs took."""
    attempt = Attempt(7, 3, "cell", {}, State.COMPLETE, 0.5, began=100.0, ended=130.0)
    assert draw(attempt) == [("", 0, 0, 100.0, 130.0)]


@pytest.mark.parametrize(
    ("seconds", "unit"),
    [(0.0, "seconds"), (119.0, "seconds"), (120.0, "minutes"), (7199.0, "minutes"), (7200.0, "hours")],
)
def test_the_axis_has_the_unit_of_its_length(seconds: float, unit: str) -> None:
    """A study of half a minute is not told in hundredths of minutes, nor one of a day in a thousand of them."""
    assert choose_unit(seconds) == unit
