"""What is told of rungs: numbers worked out by hand, lines that fit a terminal, also while cells are parked."""

from rich.console import Console

from fmnist_optuna.artifacts.checkpoints import DiskUse
from fmnist_optuna.cli.study_tables import (
    describe_checkpoints,
    describe_climb,
    describe_decided,
    describe_parked,
    rungs_table,
)
from fmnist_optuna.ledger.records import Attempt, TrialAttributes
from fmnist_optuna.ledger.rung_records import DecidedRung, OpenCells
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.ladder import LadderRule
from fmnist_optuna.search.metric import VAL_ACCURACY
from fmnist_optuna.study.attempts import describe_ending, sort_attempts
from fmnist_optuna.study.climb import Climb, make_steps

RULE = LadderRule(first_rung=2, kappa=1.0, margin=1.0, n_validation=12_000, max_epochs=30)
FIRST = DecidedRung(1, 2, 100.0, n_parked=27, n_cut=18, leader="a", leader_value=0.8654, margin=0.003, kept_from=None)
# Nine went on from epoch 2: five are parked at epoch 4, and four are on their way there.
OPEN = [OpenCells(2, n_parked=0, n_beyond=4), OpenCells(4, n_parked=5, n_beyond=0)]
TRAINED = {0: 27, 1: 27, 2: 7, 3: 5}


def made_up_climb() -> Climb:
    return Climb(tuple(make_steps(RULE, [FIRST], OPEN, TRAINED, {4: 0.8822})), sum(TRAINED.values()))


def draw(climb: Climb) -> list[str]:
    console = Console(width=80, color_system=None, emoji=False, markup=False)
    with console.capture() as captured:
        console.print(rungs_table(climb))
    return [" ".join(line.split()) for line in captured.get().splitlines()]


def test_a_decided_and_an_open_rung() -> None:
    """The first has what was cut and what that saves, the second who is parked and who is still to come."""
    first, second = made_up_climb().steps
    assert (first.rung, first.n_cells, first.n_cut, first.n_went_on, first.share) == (2, 27, 18, 9, 1 / 3)
    assert (first.n_epochs, first.n_saved, first.best) == (54, 18 * 28, 0.8654)
    assert (second.rung, second.n_cells, second.n_parked, second.n_to_come, second.share) == (4, 5, 5, 4, None)
    assert (second.n_epochs, second.n_saved, second.best, second.decided_at) == (12, 0, 0.8822, None)


def test_cells_that_come_later_are_counted_too() -> None:
    """A grid that grew: the same rung is decided twice, and a third time is open."""
    later = DecidedRung(3, 2, 200.0, n_parked=3, n_cut=1, leader="b", leader_value=0.87, margin=0.002, kept_from=None)
    (step,) = make_steps(RULE, [FIRST, later], [OpenCells(0, 0, 2), OpenCells(2, 1, 0)], {0: 31}, {2: 0.5})
    assert (step.n_cells, step.n_cut, step.n_went_on, step.n_parked, step.n_to_come) == (31, 19, 11, 1, 2)
    assert (step.best, step.leader, step.margin, step.decided_at) == (0.87, "b", 0.002, 200.0)


def test_nothing_is_told_before_a_cell_has_come() -> None:
    """While all are on their way to the first rung there is no row."""
    assert make_steps(RULE, [], [OpenCells(0, 0, 27)], {0: 3}, {}) == []


def test_the_table_fits_80_columns() -> None:
    """One line for each rung, with the parked cells of one that is open."""
    assert draw(made_up_climb()) == [
        "rung cells best cut went on trained saved",
        "2 27 86.54 % 18 9 54 up to 504",
        "4 5 88.22 % 12 5 of 9 parked",
    ]


def test_a_large_study_fits_too() -> None:
    """Ten thousand cells, some of which came later, need one line a rung as well."""
    decided = DecidedRung(
        1, 16, 1.0, n_parked=9_000, n_cut=8_990, leader="a", leader_value=0.9, margin=0.1, kept_from=None
    )
    cells = [OpenCells(8, 0, 20), OpenCells(16, 30, 0)]
    climb = Climb(tuple(make_steps(RULE, [decided], cells, dict.fromkeys(range(16), 9_030), {})), 144_480)
    assert draw(climb)[1:] == ["16 9,030 90.00 % 8,990 10 72,240 up to 125,860 30 of 50 parked"]


def test_a_decision_is_one_line() -> None:
    """With the best value, unless none was finite."""
    assert describe_decided(FIRST) == "rung 2: 27 cells, 18 cut, the best has 86.5 %"
    nobody = DecidedRung(1, 2, 100.0, n_parked=1, n_cut=1, leader="", leader_value=None, margin=0.0, kept_from=None)
    assert describe_decided(nobody) == "rung 2: 1 cell, 1 cut"


def test_what_was_saved_is_a_sentence() -> None:
    """Nothing is said of savings where nothing was cut."""
    assert describe_climb(made_up_climb()) == "66 epochs trained; 18 cut cells would have taken up to 504 more"
    assert describe_climb(Climb((), 1)) == "1 epoch trained"


def test_checkpoints_are_counted() -> None:
    """Files and size; small ones with a digit more."""
    assert describe_checkpoints(DiskUse(9, 31 * 2**20)) == "checkpoints: 9 files, 31 MiB"
    assert describe_checkpoints(DiskUse(1, 2**20 + 2**19)) == "checkpoints: 1 file, 1.5 MiB"


def test_who_is_parked_is_said_only_where_somebody_is() -> None:
    """A rung that is decided has no such words."""
    first, second = made_up_climb().steps
    assert (describe_parked(first), describe_parked(second)) == ("", "5 of 9 parked")


def test_an_attempt_says_where_it_rests_or_was_cut() -> None:
    """By the rung where it is known; a study without rungs says nothing of a pruned trial but its state."""

    def said(state: State, rung: int | None, noted: TrialAttributes | None = None) -> str:
        return describe_ending(Attempt(1, 0, "cell", {}, state, None, noted or TrialAttributes(), rung=rung))

    pruned, failed = TrialAttributes(reason="pruned"), TrialAttributes(reason="exception", error="ValueError: no")
    assert said(State.RUNNING, 4) == "parked at epoch 4"
    assert said(State.RUNNING, None) == ""
    assert said(State.PRUNED, 4, pruned) == "cut at epoch 4"
    assert said(State.PRUNED, None, pruned) == ""
    assert said(State.PRUNED, None, TrialAttributes(reason="diverged")) == "diverged"
    assert said(State.FAILED, None, failed) == "ValueError: no"


def test_parked_attempts_come_before_those_that_run() -> None:
    """Whichever trial is older: to Optuna both are running."""
    running, parked = (
        Attempt(number, number, "cell", {}, State.RUNNING, None, rung=number or None) for number in (0, 2)
    )
    assert sort_attempts([running, parked], VAL_ACCURACY) == [parked, running]
