"""The time left of a study with rungs: by hand for made-up states, and never absurd along whole replayed studies."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from small_study import ladder_curve

from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.ledger.rung_records import DecidedRung
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.time_on_rungs import expect_end, expect_epochs, expect_seconds, expect_shares
from fmnist_optuna.search.ladder import LadderRule, stand_at

RULE = LadderRule(first_rung=2, kappa=1.0, margin=1.0, n_validation=2_000, max_epochs=16)  # rungs 2, 4, 8
SECONDS = 0.5  # of an epoch


def decided(rung: int, n_parked: int, n_cut: int) -> DecidedRung:
    return DecidedRung(rung, rung, 0.0, n_parked, n_cut, "a", 0.9, 0.0, None)


def made_up(n_epochs: int, state: State, rung: int = 0, size: int = 8) -> Cell:
    return Cell("cell", {"hidden_size": size}, state, n_epochs=n_epochs, seconds=SECONDS * n_epochs, rung=rung)


def test_shares_are_those_of_the_decisions() -> None:
    """Of all decisions at a rung together; above the last one the square root of the share below."""
    assert expect_shares(RULE, []) is None
    shares = expect_shares(RULE, [decided(2, 20, 16), decided(2, 5, 3), decided(4, 9, 0)])
    assert shares == {2: pytest.approx(6 / 25), 4: 1.0, 8: 1.0}
    assert expect_shares(RULE, [decided(2, 16, 12)]) == {2: 0.25, 4: 0.5, 8: math.sqrt(0.5)}
    assert expect_shares(replace(RULE, keep=3), [decided(2, 16, 12)]) == {2: 0.25, 4: 0.75, 8: 1.0}


def test_the_epochs_of_a_cell_by_hand() -> None:
    """A cell goes on from a rung as likely as others did; what it has behind it is certain."""
    shares = {2: 0.5, 4: 0.5, 8: 1.0}
    new = 2 + 0.5 * (2 + 0.5 * (4 + 8))
    assert expect_epochs(RULE, made_up(0, State.WAITING), shares, 16) == new
    assert expect_epochs(RULE, made_up(2, State.PARKED, 2), shares, 16) == new - 2
    assert expect_epochs(RULE, made_up(2, State.WAITING, 2), shares, 16) == 2 + 0.5 * (4 + 8)
    assert expect_epochs(RULE, made_up(3, State.RUNNING, 2), shares, 16) == 1 + 0.5 * (4 + 8)
    assert expect_epochs(RULE, made_up(0, State.WAITING, 4), shares, 16) == 8 + 8  # lost its worker beyond epoch 4
    assert expect_epochs(RULE, made_up(2, State.WAITING, 2), shares, 3) == 1


def test_the_end_is_where_others_ended() -> None:
    """Those that ended before a cell's epoch say nothing of it."""
    cells = [made_up(10, State.COMPLETE), made_up(13, State.COMPLETE), made_up(2, State.PRUNED)]
    assert [expect_end(RULE, cells, n) for n in (2, 12, 13)] == [(10 + 13 + 16) / 3, (13 + 16) / 2, 16]
    assert expect_end(RULE, [], 2) == 16


def test_cells_that_were_let_on_ahead_say_nothing_of_the_others() -> None:
    """Two of 27 go on before the rung is decided: no share is known. Later it is that of the rung below."""
    ahead = [made_up(2, State.RUNNING, 2), made_up(2, State.WAITING, 2)]
    others = [*(made_up(2, State.PARKED, 2) for _ in range(24)), made_up(1, State.RUNNING)]
    assert expect_seconds(RULE, [*ahead, *others], [decided(2, 2, 0)], 2) is None
    below = [decided(2, 2, 0), decided(2, 25, 18)]
    left = [made_up(4, State.RUNNING, 4), made_up(4, State.PARKED, 4), made_up(3, State.RUNNING, 2)]
    assert expect_seconds(RULE, left, [*below, decided(4, 1, 0)], 2) == expect_seconds(RULE, left, below, 2)
    through = [made_up(4, State.RUNNING, 4) for _ in range(4)]
    assert expect_seconds(RULE, through, [*below, decided(4, 4, 0)], 1) == 4 * 12 * SECONDS  # all go on from 8 too
    fewer = expect_seconds(RULE, through, below, 1)
    assert fewer is not None
    assert fewer < 4 * 12 * SECONDS


def test_nothing_is_said_before_the_first_decision() -> None:
    """Nor of a size of which no epoch was trained."""
    cells = [made_up(2, State.PARKED, 2), made_up(1, State.RUNNING)]
    assert expect_seconds(RULE, cells, [], 2) is None
    assert expect_seconds(RULE, [*cells, made_up(0, State.WAITING, size=512)], [decided(2, 4, 3)], 2) is None


def test_cells_that_are_cut_take_no_time() -> None:
    """Nor does a study in which all the others have ended."""
    cut = replace(made_up(2, State.WAITING, 2), cut_at=2)
    assert expect_seconds(RULE, [cut, made_up(16, State.COMPLETE)], [decided(2, 2, 1)], 1) == 0.0


def test_no_more_workers_than_the_longest_cell_needs() -> None:
    """Hundred workers train one cell no faster than one."""
    cells = [made_up(2, State.RUNNING, 2), made_up(4, State.PARKED, 4)]
    assert expect_seconds(RULE, cells, [decided(2, 2, 0), decided(4, 1, 0)], 100) == SECONDS * 12


@dataclass(frozen=True)
class Moment:
    """A state of a replayed study, and how many epochs it really takes from there."""

    cells: list[Cell]
    decisions: list[DecidedRung]
    n_left: int


def replay(first: int, n_cells: int) -> list[Moment]:
    """A study of one worker, after each leg of a cell: all come to a rung, then it is decided."""
    curves = {str(size): ladder_curve({"hidden_size": size}) for size in range(first, first + n_cells)}
    cells = {name: made_up(0, State.WAITING) for name in curves}
    moments: list[Moment] = []
    decisions: list[DecidedRung] = []
    for moment in _climb(curves, cells, decisions):
        moments.append(Moment(list(cells.values()), list(decisions), moment))
    total = moments[-1].n_left
    return [replace(moment, n_left=total - moment.n_left) for moment in moments]


def _climb(curves: dict[str, list[float]], cells: dict[str, Cell], decisions: list[DecidedRung]) -> Iterator[int]:
    """Yields how many epochs were trained so far."""
    n_trained = 0
    for rung in (*RULE.rungs(), RULE.max_epochs):
        for name, cell in cells.items():
            if cell.state is State.WAITING:
                n_epochs = min(rung, len(curves[name]))
                n_trained += n_epochs - cell.n_epochs
                is_over = n_epochs < rung or rung == RULE.max_epochs
                state = State.COMPLETE if is_over else State.PARKED
                cells[name] = made_up(n_epochs, state, cell.rung if is_over else rung)
                yield n_trained
        parked = {name for name, cell in cells.items() if cell.state is State.PARKED}
        finished = {name: max(curves[name]) for name, cell in cells.items() if cell.state is State.COMPLETE}
        decision = RULE.decide({name: stand_at(rung, curves[name]) for name in parked}, finished)
        if parked:
            decisions.append(decided(rung, len(parked), len(decision.cut)))
        for name in parked:
            cells[name] = replace(cells[name], state=State.PRUNED if name in decision.cut else State.WAITING)
        yield n_trained


@pytest.mark.parametrize("first", [1, 101, 1_001, 5_001])
def test_no_moment_of_a_study_has_an_absurd_estimate(first: int) -> None:
    """Within the epochs that are left at most, and above nothing; with two decisions known within a factor of four."""
    n_told = 0
    for moment in replay(first, 27):
        racing = [cell for cell in moment.cells if cell.state in (State.WAITING, State.PARKED)]
        seconds = expect_seconds(RULE, moment.cells, moment.decisions, 1)
        if not moment.decisions:
            assert seconds is None
        elif racing:
            n_told += 1
            assert seconds is not None
            assert 0 < seconds <= SECONDS * sum(RULE.max_epochs - cell.n_epochs for cell in racing)
            if len(moment.decisions) > 1 and moment.n_left > RULE.max_epochs:
                assert 1 / 4 < seconds / (SECONDS * moment.n_left) < 4
    assert n_told > 5
