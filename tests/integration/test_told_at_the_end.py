"""What commands say of a study that is half done, has no winner, or is exported otherwise than chosen; and when."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confirmed_study import LARGE, confirm
from small_study import ON_SQLITE, begin_trial, claim_cell, finish_cell, finish_everything, finish_trial

from fmnist_optuna.cli.live import StudyObserver
from fmnist_optuna.cli.running import _answer
from fmnist_optuna.cli.winner_tables import print_winner
from fmnist_optuna.data.source import ResolvedData
from fmnist_optuna.export.choice import describe_choice
from fmnist_optuna.export.source import choose_source
from fmnist_optuna.results.winner import find_winner
from fmnist_optuna.running.study import StudyResult
from fmnist_optuna.study.session import Session


@ON_SQLITE
def test_cells_to_come_are_told(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """The best of those that are done is not the best of all."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    finish_trial(session, trial_id, 0.5)
    finish_cell(session, claim, trial_id)
    print_winner(session.record, find_winner(session), session.history.counts())
    assert "best of 1 complete cell, 0 pruned, 3 to come\n" in capsys.readouterr().out
    finish_everything(session)
    print_winner(session.record, find_winner(session), session.history.counts())
    assert "best of 4 complete cells, 0 pruned\n" in capsys.readouterr().out


@ON_SQLITE
def test_a_study_whose_cells_all_diverged_has_no_winner(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing has failed that could be tried again: what to change is told."""
    finish_everything(session, lambda params: None)
    with pytest.raises(SystemExit) as ended:
        _answer(StudyResult(session, session.history.counts(), None, Path("logs")), as_json=False)
    assert ended.value.code == 6
    told = caplog.text
    assert "study small: no cell is complete, so there is no winner; fmnist-optuna trials small shows why." in told
    assert "retry" not in told


@ON_SQLITE
def test_a_trial_that_was_asked_for_was_not_chosen(session: Session) -> None:
    """In its card; the winner by its number is the winner."""
    finish_everything(session)
    winner = find_winner(session).trial
    (other, *_) = [cell.trial_number for cell in session.history.finished() if cell.trial_number != winner]
    told = []
    for trial in (None, winner, other):
        source = choose_source(session, trial, False, None)
        facts: Any = SimpleNamespace(source=source, record=session.record, n_cells=4)
        told.append(describe_choice(facts))
    chosen = "One of 4 cells of the grid, by validation accuracy; not confirmed over seeds."
    asked_for = "One of 4 cells of the grid, asked for by its number, whatever was chosen; not confirmed over seeds."
    assert told == [chosen, chosen, asked_for]


class Told(StudyObserver):
    """Keeps what it would say."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def line(self, text: str, level: int = 0) -> None:
        self.lines.append(text)


@ON_SQLITE
def test_the_last_results_are_told_before_what_follows(session: Session) -> None:
    """One call trains two studies: the second begins in the log when all of the first was said."""
    observer, data = Told(), ResolvedData("synthetic", None, "asked for")
    observer.prepared(session, data, 4)
    finish_everything(session)
    observer.prepared(confirm(session, [LARGE], 2), data, 2)
    told = [" ".join(line.split()[:2]) for line in observer.lines]
    assert told == ["study small", "[1/4] trial", "[2/4] trial", "[3/4] trial", "[4/4] trial", "study small/confirm"]


@ON_SQLITE
def test_the_last_results_are_told_before_a_scoring(session: Session) -> None:
    """Whose weights are scored stands below the cells, as it comes after them."""
    observer = Told()
    observer.prepared(session, ResolvedData("synthetic", None, "asked for"), 4)
    finish_everything(session)
    observer.scoring("5 seeds")
    told = [line.split()[0] for line in observer.lines]
    assert told == ["study", "[1/4]", "[2/4]", "[3/4]", "[4/4]", "scoring"]
    assert observer.lines[-1] == "scoring 5 seeds on the test set"
