"""Cells of the ledger and claims on them, one contract over both databases: seed, claim, and studies side by side."""

from collections.abc import Callable

from small_study import (
    FINGERPRINT,
    GRID,
    N_CELLS,
    ON_SQLITE,
    claim_cell,
    create_study,
    finish_everything,
    in_threads,
    make_spec,
    open_session,
)
from sqlalchemy import func, select

from fmnist_optuna.ledger.cells import Ledger
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import epochs
from fmnist_optuna.search.cell import make_point
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.stages import ordered_points
from fmnist_optuna.study.studies import raise_generation

Sessions = Callable[..., Session]


def count_cells(session: Session) -> tuple[int, int, int, int]:
    """Waiting, running, done and failed ones."""
    counts = session.history.counts()
    return counts.waiting, counts.running, counts.done, counts.failed


# Seeding


def test_seeding_twice_inserts_nothing(storage: Storage) -> None:
    """The second create_or_join of the same grid finds every cell there."""
    assert [create_or_join(storage, make_spec(), FINGERPRINT)[1] for _ in range(2)] == [N_CELLS, 0]


def test_processes_that_create_a_study_at_once_make_one(storage_url: str, new_session: Sessions) -> None:
    """Every cell is inserted by exactly one of them, and all get the same study."""
    sessions = [new_session(f"w{n}", spec=make_spec(name=f"other{n}")) for n in range(4)]
    results = in_threads(4, lambda n: create_or_join(sessions[n].storage, make_spec(), FINGERPRINT))
    assert sum(n_new for _, n_new in results) == N_CELLS
    assert len({record.study_id for record, _ in results}) == 1


@ON_SQLITE
def test_a_cell_is_named_by_its_parameters(session: Session) -> None:
    """The identity that a claim gives can be recomputed from its parameters."""
    claim = claim_cell(session)
    assert make_point(claim.params).cell_id == claim.cell_id


@ON_SQLITE
def test_the_grid_of_these_tests_has_four_cells(session: Session) -> None:
    """2 x 2, all waiting."""
    assert len(GRID["hidden_size"]) * len(GRID["dropout_rate"]) == N_CELLS
    assert count_cells(session) == (N_CELLS, 0, 0, 0)
    with session.storage.read() as connection:
        assert connection.execute(select(func.count()).select_from(epochs)).scalar_one() == 0


# Claim


def test_without_a_waiting_cell_there_is_no_claim(session: Session) -> None:
    """None, not an error."""
    finish_everything(session)
    assert session.ledger.claim("worker", 0) is None


@ON_SQLITE
def test_without_a_study_there_is_no_claim_and_no_generation(session: Session) -> None:
    """A study that was deleted looks like one that is over."""
    ledger = Ledger(session.storage, 4711)
    assert ledger.claim("worker", 0) is None
    assert ledger.generation() is None


def test_a_stopped_study_gives_no_claim(session: Session) -> None:
    """A worker of the old generation gets nothing; one that starts after the stop does."""
    generation = session.record.generation
    raise_generation(session.storage, session.record.study_id)
    assert session.ledger.claim("worker", generation) is None
    assert session.ledger.claim("worker", generation + 1) is not None


@ON_SQLITE
def test_cells_are_claimed_in_the_order_of_a_stock_grid_sampler(session: Session) -> None:
    """Shuffled, but the same for everybody, so that a pruner soon sees a mixture."""
    claimed = [claim_cell(session).cell_id for _ in range(N_CELLS)]
    assert claimed == [cell.cell_id for cell in ordered_points(make_spec())]


def test_a_claim_carries_the_parameters_with_their_types(session: Session) -> None:
    """hidden_size stays an integer, dropout_rate a float."""
    for _ in range(N_CELLS):
        params = claim_cell(session).params
        assert {name: type(value) for name, value in params.items()} == {"hidden_size": int, "dropout_rate": float}


def test_a_claim_repeated_after_a_lost_connection_is_the_same(session: Session) -> None:
    """Its commit may have happened: the token finds the cell, and nothing is counted twice."""
    claims = [session.ledger._claim("worker", session.record.generation, "1" * 32) for _ in range(2)]
    assert claims[0] == claims[1]
    assert claims[0] is not None
    assert claims[0].attempt == 1
    assert count_cells(session) == (N_CELLS - 1, 1, 0, 0)


def test_no_cell_is_claimed_twice(new_session: Sessions) -> None:
    """Eight workers at once over 60 cells: every cell once, none left."""
    spec = make_spec({"hidden_size": list(range(1, 61))})
    sessions = [new_session(f"w{number}", spec=spec) for number in range(8)]

    def claim_all(number: int) -> list[str]:
        found = []
        while (claim := sessions[number].ledger.claim(f"w{number}", sessions[number].record.generation)) is not None:
            found.append(claim.cell_id)
        return found

    claimed = [cell_id for found in in_threads(8, claim_all) for cell_id in found]
    assert sorted(claimed) == sorted(cell.cell_id for cell in ordered_points(spec))


def test_a_claim_costs_the_same_in_a_large_study(storage_url: str, new_session: Sessions) -> None:
    """One transaction with two statements, on Postgres with one, however many cells there are."""
    from sqlalchemy import event

    n_statements = []
    for n_cells in (10, 1000):
        spec = make_spec({"hidden_size": list(range(1, n_cells + 1))}, name=f"s{n_cells}")
        session = new_session("worker", spec=spec)
        claim_cell(session)
        seen: list[str] = []
        event.listen(session.storage.engine, "before_cursor_execute", lambda *a, seen=seen: seen.append(a[2]))
        session.ledger.claim("worker", session.record.generation)
        n_statements.append(len([statement for statement in seen if not statement.startswith("BEGIN")]))
    assert n_statements == ([2, 2] if storage_url.startswith("sqlite") else [1, 1])


# Several studies


def test_studies_in_one_storage_do_not_touch_one_another(storage_url: str, new_session: Sessions) -> None:
    """The same grid under another name has the same cell ids, and cells of its own."""
    one = new_session("worker")
    other = new_session("worker", spec=make_spec(name="other"))
    finish_everything(one)
    assert count_cells(other) == (N_CELLS, 0, 0, 0)
    raise_generation(one.storage, one.record.study_id)
    assert other.ledger.claim("worker", other.record.generation) is not None


def test_a_deleted_study_and_its_successor_are_two(storage_url: str, new_session: Sessions) -> None:
    """A worker that slept through a delete gets no cell of a new study, even where the database reuses the id."""
    from fmnist_optuna.study.deletion import delete_study

    sleeper = new_session("sleeper")
    delete_study(sleeper.storage, sleeper.record)
    create_study(sleeper.storage, make_spec(training={"seed": 1}))
    fresh = open_session(storage_url, "fresh")
    assert sleeper.ledger.claim("sleeper", sleeper.record.generation) is None
    assert fresh.ledger.claim("fresh", fresh.record.generation) is not None
    fresh.storage.close()
