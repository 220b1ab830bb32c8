"""The trial of a claim: made in one transaction as Optuna would, with the next number; bound if it is there."""

import math
from functools import partial

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import (
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
)
from optuna.trial import FrozenTrial, TrialState
from small_study import (
    begin_trial,
    claim_cell,
    create_trial,
    in_threads,
    open_session,
    read_cell,
)
from sqlalchemy import delete

from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.orphans import fail_orphan
from fmnist_optuna.bridge.trials import make_template
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.study.session import Session
from fmnist_optuna.work import attempt

N_THREADS, N_TRIALS = 4, 8


def template_of(session: Session, token: str = "0" * 32) -> FrozenTrial:
    """What a worker would make of a point of the small study."""
    distributions = session.known_ranges.find().distributions
    params = {"hidden_size": 64, "dropout_rate": 0.5}
    return make_template("cell", token, params, {"grid_id": 3}, distributions, TrialAttributes(worker="w", attempt=1))


def all_trials(session: Session) -> list[FrozenTrial]:
    """Past the cache, by id."""
    backend = vars(session.optuna_storage)["_backend"]
    return sorted(backend.get_all_trials(session.record.study_id, deepcopy=False), key=trial_id_of)


def make_some(storage_url: str, number: int) -> None:
    """A worker of ours; the first one is stock Optuna, which asks for trials."""
    session = open_session(storage_url, f"worker-{number}")
    if number == 0:
        url = session.storage.url.render_as_string(hide_password=False)
        study = optuna.load_study(study_name=session.record.name, storage=RDBStorage(url))
        for _ in range(N_TRIALS):
            study.ask()
    for _ in range(N_TRIALS if number else 0):
        grids = session.known_ranges.find().grids
        made = session.optuna_storage.create_claimed_trial(session.record.study_id, template_of(session), grids)
        assert made is not None
    session.storage.close()


def test_numbers_have_no_gap_beside_a_stock_ask(storage_url: str, session: Session) -> None:
    """Whoever makes them, a trial's number is how many of its study have a smaller id."""
    in_threads(N_THREADS, partial(make_some, storage_url))
    assert [trial.number for trial in all_trials(session)] == list(range(N_THREADS * N_TRIALS))


def test_a_trial_is_as_optuna_makes_it(session: Session) -> None:
    """But for id and number."""
    study_id, trials = session.record.study_id, session.optuna_storage
    template = template_of(session)
    stock = trials.create_new_trial(study_id, template_trial=template)
    own = trials.create_claimed_trial(study_id, template_of(session), session.known_ranges.find().grids)
    first, second = all_trials(session)
    assert (trial_id_of(first), trial_id_of(second)) == (stock, own)
    for name in ("state", "params", "distributions", "user_attrs", "system_attrs", "values", "intermediate_values"):
        assert getattr(first, name) == getattr(second, name), name
    assert list(first.params) == list(second.params)
    assert first.datetime_start is not None
    assert second.datetime_start is not None
    assert abs((second.datetime_start - first.datetime_start).total_seconds()) < 60


@pytest.mark.parametrize("value", [0.1 + 0.2, 1.0, math.inf, -math.inf])
def test_a_trial_is_read_as_optuna_reads_it(session: Session, value: float) -> None:
    """Values to the last bit, infinities and NaN, and no number where a float was."""
    trials, backend = session.optuna_storage, vars(session.optuna_storage)["_backend"]
    trial_id, _ = create_trial(session, claim_cell(session))
    for step, reported in enumerate([0.1 + 0.2, math.nan, math.inf, -math.inf, 1.0, 5e-324]):
        trials.set_trial_intermediate_value(trial_id, step, 7.0)
        trials.set_trial_intermediate_value(trial_id, step, reported)
    for _ in range(2):
        found, expected = backend.get_trial(trial_id), RDBStorage.get_trial(backend, trial_id)
        assert repr(found) == repr(expected)
        if not expected.state.is_finished():
            assert trials.set_trial_state_values(trial_id, TrialState.COMPLETE, [value])
    assert found.values == [value]
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        trials.set_trial_state_values(trial_id, TrialState.FAIL)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        trials.set_trial_intermediate_value(trial_id, 9, 0.5)
    with pytest.raises(KeyError):
        trials.get_trial(trial_id + 1000)


def test_no_trial_is_made_for_what_is_accepted_no_more(session: Session) -> None:
    """Its ranges would be those of before."""
    made = session.optuna_storage.create_claimed_trial(session.record.study_id, template_of(session), "[]")
    assert made is None
    assert all_trials(session) == []


def test_another_programs_range_is_in_the_way(session: Session) -> None:
    """Of another kind, as Optuna has it: it says so in its own words."""
    foreign = optuna.create_trial(
        state=TrialState.RUNNING,
        params={"hidden_size": 64.0},
        distributions={"hidden_size": optuna.distributions.FloatDistribution(1, 100)},
    )
    session.optuna_storage.create_new_trial(session.record.study_id, template_trial=foreign)
    with pytest.raises(ValueError, match="distribution kind"):
        create_trial(session, claim_cell(session))
    assert len(all_trials(session)) == 1


def test_only_a_trial_that_is_there_is_bound(session: Session) -> None:
    """Neither one that a crash took, nor the one that got its id."""
    claim, other = claim_cell(session), claim_cell(session)
    trial_id, number = create_trial(session, other)
    assert not session.ledger.bind(claim, trial_id, number)
    assert not session.ledger.bind(claim, trial_id + 1, number + 1)
    assert read_cell(session.storage, claim.cell_id).trial_id is None
    assert session.ledger.bind(other, trial_id, number)


def test_an_orphan_is_failed_under_its_token_alone(session: Session) -> None:
    """The trial of another claim with the same id goes on, and so does a finished one."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    assert not fail_orphan(session.storage, trial_id, "0" * 32)
    assert all_trials(session)[0].state is TrialState.RUNNING
    assert fail_orphan(session.storage, trial_id, claim.token)
    assert not fail_orphan(session.storage, trial_id, claim.token)
    (trial,) = all_trials(session)
    assert (trial.state, trial.user_attrs["reason"]) == (TrialState.FAIL, "lost")
    assert trial.datetime_complete is not None


def test_a_cell_whose_trial_a_crash_took_waits_again(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, with nothing counted: its worker gives it back."""
    claim, make = claim_cell(session), session.optuna_storage.create_claimed_trial

    def make_and_lose(study_id: int, template: FrozenTrial, grids: str) -> int | None:
        trial_id = make(study_id, template, grids)
        with session.storage.write() as connection:
            for table in (TrialParamModel, TrialUserAttributeModel, TrialSystemAttributeModel, TrialModel):
                connection.execute(delete(table).where(table.trial_id == trial_id))
        return trial_id

    monkeypatch.setattr(session.optuna_storage, "create_claimed_trial", make_and_lose)
    assert attempt._create_trial(session, claim, 0) is None
    row = read_cell(session.storage, claim.cell_id)
    assert (row.state, row.trial_id, row.lost, row.failures) == ("waiting", None, 0, 0)
    monkeypatch.undo()
    assert claim_cell(session).cell_id == claim.cell_id
