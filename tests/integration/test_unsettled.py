"""What was begun after a search and says nothing yet: named with the reason, and with what helps."""

import re

import pytest
from confirmed_study import LARGE, SMALL, confirm, finish, grow
from small_study import ON_SQLITE, finish_everything

from fmnist_optuna.cli.answers import winner_answer
from fmnist_optuna.cli.winner_tables import print_winner
from fmnist_optuna.errors import NotFoundError
from fmnist_optuna.export.source import choose_source
from fmnist_optuna.pages.overview import read_overview
from fmnist_optuna.pages.report import render_report
from fmnist_optuna.results import winner
from fmnist_optuna.results.winner import evaluate_leader, find_winner
from fmnist_optuna.study.session import Session

CONFIRM = "`fmnist-optuna confirm small`"
BEGUN = {
    "unfinished": (LARGE, None, (), f"0 of its 2 cells are done; {CONFIRM} goes on"),
    "outgrown": (
        SMALL,
        {64: (0.9, 0.8)},
        (),
        f"the best cell is none of its cells, as the grid has grown since; {CONFIRM} goes on",
    ),
    "diverged": (
        LARGE,
        {128: (0.9, 0.8)},
        [(128, 2)],
        f"no cell has a result for each of its seeds; {CONFIRM[:-1]} --top 2` compares one more cell",
    ),
}  # fmt: skip


@ON_SQLITE
@pytest.mark.parametrize("begun", BEGUN)
def test_a_confirmation_that_says_nothing_is_named(
    session: Session, capsys: pytest.CaptureFixture[str], begun: str
) -> None:
    """With the reason and what helps, wherever the winner is told; before it was begun there is none."""
    point, values, diverged, why = BEGUN[begun]
    finish_everything(session)
    assert find_winner(session).unsettled is None
    confirming = confirm(session, [point], 2)
    if values is not None:
        finish(confirming, values, diverged)
    found = find_winner(session)
    print_winner(session.record, found, session.history.counts())
    assert f"confirmation {why}" in " ".join(capsys.readouterr().out.split())
    assert winner_answer(session.record, found)["unsettled"] == f"confirmation: {why}"
    with pytest.raises(NotFoundError, match=re.escape(f"must be confirmed first; confirmation: {why}")):
        choose_source(session, None, False, 2)
    page = re.sub("</?code>", "`", render_report(read_overview(session), None))
    assert f"A confirmation says nothing yet: {why}." in page


@ON_SQLITE
def test_a_leader_is_the_leader_whatever_was_confirmed(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is unsettled of the cell that the search alone would choose, which a confirmation is compared with."""
    finish_everything(session)
    finish(confirm(session, [SMALL, LARGE], 2), {64: (0.9, 0.8), 128: (0.7, 0.6)})
    monkeypatch.setattr(winner, "_open_winner", lambda *_: None)
    leader = evaluate_leader(session, None)
    assert {**LARGE, "unsettled": leader.unsettled} == {**leader.attempt.params, "unsettled": None}
    assert find_winner(session).attempt.params == SMALL


@ON_SQLITE
def test_a_grid_that_grew_comes_before_its_confirmation(session: Session) -> None:
    """Which is refused until the new cells are done."""
    finish_everything(session)
    finish(confirm(session, [SMALL], 2), {64: (0.9, 0.8)})
    unsettled = find_winner(grow(session)).unsettled
    assert str(unsettled) == (
        "the study has cells again that are not done; `fmnist-optuna run`, with the study's file if it has one, goes "
        "on with these"
    )
