"""Importances with a planted answer: by our report's code and by stock Optuna, before and after a grid grows."""

import json
import random
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution, distribution_to_json
from optuna.trial import TrialState
from small_study import (
    FINGERPRINT,
    ON_SQLITE,
    begin_trial,
    claim_cell,
    create_study,
    finish_everything,
    make_spec,
    value_of,
)
from sqlalchemy import text

from fmnist_optuna.bridge.importance import find_importances
from fmnist_optuna.bridge.trials import find_logarithmic, make_distributions
from fmnist_optuna.ledger.records import Cell
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.search.cell import Grid, Params, make_points
from fmnist_optuna.search.metric import VAL_LOSS
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.verification import verify

GRID: Grid = {
    "hidden_size": [64, 128, 256],
    "dropout_rate": [0.2, 0.5],
    "learning_rate": [0.01, 0.001, 0.0001],
    "depth": [1, 5],  # an integer of the user's own
}
GROWN: Grid = {**GRID, "hidden_size": [32, 64, 512], "learning_rate": [0.01, 0.001]}
RANGES = {
    "hidden_size": IntDistribution(32, 512),
    "dropout_rate": FloatDistribution(0.2, 0.5),
    "learning_rate": FloatDistribution(0.0001, 0.01, log=True),
    "depth": IntDistribution(1, 5),
}
WIDE = {
    "hidden_size": IntDistribution(1, 2**53),
    "dropout_rate": FloatDistribution(0.0, 1.0),
    "learning_rate": FloatDistribution(1e-12, 1e6, log=True),
    "depth": IntDistribution(-(2**53), 2**53),
}


def open_planted(storage: Storage, grid: Grid = GRID) -> Session:
    """A session on the study of a grid, created or joined."""
    return Session(storage, create_study(storage, make_spec(grid)), "tester")


def plant(session: Session, name: str) -> None:
    """Let one parameter decide every value: the larger the better."""
    values = sorted({cell.params[name] for cell in session.history.cells()})
    with session.storage.write() as connection:
        for row in connection.execute(text("SELECT trial_id, params FROM fmnist_cells")).all():
            value = 0.8 + 0.02 * values.index(json.loads(row.params)[name])
            for table in ("fmnist_cells", "trial_values"):
                statement = text(f"UPDATE {table} SET value = :value WHERE trial_id = :trial_id")
                connection.execute(statement, {"value": value, "trial_id": row.trial_id})


def set_ranges(storage: Storage, ranges: dict[str, Any]) -> None:
    """Write the ranges of all trials as an earlier version would have."""
    with storage.write() as connection:
        for name, distribution in ranges.items():
            statement = text("UPDATE trial_params SET distribution_json = :json WHERE param_name = :name")
            connection.execute(statement, {"json": distribution_to_json(distribution), "name": name})


def stored_ranges(storage: Storage) -> set[str]:
    """Every range that any trial has, by the parameter's name."""
    with storage.read() as connection:
        rows = connection.execute(text("SELECT DISTINCT param_name, distribution_json FROM trial_params"))
        return {f"{name} {text_}" for name, text_ in rows}


def as_stored(ranges: dict[str, Any]) -> set[str]:
    return {f"{name} {distribution_to_json(distribution)}" for name, distribution in ranges.items()}


def stock_importances(storage: Storage) -> dict[str, float]:
    url = storage.url.render_as_string(hide_password=False)
    study = optuna.load_study(study_name="small", storage=url)
    assert not optuna.search_space.intersection_search_space(study.trials).keys() ^ GRID.keys()
    return optuna.importance.get_param_importances(study)


@ON_SQLITE
def test_the_planted_parameter_is_found(storage: Storage) -> None:
    """Over 80 % for whichever decides, before and after the grid grows; wide ranges of old are mended by a join."""
    finish_everything(open_planted(storage))
    set_ranges(storage, WIDE)
    plant(session := open_planted(storage, GROWN), "hidden_size")
    assert stored_ranges(storage) == as_stored(RANGES)
    finish_everything(session)
    for name in GRID:
        plant(session, name)
        assert find_importances(session.history.cells())[name] > 0.8
        assert stock_importances(storage)[name] > 0.8
    assert verify(storage, session.optuna_storage, session.record.study_id).n_results == 36 + 16
    set_ranges(storage, WIDE)  # the test can fail: by the ranges of old, stock Optuna finds nothing
    plant(session, "hidden_size")
    assert stock_importances(storage)["hidden_size"] < 0.5
    assert find_importances(session.history.cells())["hidden_size"] > 0.8


LARGER: Grid = {"hidden_size": [64, 1024], "dropout_rate": [0.0, 0.5]}
LARGER_RANGES = {"hidden_size": IntDistribution(64, 1024), "dropout_rate": FloatDistribution(0.0, 0.5)}


def grow(storage: Storage) -> None:
    create_or_join(storage, make_spec(LARGER), FINGERPRINT)


@pytest.mark.parametrize("moment", ["before it reads", "before it makes the trial", "after it made the trial"])
def test_a_worker_of_before_keeps_to_the_new_ranges(
    storage: Storage, new_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Whenever the grid grows while it makes a trial, every trial ends with the ranges of all grids."""
    session = new_session()
    begin_trial(session, claim_cell(session))
    claim, make = claim_cell(session), session.optuna_storage.create_claimed_trial

    def make_while_it_grows(*args: Any, **kwargs: Any) -> Any:
        if moment == "before it makes the trial":
            grow(storage)
        trial_id = make(*args, **kwargs)
        if moment == "after it made the trial":
            grow(storage)
        return trial_id

    if moment == "before it reads":
        grow(storage)
    monkeypatch.setattr(session.optuna_storage, "create_claimed_trial", make_while_it_grows)
    begin_trial(session, claim)
    monkeypatch.undo()
    assert stored_ranges(storage) == as_stored(LARGER_RANGES)
    finish_everything(session)  # the new cells too, though its record does not know them
    assert session.history.counts().waiting == 0
    assert stored_ranges(storage) == as_stored(LARGER_RANGES)


def test_a_foreign_trial_keeps_its_range(session: Session) -> None:
    """What another program stored is its own."""
    ranges = {"hidden_size": IntDistribution(1, 9000), "dropout_rate": FloatDistribution(0.0, 0.9)}
    params = {"hidden_size": 70, "dropout_rate": 0.1}
    foreign = optuna.create_trial(state=TrialState.COMPLETE, params=params, distributions=ranges, value=0.5)
    trial_id = session.optuna_storage.create_new_trial(session.record.study_id, template_trial=foreign)
    grow(session.storage)
    assert session.optuna_storage.get_trial(trial_id).distributions == ranges


FAR_APART: Grid = {"hidden_size": [4, 8, 1024], "decay": [1e-5, 1e-4, 1e-2], "other": [1e-5, 1e-2]}
FAR_RANGES = {
    "hidden_size": IntDistribution(4, 1024, log=True),
    "decay": FloatDistribution(1e-5, 1e-2, log=True),
    "other": FloatDistribution(1e-5, 1e-2),  # two values are two steps of a plain range as well
}
WITH_ZERO: Grid = {**FAR_APART, "decay": [0.0, 1e-2]}
RANGES_WITH_ZERO = {**FAR_RANGES, "decay": FloatDistribution(0.0, 1e-2)}


@ON_SQLITE
def test_the_first_grid_decides_whether_a_range_is_logarithmic(storage: Storage) -> None:
    """As Optuna takes no other kind in the same study; it grows, and is plain for all trials once a value is 0."""
    finish_everything(open_planted(storage, FAR_APART))
    assert stored_ranges(storage) == as_stored(FAR_RANGES)
    finish_everything(open_planted(storage, {**FAR_APART, "hidden_size": [2, 512], "other": [1e-7, 1e-6, 1e-2]}))
    larger = {"hidden_size": IntDistribution(2, 1024, log=True), "other": FloatDistribution(1e-7, 1e-2)}
    assert stored_ranges(storage) == as_stored({**FAR_RANGES, **larger})
    session = open_planted(storage, WITH_ZERO)
    finish_everything(session)
    assert stored_ranges(storage) == as_stored({**RANGES_WITH_ZERO, **larger})
    assert session.history.counts().waiting == 0


@ON_SQLITE
def test_a_study_with_plain_ranges_keeps_them(storage: Storage) -> None:
    """One of an earlier version goes on, and grows, though its grid would have other ranges now."""
    session = open_planted(storage, FAR_APART)
    begin_trial(session, claim_cell(session))
    plain = {"hidden_size": IntDistribution(4, 1024), "decay": FloatDistribution(1e-5, 1e-2)}
    set_ranges(storage, plain)
    finish_everything(session)
    assert stored_ranges(storage) == as_stored({**FAR_RANGES, **plain})
    finish_everything(open_planted(storage, {**FAR_APART, "hidden_size": [2, 8, 1024]}))
    assert stored_ranges(storage) == as_stored({**FAR_RANGES, **plain, "hidden_size": IntDistribution(2, 1024)})


@ON_SQLITE
def test_a_zero_is_accepted_while_a_trial_is_made(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial, made for a logarithmic range that is plain by now, is made once more."""
    session = open_planted(storage, FAR_APART)
    begin_trial(session, claim_cell(session))
    claim, make = claim_cell(session), session.optuna_storage.create_claimed_trial
    n_made = 0

    def make_while_it_grows(*args: Any, **kwargs: Any) -> Any:
        nonlocal n_made
        n_made += 1
        if n_made == 1:
            open_planted(storage, WITH_ZERO)
        return make(*args, **kwargs)

    monkeypatch.setattr(session.optuna_storage, "create_claimed_trial", make_while_it_grows)
    begin_trial(session, claim)
    assert n_made == 2
    assert len(session.optuna_storage.get_all_trials(session.record.study_id)) == 2
    assert stored_ranges(storage) == as_stored(RANGES_WITH_ZERO)


@pytest.mark.parametrize("name", ["hidden_size", "decay"])
def test_stock_optuna_tells_values_far_apart_apart(name: str) -> None:
    """Whichever value decides has over 80 %, which plain ranges do not give each."""
    grid: Grid = {
        "hidden_size": [4, 8, 16, 32, 1024],
        "dropout_rate": [0.2, 0.5],
        "kind": ["a", "b", "c"],
        "decay": [1e-5, 1e-4, 1e-3, 1e-2],
    }
    shares: dict[bool, list[float]] = {True: [], False: []}
    for is_logarithmic in shares:
        ranges = make_distributions([grid], find_logarithmic(grid) if is_logarithmic else ())
        for number, best in enumerate(grid[name]):
            study, noise = optuna.create_study(direction="maximize"), random.Random(number)
            for point in make_points(grid):
                value = (point.params[name] == best) / 10 + noise.gauss(0, 0.002)
                params = dict(point.params)
                study.add_trial(optuna.create_trial(params=params, distributions=ranges, value=value))
            shares[is_logarithmic].append(optuna.importance.get_param_importances(study)[name])
    assert min(shares[True]) > 0.8
    assert min(shares[False]) < 0.6


@pytest.mark.parametrize(
    ("values", "is_logarithmic"),
    [
        ([64, 128, 256], False),
        ([8, 16, 1024], True),
        ([8, 9, 500, 600, 1024], False),  # by their logarithms 500 and 600 would be one
        ([0.1, 0.2, 0.5], False),
        ([0.001, 0.002, 0.5], True),
        ([0.0, 0.001, 0.5], False),
        ([-8, 16, 1024], False),
        ([7], False),
        ([False, True], False),
        (["a", "b"], False),
    ],
)
def test_a_range_is_logarithmic_where_that_tells_more_apart(values: list[Any], is_logarithmic: bool) -> None:
    """Of positive numbers, by the steps into which Optuna cuts their range."""
    assert find_logarithmic({"units": values, "learning_rate": [0.1]}) == {
        "learning_rate", *(["units"] if is_logarithmic else [])
    }  # fmt: skip


def made_up(grid: Grid, value: Callable[[Params], float | None]) -> list[Cell]:
    """The cells of a finished grid; None for a pruned one."""
    return [
        Cell(
            cell_id=point.cell_id,
            params=point.params,
            state=State.PRUNED if value(point.params) is None else State.COMPLETE,
            trial_number=number,
            value=value(point.params),
        )
        for number, point in enumerate(make_points(grid))
    ]


@pytest.mark.parametrize("best", [8, 16, 1024])
def test_values_far_apart_are_told_apart(best: int) -> None:
    """8 and 16 are one fiftieth of the range to 1,024, and yet two values."""
    grid: Grid = {"hidden_size": [8, 16, 1024], "dropout_rate": [0.0, 0.2, 0.5], "kind": ["a", "b", "c"]}
    noise = random.Random(best)
    cells = made_up(grid, lambda params: (params["hidden_size"] == best) / 10 + noise.gauss(0, 0.002))
    assert find_importances(cells)["hidden_size"] > 0.8


def test_importances_without_meaning_are_none() -> None:
    """Too few complete cells, one parameter alone, equal values: no share is better than a made-up one."""
    grid: Grid = {"hidden_size": [8, 16, 32], "kind": ["a", "b", "c"]}
    assert find_importances(made_up(grid, lambda params: 0.5)) == {}
    assert find_importances(made_up(grid, lambda params: None if params["kind"] == "a" else value_of(params))) == {}
    assert find_importances(made_up({"hidden_size": list(range(1, 20))}, value_of)) == {}
    assert find_importances([]) == {}
    assert set(find_importances(made_up(grid, value_of))) == set(grid)


def test_importances_of_a_loss_are_those_of_its_negative() -> None:
    """The smallest values are the best quarter there."""
    grid: Grid = {"hidden_size": [8, 16, 32], "dropout_rate": [0.0, 0.2, 0.5], "kind": ["a", "b", "c"]}

    def loss(params: Params) -> float:
        return float(params["hidden_size"]) + float(params["dropout_rate"]) / 10

    of_loss = find_importances(made_up(grid, loss), VAL_LOSS)
    assert of_loss == find_importances(made_up(grid, lambda params: -loss(params)))
    assert of_loss["hidden_size"] > 0.9
