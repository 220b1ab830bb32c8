"""What a monitor reads of the studies of a storage, on both databases."""

from collections.abc import Callable

import pytest
from prometheus_client import generate_latest
from small_study import (
    ON_SQLITE,
    POSTGRES_MORE,
    STUDY,
    begin_trial,
    claim_cell,
    create_study,
    epoch_of,
    finish_trial,
    make_spec,
    prune_trial,
)

from fmnist_optuna.bridge.attributes import read_attempt
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.totals import read_totals
from fmnist_optuna.pages.monitoring.studies import StudyMetrics
from fmnist_optuna.study.session import Session

Sessions = Callable[..., Session]


def work_on(session: Session) -> None:
    """Of four cells one is complete, one pruned, one runs after it was lost, one waits; three epochs in all."""
    for end, value in ((finish_trial, 0.75), (prune_trial, 0.9)):
        claim = claim_cell(session)
        trial_id = begin_trial(session, claim)
        session.ledger.record_epoch(claim, trial_id, epoch_of(0, 0.5))
        end(session, trial_id, value)
        attempt = read_attempt(session.optuna_storage.get_trial(trial_id))
        session.ledger.finish_cell(claim.cell_id, claim.token, attempt)
    claim = claim_cell(session)
    session.ledger.give_back(claim.cell_id, claim.token, count_lost=True)
    claim = claim_cell(session)
    session.ledger.record_epoch(claim, begin_trial(session, claim), epoch_of(0, 0.5))
    session.presence.register("w-1", fresh_seconds=30.0)


@POSTGRES_MORE
def test_totals_are_those_of_the_tables(new_session: Sessions) -> None:
    """Cells by state, trials, losses, epochs, workers and values; of a study without any they are 0."""
    session = new_session("w-1")
    create_study(session.storage, make_spec(name="other"))
    work_on(session)
    small, other = read_totals(session.storage)
    assert (small.name, other.name) == (STUDY, "other")
    assert small.cells == {
        State.COMPLETE: 1, State.PRUNED: 1, State.RUNNING: 1, State.WAITING: 1, State.PARKED: 0, State.FAILED: 0,
    }  # fmt: skip
    assert (small.n_trials, small.n_lost, small.n_epochs, small.n_workers) == (4, 1, 3, 1)
    assert small.values == (0.75, 0.75)
    assert (other.cells[State.WAITING], other.n_trials, other.n_epochs, other.values) == (4, 0, 0, None)
    assert [each.name for each in read_totals(session.storage, "other")] == ["other"]
    assert read_totals(session.storage, "missing") == []


@ON_SQLITE
@pytest.mark.parametrize("study", [None, STUDY])
def test_a_scrape_has_the_studies_asked_for(new_session: Sessions, study: str | None) -> None:
    """With the metric that each compares by."""
    session = new_session("w-1")
    create_study(session.storage, make_spec(name="other"))
    work_on(session)
    text = generate_latest(StudyMetrics(session.storage, study).registry).decode()
    assert f'fmnist_optuna_best_value{{metric="val_accuracy",study="{STUDY}"}} 0.75\n' in text
    assert f'fmnist_optuna_cells{{state="waiting",study="{STUDY}"}} 1.0\n' in text
    assert ('study="other"' in text) == (study is None)
