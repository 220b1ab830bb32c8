"""The rule of the ladder: who goes on from a rung and who is cut, every answer worked out by hand or a law."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmnist_optuna.search.ladder import Decision, LadderRule, Standing, describe_cut, stand_at

N_VALIDATION = 12_000
RULE = LadderRule(first_rung=2, kappa=1.0, margin=1.0, n_validation=N_VALIDATION, max_epochs=30)
ABSOLUTE = replace(RULE, margin=0.0, n_validation=None)
DIVERGED = Standing(None, None)

CELLS = st.sampled_from(["a", "b", "c", "d", "e", "f"])
COUNTS = st.integers(0, N_VALIDATION)  # images that were told right: an accuracy is a multiple of 1 / n_validation


@st.composite
def draw_standing(draw: st.DrawFn) -> Standing:
    now, half = sorted((draw(COUNTS), draw(COUNTS)), reverse=True)
    return Standing(now / N_VALIDATION, half / N_VALIDATION)


STANDINGS = draw_standing() | st.just(DIVERGED)
RUNGS = st.dictionaries(CELLS, STANDINGS, max_size=6)
FINISHED = st.dictionaries(
    st.sampled_from(["x", "y", "z"]), COUNTS.map(lambda n: n / N_VALIDATION) | st.sampled_from([None, math.nan])
)
RULES = st.builds(
    LadderRule,
    first_rung=st.integers(1, 8),
    kappa=st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0]),
    margin=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
    n_validation=st.just(N_VALIDATION),
    max_epochs=st.integers(1, 100),
)


@pytest.mark.parametrize(
    ("first_rung", "max_epochs", "expected"),
    [(2, 30, (2, 4, 8, 16)), (2, 16, (2, 4, 8)), (3, 25, (3, 6, 12, 24)), (1, 5, (1, 2, 4)), (2, 2, ()), (4, 1, ())],
)
def test_rungs_double_and_lie_below_the_last_epoch(first_rung: int, max_epochs: int, expected: tuple[int, ...]) -> None:
    """At the last epoch nothing is left to save."""
    assert replace(RULE, first_rung=first_rung, max_epochs=max_epochs).rungs() == expected


@pytest.mark.parametrize(("n_epochs", "expected"), [(0, 2), (1, 2), (2, 4), (5, 8), (8, 16), (16, None), (29, None)])
def test_the_next_rung_is_the_first_beyond(n_epochs: int, expected: int | None) -> None:
    """Counted from epochs or from a rung; after the last one a cell trains to its end."""
    assert RULE.next_rung(n_epochs) == expected


@pytest.mark.parametrize(
    ("rung", "values", "expected"),
    [
        (4, [0.5, 0.7, 0.6, 0.8, 0.9], Standing(0.8, 0.7)),
        (4, [0.8, 0.7, 0.6, 0.5], Standing(0.8, 0.8)),
        (2, [0.5, 0.4], Standing(0.5, 0.5)),
        (3, [0.5, 0.6, 0.7], Standing(0.7, 0.5)),
        (1, [0.5], Standing(0.5, None)),
        (4, [0.5, 0.6, 0.7], DIVERGED),
        (4, [0.5, math.nan, 0.7, 0.8], DIVERGED),
        (4, [0.5, 0.6, 0.7, math.inf], DIVERGED),
        (2, [0.5, 0.6, math.nan], Standing(0.6, 0.5)),
        (2, [], DIVERGED),
    ],
)
def test_a_standing_is_the_best_so_far(rung: int, values: list[float], expected: Standing) -> None:
    """Of the rung's epochs and of half of them; what is not finite or not there gives none."""
    assert stand_at(rung, values) == expected


def test_a_slow_cell_that_gains_goes_on() -> None:
    """0.80 and 0.80 again after a doubling lose against 0.85; 0.80 that came from 0.74 does not."""
    rung = {"leader": Standing(0.85, 0.84), "flat": Standing(0.80, 0.80), "rising": Standing(0.80, 0.74)}
    assert ABSOLUTE.decide(rung, {}) == Decision(0.85, "leader", 0.0, None, {"flat": Standing(0.80, 0.80)})


def test_the_margin_counts_standard_errors_of_the_leader() -> None:
    """At 90 % of 10,000 images one is 0.3 points: 0.8971 goes on and 0.8969 does not."""
    rule = replace(RULE, n_validation=10_000)
    rung = {"leader": Standing(0.9, 0.9), "near": Standing(0.8971, 0.8971), "far": Standing(0.8969, 0.8969)}
    decision = rule.decide(rung, {})
    assert decision.margin == pytest.approx(0.003)
    assert list(decision.cut) == ["far"]


def test_a_share_of_errors_has_the_same_margin() -> None:
    """Negated, so that the larger is the better: 10 % wrong are as uncertain as 90 % right."""
    assert RULE.margin_below(87.0) > 0  # in percent, by whatever name: no share
    assert RULE.margin_below(-0.1) == pytest.approx(RULE.margin_below(0.9))


@pytest.mark.parametrize(("now", "half", "leader"), [(0.7, 0.6, 0.8), (0.3, 0.2, 0.4), (0.9, 0.9, 0.9)])
def test_who_is_equal_to_the_bound_goes_on(now: float, half: float, leader: float) -> None:
    """Also where 0.7 + (0.7 - 0.6) is less than 0.8 in the last bit."""
    assert not ABSOLUTE.is_cut(Standing(now, half), leader)
    assert ABSOLUTE.is_cut(Standing(now - 1 / N_VALIDATION, half), leader)


def test_kappa_0_compares_what_is_there() -> None:
    """No gain is trusted."""
    rule = replace(ABSOLUTE, kappa=0.0)
    assert rule.is_cut(Standing(0.80, 0.10), 0.81)


def test_a_finished_cell_leads_and_is_not_cut() -> None:
    """Its score counts, whether it is the best or the worst."""
    rung = {"a": Standing(0.80, 0.80), "b": Standing(0.70, 0.70)}
    assert list(ABSOLUTE.decide(rung, {"x": 0.90, "y": 0.10}).cut) == ["a", "b"]
    decision = ABSOLUTE.decide(rung, {"y": 0.10})
    assert (decision.leading_cell, list(decision.cut)) == ("a", ["b"])


def test_a_rung_where_all_are_finished_cuts_nobody() -> None:
    """And has a leader."""
    assert RULE.decide({}, {"x": 0.9, "y": 0.8}) == Decision(0.9, "x", RULE.margin_below(0.9), None, {})


def test_an_empty_rung_has_no_leader() -> None:
    """Nothing to decide is no error."""
    assert RULE.decide({}, {}) == Decision(None, None, 0.0, None, {})


def test_a_cell_alone_goes_on() -> None:
    """It is its own leader."""
    assert RULE.decide({"a": Standing(0.1, 0.1)}, {}).cut == {}


def test_what_diverged_is_cut_and_leads_nobody() -> None:
    """Alone or among others; the score of a finished cell that is no number leads neither."""
    assert RULE.decide({"a": DIVERGED}, {"x": math.nan, "y": None}) == Decision(None, None, 0.0, None, {"a": DIVERGED})
    assert list(RULE.decide({"a": DIVERGED, "b": Standing(0.2, 0.1)}, {}).cut) == ["a"]


def test_of_equal_leaders_the_first_by_name_is_told() -> None:
    """In any order of the rows."""
    equal = Standing(0.9, 0.8)
    assert RULE.decide({"b": equal, "a": equal}, {"c": 0.9}).leading_cell == "a"


@given(RULES, RUNGS, FINISHED)
def test_the_leader_is_never_cut(
    rule: LadderRule, rung: dict[str, Standing], finished: dict[str, float | None]
) -> None:
    """Nor is anybody who has as much."""
    decision = rule.decide(rung, finished)
    assert not any(standing.now == decision.leader for standing in decision.cut.values() if standing.now is not None)
    assert decision.leading_cell not in decision.cut


@given(RULES, RUNGS, FINISHED, st.data())
def test_the_order_of_rows_is_of_no_account(
    rule: LadderRule, rung: dict[str, Standing], finished: dict[str, float | None], data: st.DataObject
) -> None:
    """The same decision, to the order of the cut cells."""
    shuffled = dict(data.draw(st.permutations(list(rung.items()))))
    first, second = rule.decide(rung, finished), rule.decide(shuffled, dict(reversed(finished.items())))
    assert first == second
    assert list(first.cut) == list(second.cut)


@given(RULES, RUNGS, FINISHED, STANDINGS)
def test_a_worse_cell_changes_nothing_for_others(
    rule: LadderRule, rung: dict[str, Standing], finished: dict[str, float | None], other: Standing
) -> None:
    """One that does not lead takes nobody with it and saves nobody."""
    before = rule.decide(rung, finished)
    after = rule.decide({**rung, "other": other}, finished)
    if other.now is None or (before.leader is not None and other.now <= before.leader):
        assert {cell: after.cut[cell] for cell in after.cut if cell != "other"} == before.cut


@given(RULES, STANDINGS, COUNTS, COUNTS)
def test_who_is_cut_is_cut_below_a_better_leader(rule: LadderRule, standing: Standing, one: int, two: int) -> None:
    """So a cell may be cut at once, whoever else is still to come to the rung."""
    lower, higher = sorted((one, two))
    if rule.is_cut(standing, lower / N_VALIDATION):
        assert rule.is_cut(standing, higher / N_VALIDATION)


@pytest.mark.parametrize(
    ("standing", "leader", "expected"),
    [
        (Standing(0.861, 0.852), 0.879, "86.1 % and gaining 0.9 a doubling, the best had 87.9 %"),
        (Standing(0.861, None), 0.879, "86.1 %, the best had 87.9 %"),
        (DIVERGED, 0.879, "its val_accuracy is not a finite number"),
        (DIVERGED, None, "its val_accuracy is not a finite number"),
    ],
)
def test_a_cut_is_told_in_one_sentence(standing: Standing, leader: float | None, expected: str) -> None:
    """With the numbers that decided it."""
    assert describe_cut(4, standing, leader) == f"cut at epoch 4: {expected}"


def test_the_best_few_go_on_whatever_they_promise() -> None:
    """Those kept count finished cells in, equal values together, and never what is no number."""
    values = {"a": 0.80, "b": 0.70, "c": 0.60, "d": 0.60, "e": 0.5}
    rung = {name: Standing(value, value) for name, value in values.items()}
    for keep, kept_from, cut in ((0, None, "bcde"), (1, 0.80, "bcde"), (2, 0.70, "cde"), (3, 0.60, "e"), (9, 0.5, "")):
        decision = replace(ABSOLUTE, keep=keep).decide({**rung, "x": DIVERGED}, {})
        assert decision.kept_from == kept_from
        assert list(decision.cut) == [*cut, "x"]
    assert replace(ABSOLUTE, keep=2).decide(rung, {"finished": 0.75}).kept_from == 0.75
    assert replace(ABSOLUTE, keep=2).decide({}, {}).kept_from is None


def test_who_is_among_the_best_whoever_comes_goes_on_ahead() -> None:
    """Of the best three, one that is still to come can push out the third, two can push out the second as well."""
    rule = replace(ABSOLUTE, keep=3)
    come = {name: Standing(now, None) for name, now in [("a", 0.8), ("b", 0.7), ("c", 0.6), ("d", 0.5)]}
    assert [rule.decide_ahead(come, {}, n).kept_from for n in range(5)] == [0.6, 0.7, 0.8, None, None]
    assert rule.decide_ahead(come, {"e": 0.9}, 1).kept_from == 0.8  # finished cells take places
    assert rule.decide_ahead({"a": come["a"]}, {}, 1).kept_from == 0.8  # of fewer than are kept, all
    assert rule.decide_ahead({"a": DIVERGED}, {}, 1).kept_from is None
    assert rule.decide_ahead(come, {}, 1) == Decision(0.8, "a", 0.0, 0.7, {})


@given(rules=RULES, keep=st.integers(0, 4), come=RUNGS, late=RUNGS, finished=FINISHED, n_finish=st.integers(0, 3))
def test_who_goes_on_ahead_is_never_cut(
    rules: LadderRule,
    keep: int,
    come: dict[str, Standing],
    late: dict[str, Standing],
    finished: dict[str, float | None],
    n_finish: int,
) -> None:
    """Whatever the others have when they come, or if they end on the way."""
    rule = replace(rules, keep=keep)
    late = {f"late {cell}": standing for cell, standing in late.items()}
    early = dict(list(finished.items())[n_finish:])
    ahead = rule.decide_ahead(come, early, len(late) + len(finished) - len(early))
    in_the_end = rule.decide(come | late, finished)
    for cell, standing in come.items():
        if ahead.keeps(standing):
            assert in_the_end.keeps(standing)
            assert cell not in in_the_end.cut
