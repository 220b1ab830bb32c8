"""Searches that are no grid, over the ledger: as many results as trials, points that are fixed once, growth, proof."""

import json
from collections.abc import Callable

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from small_study import (
    N_CELLS,
    ON_SQLITE,
    POSTGRES_MORE,
    SPACE,
    begin_trial,
    create_study,
    expire,
    finish_cell,
    finish_trial,
    in_threads,
    make_spec,
    open_session,
    search_spec,
    set_cell,
    work_off,
)

from fmnist_optuna.bridge.suggestion import OPTUNA, Suggester
from fmnist_optuna.errors import JoinRefusedError
from fmnist_optuna.ledger.points import Proposal
from fmnist_optuna.ledger.records import Cell, Claim, TrialAttributes
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.known import Known, KnownCell, KnownTexts
from fmnist_optuna.search.sampling import number_id, sequence_version, suggestion_seed
from fmnist_optuna.search.space import Dimension
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.claiming import Claiming
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.deletion import delete_study
from fmnist_optuna.study.fixed_points import FoundPoints, check_points
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study

Sessions = Callable[..., Session]
SAMPLERS = pytest.mark.parametrize("sampler", ["random", pytest.param("qmc", marks=pytest.mark.more), "tpe"])
N_TRIALS = 12  # TPE draws the first ten at random
FIRST = number_id(0)


def points(session: Session) -> list[Params]:
    """Those of all cells, by their numbers."""
    return [cell.params for cell in sorted(session.history.cells(), key=lambda cell: cell.number or 0)]


def claim(session: Session) -> Claim:
    """The next cell, with whatever point it takes."""
    found = Claiming(session).claim(session.ledger.generation() or 0)
    assert found is not None
    return found


def join(session: Session, spec: StudySpec) -> Session:
    """The study with a later study file."""
    return Session(session.storage, create_study(session.storage, spec), "later")


@POSTGRES_MORE
@SAMPLERS
def test_a_search_ends_with_as_many_results_as_trials(new_session: Sessions, sampler: str) -> None:
    """Each of a cell of its own, with the point that seed, number and what was known give."""
    session = new_session("worker", search_spec(sampler, N_TRIALS))
    work_off(session)
    found = verify_study(session)
    assert (found.ok, found.n_cells, found.n_results, found.n_unchecked_points) == (True, N_TRIALS, N_TRIALS, 0)
    assert [cell.number for cell in session.history.cells()] == list(range(N_TRIALS))
    assert all(("alpha" in params) == (params["act"] == "gelu") for params in points(session))


@POSTGRES_MORE
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_stock_optuna_reads_a_search(new_session: Sessions, storage_url: str, sampler: str) -> None:
    """Distributions of every kind, what a condition rules out absent, and TPE goes on from there as from its own."""
    work_off(new_session("worker", search_spec(sampler, N_TRIALS)))
    study = optuna.load_study(study_name="small", storage=storage_url.replace("postgresql:", "postgresql+psycopg:"))
    assert len(study.trials) == N_TRIALS
    ranges = {
        "hidden_size": IntDistribution(32, 512, step=32),
        "dropout_rate": FloatDistribution(0.0, 0.5),
        "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
        "act": CategoricalDistribution(("relu", "gelu")),
        "alpha": IntDistribution(1, 64, log=True),
    }
    for trial in study.trials:
        assert trial.distributions == {name: ranges[name] for name in trial.params}
        assert ("alpha" in trial.params) == (trial.params["act"] == "gelu")
    shared = optuna.search_space.intersection_search_space(study.trials)
    assert shared.keys() == {"hidden_size", "dropout_rate", "learning_rate", "act"}
    assert set(study.ask(shared).params) == set(shared)


@SAMPLERS
@ON_SQLITE
def test_more_trials_go_on(new_session: Sessions, sampler: str) -> None:
    """The cells that are there keep their points and results, and those of a study that had as many at once follow."""
    session = new_session("worker", search_spec(sampler, 5))
    work_off(session)
    before = points(session)
    later = join(session, search_spec(sampler, N_TRIALS))
    assert later.history.counts().waiting == N_TRIALS - 5
    work_off(later)
    assert points(later)[:5] == before
    assert verify_study(later).ok
    if sampler != "tpe":  # what that suggests depends on what is known
        at_once = Session(later.storage, create_study(later.storage, search_spec(sampler, N_TRIALS, "at-once")), "w")
        assert points(at_once) == points(later)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
@POSTGRES_MORE
def test_a_space_may_become_wider(new_session: Sessions, sampler: str) -> None:
    """Cells keep their points, new ones are of the wider space, and Optuna has one range for all trials."""
    session = new_session("worker", search_spec(sampler, 6))
    work_off(session)
    before = points(session)
    wider = {**SPACE, "hidden_size": {"low": 32, "high": 4096, "step": 32}}
    later = join(session, search_spec(sampler, 14, space=wider))
    work_off(later)
    assert points(later)[:6] == before
    assert any(int(params["hidden_size"]) > 512 for params in points(later))
    trials = later.optuna_storage.get_all_trials(later.record.study_id)
    assert {trial.distributions["hidden_size"] for trial in trials} == {IntDistribution(32, 4096, step=32)}
    assert verify_study(later).ok


@ON_SQLITE
def test_an_earlier_study_file_changes_nothing(new_session: Sessions) -> None:
    """Fewer trials, or the narrower space of then, are what the study has already."""
    session = new_session("worker", search_spec("random", 6))
    later = join(session, search_spec("random", 9, space={**SPACE, "dropout_rate": {"low": 0.0, "high": 0.9}}))
    again = join(session, search_spec("random", 6))
    assert again.record.spec == later.record.spec
    assert again.history.counts().total == 9


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (search_spec("tpe", 6), 'search.sampler: the study has "random", this run "tpe"'),
        (make_spec(), 'search.sampler: the study has "random", this run nothing'),
        (
            search_spec("random", 6, search={"sampler": "random", "n_trials": 6, "seed": 1}),
            "search.seed: the study has 0",
        ),
        (
            search_spec("random", 6, space={**SPACE, "act": ["gelu", "relu"]}),
            'space.act: the study has "relu", "gelu", this run "gelu", "relu"',
        ),
        (
            search_spec("random", 6, space={**SPACE, "dropout_rate": {"low": 0.1, "high": 0.5}}),
            "space.dropout_rate: the study has 0.0 to 0.5, this run 0.1 to 0.5",
        ),
        (search_spec("random", 6, space={"act": ["relu", "gelu"]}), "space names: the study has ['act', 'alpha',"),
    ],
)
@ON_SQLITE
def test_another_search_is_refused(new_session: Sessions, spec: StudySpec, line: str) -> None:
    """Another sampler or seed, a space that does not hold the old one: the line says both."""
    session = new_session("worker", search_spec("random", 6))
    with pytest.raises(JoinRefusedError) as raised:
        create_study(session.storage, spec)
    assert f"  {line}" in str(raised.value)
    assert session.history.counts().total == 6


@SAMPLERS
@ON_SQLITE
def test_enqueued_points_are_tried_first(new_session: Sessions, sampler: str) -> None:
    """In their order, with what they leave open drawn; further ones come with further cells."""
    first = [{"hidden_size": 64, "act": "relu"}, {"learning_rate": 0.01}]
    session = new_session("worker", search_spec(sampler, 3, enqueue=first))
    assert (claim(session).params["hidden_size"], claim(session).params["learning_rate"]) == (64, 0.01)
    session.ledger.retry_failed()
    later = join(session, search_spec(sampler, 5, enqueue=[*first, {"hidden_size": 96}]))
    assert points(later)[3]["hidden_size"] == 96
    with pytest.raises(JoinRefusedError, match=r"enqueue: each further point must .* search.n_trials to at least 6"):
        join(session, search_spec(sampler, 5, enqueue=[*first, {"hidden_size": 96}, {"hidden_size": 32}]))
    assert {cell.params.get("act") for cell in later.history.cells() if cell.number == 0} == {"relu"}


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


@ON_SQLITE
def test_a_claim_between_two_looks_is_no_problem(new_session: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """`verify` of a search that goes on reads points and what they rest on one after the other."""
    session = new_session("worker", search_spec("tpe", 4))
    read = session.history.cells

    def read_and_claim() -> list[Cell]:
        cells = read()
        claim(session)
        return cells

    monkeypatch.setattr(session.history, "cells", read_and_claim)
    assert check_points(session).problems == ()


@pytest.fixture
def finished(new_session: Sessions) -> Session:
    """A search of TPE, every cell done."""
    session = new_session("worker", search_spec("tpe", N_TRIALS))
    work_off(session)
    return session


def fixed(session: Session, number: int) -> Known:
    """What the point of a cell was suggested by."""
    return KnownTexts(session.points.read_fixed()).read(number)


@ON_SQLITE
def test_a_changed_suggestion_is_found(finished: Session) -> None:
    """Whatever somebody writes into the row of a cell that TPE suggested."""
    changes = {
        None: "does not say what its point rests on",
        "{}": "does not say what its point rests on: what was known is",
        Known(OPTUNA, 0, (), (), ()).to_text(): "has not the point that was suggested",
        Known(OPTUNA, 0, (99,), (), ()).to_text(): "rests on cells that are not there",
        Known(OPTUNA, 1, (), (), ()).to_text(): "rests on cells that are not there",
    }
    for known, expected in changes.items():
        set_cell(finished.storage, number_id(11), known=known)
        (problem,) = verify_study(finished).problems
        assert expected in problem


@ON_SQLITE
def test_another_optuna_is_accused_of_nothing(finished: Session) -> None:
    """What it suggested cannot be suggested anew here: the number of such points is said."""
    known = Known("4.0.0", 0, fixed(finished, 11).done, (), ())
    set_cell(finished.storage, number_id(11), known=known.to_text())
    found = verify_study(finished)
    assert (found.ok, found.n_unchecked_points) == (True, 1)


@ON_SQLITE
def test_another_scipy_is_accused_of_nothing(new_session: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sequence is another one: points that do not come out again are counted, of its own version they are wrong."""
    with monkeypatch.context() as then:
        then.setattr("fmnist_optuna.study.joining.sequence_version", lambda: "1.0.0")
        session = new_session("worker", search_spec("qmc", 3))
    create_study(session.storage, search_spec("qmc", 6))
    grown = Session(session.storage, find_study(session.storage, "small"), "worker")
    assert grown.record.drawn_by == ("1.0.0", sequence_version())
    assert check_points(grown) == FoundPoints()
    drawn = points(grown)
    set_cell(grown.storage, FIRST, params=json.dumps({**drawn[0], "dropout_rate": 0.25}))
    assert check_points(grown) == FoundPoints((), 1)
    set_cell(grown.storage, number_id(5), params=json.dumps({**drawn[5], "dropout_rate": 0.25}))
    (problem,) = check_points(grown).problems
    assert "has not the point of its number" in problem


@ON_SQLITE
def test_a_changed_random_point_is_found(new_session: Sessions) -> None:
    """Before anything is trained: the seed and the number say what it must be."""
    session = new_session("worker", search_spec("random", 3))
    set_cell(session.storage, FIRST, params=json.dumps({**points(session)[0], "dropout_rate": 0.25}))
    (problem,) = verify_study(session).problems
    assert "dropout_rate 0.25" in problem
    assert "has not the point of its number" in problem


@ON_SQLITE
def test_a_cell_that_is_missing_is_found(new_session: Sessions) -> None:
    """By its number, and one that is of no number too."""
    session = new_session("worker", search_spec("random", 3))
    set_cell(session.storage, FIRST, number=7)
    assert set(verify_study(session).problems) == {
        "cell 0 of the search is missing",
        "1 cell of the study must be one of the search, but has no number of it",
    }


@ON_SQLITE
def test_equal_points_are_cells_of_their_own(new_session: Sessions) -> None:
    """Two choices and twelve trials: twelve results, whose trainings have seeds of their own."""
    session = new_session("worker", search_spec("random", 12, space={"hidden_size": [32, 64]}))
    work_off(session)
    assert verify_study(session).n_results == 12
    trials = session.optuna_storage.get_all_trials(session.record.study_id)
    assert len({trial.user_attrs.get("seed") for trial in trials}) == 12


@pytest.mark.parametrize("sampler", ["random", "tpe"])
@ON_SQLITE
def test_a_search_is_deleted_whole(new_session: Sessions, storage: Storage, sampler: str) -> None:
    """And one of the same name then begins with the same points."""
    session = new_session("worker", search_spec(sampler, 4))
    work_off(session)
    before = points(session)
    delete_study(session.storage, session.record)
    again = Session(storage, create_study(storage, search_spec(sampler, 4)), "worker")
    work_off(again)
    assert points(again) == before


@ON_SQLITE
def test_a_grid_has_neither_numbers_nor_knowledge(session: Session) -> None:
    """Its rows are what they were."""
    assert session.points.read_fixed() == {}
    assert session.points.read_known() == ([], 0.0)
    assert [cell.number for cell in session.history.cells()] == [None] * N_CELLS
