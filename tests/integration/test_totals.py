"""What a monitor reads of the studies of a storage, on both databases."""

from collections.abc import Callable

import optuna
import pytest
from optuna.trial import TrialState
from prometheus_client import generate_latest
from small_study import (
    KILLED,
    LOST,
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
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.totals import read_totals
from fmnist_optuna.bridge.trials import note
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.monitoring.studies import StudyMetrics
from fmnist_optuna.study.session import Session

Sessions = Callable[..., Session]


def lose_cell(session: Session, loss: TrialAttributes = LOST) -> None:
    """Begin a trial of the next cell, and take the cell from its worker."""
    begin_trial(session, claim_cell(session))
    (held,) = session.ledger.held_cells()
    assert session.recovery.requeue(held, loss)


def work_on(session: Session) -> None:
    """Of four cells one is complete, one pruned, one runs, one waits after a loss; three epochs in all."""
    for end, value in ((finish_trial, 0.75), (prune_trial, 0.9)):
        claim = claim_cell(session)
        trial_id = begin_trial(session, claim)
        session.ledger.record_epoch(claim, trial_id, epoch_of(0, 0.5))
        end(session, trial_id, value)
        attempt = read_attempt(session.optuna_storage.get_trial(trial_id))
        session.ledger.finish_cell(claim.cell_id, claim.token, attempt)
    lose_cell(session)
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


def counters_of(session: Session) -> tuple[int, int, int]:
    """Trials, losses and epochs of the one study that is there."""
    (totals,) = read_totals(session.storage)
    return totals.n_trials, totals.n_lost, totals.n_epochs


@POSTGRES_MORE
def test_epochs_that_were_taken_over_count_once(new_session: Sessions) -> None:
    """However often a training goes on from a checkpoint; at no moment of a hand-over is the total another one."""
    session = new_session("w-1", make_spec({"hidden_size": [64]}))
    curve = [epoch_of(number, 0.5) for number in range(10)]
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    for epoch in curve:
        session.ledger.record_epoch(claim, trial_id, epoch)
    for n_trained in (10, 11, 12):
        assert session.recovery.requeue_worker("w-1", TrialAttributes(reason="stopped"))
        claim = claim_cell(session)
        trial = optuna.Trial(session.optuna_study, begin_trial(session, claim))
        note(trial, TrialAttributes(kept_epochs=n_trained))
        assert counters_of(session)[2] == n_trained
        assert session.ledger.keep_epochs(claim, trial_id_of(trial), curve)
        assert counters_of(session)[2] == n_trained
        curve.append(epoch_of(n_trained, 0.5))
        session.ledger.record_epoch(claim, trial_id_of(trial), curve[-1])
        assert counters_of(session)[2] == n_trained + 1


@POSTGRES_MORE
def test_retry_takes_back_no_loss(new_session: Sessions) -> None:
    """Prometheus would take a fall for a restart, and all losses for new ones; what was stopped is no loss."""
    session = new_session("w-1", make_spec({"hidden_size": [64]}))
    blamed = TrialAttributes(reason="blamed", error="it kills its workers")
    for loss in (LOST, KILLED, TrialAttributes(reason="stopped"), blamed):
        lose_cell(session, loss)
    assert counters_of(session) == (4, 3, 0)
    assert session.ledger.retry_failed() == 1
    assert counters_of(session) == (4, 3, 0)


@POSTGRES_MORE
def test_trials_of_other_programs_are_not_counted(new_session: Sessions) -> None:
    """Whatever they have noted under our names."""
    session = new_session("w-1")
    foreign = session.optuna_study.ask()
    foreign.set_user_attr("reason", "lost")
    foreign.set_user_attr("kept_epochs", "many")
    session.optuna_study.tell(foreign, state=TrialState.FAIL)
    work_on(session)
    assert counters_of(session) == (4, 1, 3)
