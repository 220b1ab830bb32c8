"""Points of TPE, which are fixed once, by the first claim of a cell, and rest on what was known then."""

import json
from collections.abc import Callable

from search_study import FIRST, claim, fixed, points
from small_study import (
    ON_SQLITE,
    POSTGRES_MORE,
    begin_trial,
    expire,
    finish_cell,
    finish_trial,
    in_threads,
    open_session,
    search_spec,
)

from fmnist_optuna.bridge.suggestion import OPTUNA, Suggester
from fmnist_optuna.ledger.points import Proposal
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.search.known import Known, KnownCell
from fmnist_optuna.search.sampling import suggestion_seed
from fmnist_optuna.search.space import Dimension
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.session import Session

Sessions = Callable[..., Session]


@POSTGRES_MORE
def test_a_point_is_fixed_by_the_first_claim(new_session: Sessions) -> None:
    """No cell of TPE has one before; every later attempt has the same, whatever would be suggested by then."""
    session = new_session("worker", search_spec("tpe", 3))
    assert points(session) == [{}, {}, {}]
    first = claim(session)
    assert points(session) == [first.params, {}, {}]
    expire(session.storage, first.cell_id)
    (held,) = session.ledger.held_cells()
    session.recovery.requeue(held, TrialAttributes(reason="lost"))
    others = [claim(session), claim(session)]
    for each in others:
        trial_id = begin_trial(session, each)
        finish_trial(session, trial_id, 0.5)
        finish_cell(session, each, trial_id)
    again = claim(session)
    assert (again.cell_id, again.params, again.attempt) == (first.cell_id, first.params, 2)
    assert points(session) == [first.params, *(each.params for each in others)]


@POSTGRES_MORE
def test_a_proposal_does_not_replace_a_point(new_session: Sessions) -> None:
    """Nor is it given to another cell: one without a point, and without a proposal for it, is not taken."""
    session = new_session("worker", search_spec("tpe", 2))
    generation = session.ledger.generation() or 0
    assert session.ledger.claim("worker", generation) is None
    first, second = (Proposal(FIRST, json.dumps({"act": act}), "{}") for act in ("relu", "gelu"))
    taken = session.ledger.claim("worker", generation, proposal=first)
    assert taken is not None
    assert taken.params == {"act": "relu"}
    session.ledger.give_back(taken.cell_id, taken.token, count_lost=False)
    taken = session.ledger.claim("worker", generation, proposal=second)
    assert taken is not None
    assert taken.params == {"act": "relu"}
    assert session.ledger.claim("worker", generation, proposal=second) is None
    assert points(session) == [{"act": "relu"}, {}]


@POSTGRES_MORE
def test_workers_side_by_side_take_different_cells(new_session: Sessions, storage_url: str) -> None:
    """Whoever is slower thinks of another point; each suggestion names the claims before it."""
    session = new_session("worker", search_spec("tpe", 24))

    def take(number: int) -> list[str]:
        own = open_session(storage_url, f"worker-{number}")
        found = [claim(own).cell_id for _ in range(4)]
        own.storage.close()
        return found

    taken = [cell_id for found in in_threads(6, take) for cell_id in found]
    assert len(set(taken)) == 24
    assert verify_study(session).problems == ()


@ON_SQLITE
def test_a_suggestion_names_what_was_known(new_session: Sessions) -> None:
    """Results by their numbers, and the cells that were running."""
    session = new_session("worker", search_spec("tpe", 12))
    taken = [claim(session) for _ in range(11)]
    for each in taken[:8]:
        trial_id = begin_trial(session, each)
        finish_trial(session, trial_id, 0.5)
        finish_cell(session, each, trial_id)
    claim(session)
    known = fixed(session, 11)
    assert known == Known(OPTUNA, 0, tuple(range(8)), (), (8, 9, 10))


@ON_SQLITE
def test_a_suggestion_rests_on_scores(new_session: Sessions) -> None:
    """Of a loss, which is better the less it is, they are its negative: a suggestion always takes the larger one."""
    content = {**search_spec("tpe", 4).model_dump(), "objective": {"metric": "val_loss"}}
    session = new_session("worker", StudySpec.model_validate(content))
    taken = claim(session)
    trial_id = begin_trial(session, taken)
    finish_trial(session, trial_id, 0.5)
    finish_cell(session, taken, trial_id)
    ((known,), _) = session.points.read_known()
    assert (known.standing, known.value) == ("complete", -0.5)


def test_tpe_looks_where_it_was_better() -> None:
    """With a value that is the hidden_size, those that it suggests are far larger than those drawn at random."""
    suggester, space = Suggester({"hidden_size": Dimension(low=1, high=1000)}), "hidden_size"
    cells: list[KnownCell] = []
    for number in range(40):
        params = suggester.suggest(suggestion_seed(0, number), cells)
        cells.append(KnownCell(number, params, "complete", 0, float(params[space])))
    sizes = [float(cell.params[space]) for cell in cells]
    assert sum(sizes[10:]) / 30 > sum(sizes[:10]) / 10 + 250
