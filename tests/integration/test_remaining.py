"""The time left: large models count as large, and nothing is said where nothing can be known."""

import pytest
from small_study import begin_trial, claim_cell, create_study, finish_cell, finish_trial, make_spec, open_small

from fmnist_optuna.pages.time_left import RemainingTime
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.study.session import Session

SECONDS = {8: 10.0, 64: 100.0}  # what a cell of this hidden size takes


@pytest.fixture
def session(storage_url: str) -> Session:
    """A study of four small and four large cells."""
    storage = open_small(storage_url)
    spec = make_spec({"hidden_size": sorted(SECONDS), "dropout_rate": [0.1, 0.2, 0.3, 0.4]})
    return Session(storage, create_study(storage, spec), "tester")


def finish_next(session: Session) -> int:
    """Finish the next cell in the time of its size; returns the size."""
    claim = claim_cell(session)
    size = int(str(claim.params["hidden_size"]))
    trial_id = begin_trial(session, claim)
    assert session.ledger.record_epoch(claim, trial_id, Epoch(0, 1.0, 0.5, 1.0, 0.5, SECONDS[size])) is not None
    finish_trial(session, trial_id, 0.5)
    assert finish_cell(session, claim, trial_id)
    return size


def test_it_counts_the_cells_of_each_size(session: Session) -> None:
    """With one worker just begun, what is left is what is left of each size times what that size takes."""
    remaining = RemainingTime(session.history)
    finished: list[int] = []
    while len(set(finished)) < len(SECONDS):
        finished.append(finish_next(session))
    claim_cell(session)
    counts, running = session.history.counts(), session.history.running()
    expected = sum(SECONDS[size] * (4 - finished.count(size)) for size in SECONDS)
    assert remaining.estimate(counts, running) == pytest.approx(expected, abs=5.0)
    claim_cell(session)
    counts, running = session.history.counts(), session.history.running()
    assert remaining.estimate(counts, running) == pytest.approx(expected / 2, abs=5.0)


def test_it_is_silent_without_a_result_of_each_size_or_a_worker(session: Session) -> None:
    """Neither the mean of small cells nor an idle study says when it is over."""
    remaining = RemainingTime(session.history)
    finish_next(session)
    assert remaining.estimate(session.history.counts(), session.history.running()) is None
    claim_cell(session)
    assert remaining.estimate(session.history.counts(), session.history.running()) is None
