"""Healing: which cells are taken from their holders, what becomes of them, and which trials are swept."""

import time
from collections.abc import Callable

import optuna
import pytest
from optuna.trial import TrialState
from small_study import (
    LOST,
    ON_SQLITE,
    POSTGRES_MORE,
    begin_trial,
    cell_after,
    claim_cell,
    create_trial,
    expire,
    finish_everything,
    finish_trial,
    make_spec,
    prune_trial,
    read_cell,
    set_cell,
)
from sqlalchemy import event

from fmnist_optuna.bridge.orphans import fail_trial
from fmnist_optuna.ledger.records import Claim, HeldCell, Timing, TrialAttributes
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.verification import verify

Sessions = Callable[..., Session]
STATES = ("no trial", "running", "complete", "pruned", "failed", "stopped", "deleted")


def held(session: Session, claim: Claim) -> HeldCell:
    return next(cell for cell in session.ledger.held_cells() if cell.cell_id == claim.cell_id)


def prepare(session: Session, claim: Claim, state: str) -> None:
    """Bring a claimed cell to where its worker may have died."""
    if state == "no trial":
        return
    trial_id = begin_trial(session, claim)
    if state == "complete":
        finish_trial(session, trial_id, 0.75)
    elif state == "pruned":
        prune_trial(session, trial_id, 0.25)
    elif state == "failed":
        fail_trial(session.storage, trial_id, TrialAttributes(reason="exception", error="ValueError: bad"))
    elif state == "stopped":
        fail_trial(session.storage, trial_id, TrialAttributes(reason="stopped"))
    elif state == "deleted":
        from optuna.storages._rdb import models

        with session.storage.write() as connection:
            for table in reversed(models.BaseModel.metadata.sorted_tables):
                if "trial_id" in table.c:
                    connection.execute(table.delete().where(table.c.trial_id == trial_id))


def expected(state: str) -> tuple[str, str | None, float | None, int, int, str | None]:
    """State, result, value, failures, lost and error of the cell after it was requeued as lost."""
    lost = ("waiting", None, None, 0, 1, None)
    return {
        "complete": ("done", "COMPLETE", 0.75, 0, 0, None),
        "pruned": ("done", "PRUNED", 0.25, 0, 0, None),
        "failed": ("waiting", None, None, 1, 0, "ValueError: bad"),
        "stopped": ("waiting", None, None, 0, 0, None),
    }.get(state, lost)


# Requeue


@pytest.mark.parametrize("state", STATES)
def test_a_requeued_cell_becomes_what_its_trial_says(session: Session, state: str) -> None:
    """A finished trial gives its result; any other lets the cell wait, counted by what was to blame."""
    claim = claim_cell(session)
    prepare(session, claim, state)
    assert session.recovery.requeue(held(session, claim), LOST)
    assert cell_after(session, claim) == expected(state)


def test_a_running_trial_is_failed_before_its_cell_waits(session: Session) -> None:
    """So that its worker, should it live, can tell nothing."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    session.recovery.requeue(held(session, claim), LOST)
    trial = session.optuna_storage.get_trial(trial_id)
    assert (trial.state, trial.user_attrs["reason"]) == (TrialState.FAIL, "lost")


def test_a_cell_that_is_renewed_meanwhile_is_left_to_its_holder(session: Session) -> None:
    """False, and the trial runs on."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    seen = held(session, claim)
    time.sleep(0.01)
    assert session.ledger.renew(claim)
    assert not session.recovery.requeue(seen, LOST)
    assert session.optuna_storage.get_trial(trial_id).state == TrialState.RUNNING


def test_an_error_seen_by_the_supervisor_counts_for_the_cell(session: Session) -> None:
    """A time limit is a failure of the attempt, a kill from outside is not."""
    claim = claim_cell(session)
    begin_trial(session, claim)
    loss = TrialAttributes(reason="limit", error="took longer than 60 s")
    assert session.recovery.requeue_worker(session.name, loss) == [claim.cell_id]
    assert cell_after(session, claim) == ("waiting", None, None, 1, 0, "took longer than 60 s")


@ON_SQLITE
def test_only_the_cells_of_the_worker_are_requeued(session: Session) -> None:
    """Another worker's cell stays as it is."""
    claim = claim_cell(session)
    other = session.ledger.claim("other", session.record.generation)
    assert other is not None
    assert session.recovery.requeue_worker(session.name, LOST) == [claim.cell_id]
    assert [cell.token for cell in session.ledger.held_cells()] == [other.token]


def renew_after_looks(session: Session, claim: Claim, n_looks: int) -> None:
    """Let the holder of a cell renew its lease right after somebody looks, so many times."""
    held_cells, left = session.ledger.held_cells, [None] * n_looks

    def look(worker: str | None = None, *, as_writer: bool = False) -> list[HeldCell]:
        seen = held_cells(worker, as_writer=as_writer)
        if left:
            left.pop()
            time.sleep(0.01)
            assert session.ledger.renew(claim)
        return seen

    session.ledger.held_cells = look  # type: ignore[method-assign]


def test_a_worker_that_leaves_is_looked_at_again(session: Session) -> None:
    """Its renewal, or the end of its last epoch, comes between the look and the take-over: the cell waits all the same.

    One that renews on and on does not leave, and is let be.
    """
    claim = claim_cell(session)
    begin_trial(session, claim)
    renew_after_looks(session, claim, 2)
    assert session.recovery.let_go(session.name, TrialAttributes(reason="stopped")) == [claim.cell_id]
    assert cell_after(session, claim) == expected("stopped")
    stubborn = claim_cell(session)
    renew_after_looks(session, stubborn, 100)
    assert session.recovery.requeue_worker(session.name, LOST) == []
    assert [cell.token for cell in session.ledger.held_cells()] == [stubborn.token]


class Killed(BaseException):
    """The process ends here."""


class Killer:
    """Ends the process of a session before its n-th statement, counted from `arm`."""

    def __init__(self, session: Session) -> None:
        self.left: int | None = None
        event.listen(session.storage.engine, "before_cursor_execute", self._count)

    def arm(self, n_statements: int | None) -> None:
        self.left = n_statements

    def _count(self, *_: object) -> None:
        if self.left is not None:
            if self.left == 0:
                self.left = None
                raise Killed
            self.left -= 1


@POSTGRES_MORE
@pytest.mark.parametrize("state", ["no trial", "running", "complete", "failed"])
def test_a_requeue_may_die_before_any_statement(new_session: Sessions, state: str) -> None:
    """Whoever comes next ends with the same cell; only a second death may be counted beside the first."""
    session = new_session("worker", spec=make_spec({"hidden_size": list(range(1, 41))}))
    healer = new_session("healer", spec=make_spec({"hidden_size": list(range(1, 41))}))
    assert healer.recovery.sweep() == 0  # opens everything, so that only the requeue is counted
    killer = Killer(healer)
    for n_statements in range(40):
        claim = claim_cell(session)
        prepare(session, claim, state)
        killer.arm(n_statements)
        try:
            healer.recovery.requeue(held(session, claim), LOST)
        except Killed:
            is_over = False
        else:
            is_over = True
        killer.arm(None)
        if read_cell(session.storage, claim.cell_id).state == "running":
            assert healer.recovery.requeue(held(session, claim), LOST)
        assert cell_after(session, claim) == expected(state), f"died before statement {n_statements}"
        set_cell(session.storage, claim.cell_id, position=10_000)  # the next round has a cell of its own
        if is_over:
            break
    assert is_over
    assert n_statements >= 2


# Sweep


def test_a_trial_that_no_cell_holds_is_swept(session: Session) -> None:
    """Its worker died between creating and binding it, and the cell was given back."""
    claim = claim_cell(session)
    trial_id, _ = create_trial(session, claim)
    session.ledger.give_back(claim.cell_id, claim.token, count_lost=True)
    assert session.recovery.sweep() == 1
    assert session.optuna_storage.get_trial(trial_id).state == TrialState.FAIL
    assert session.recovery.sweep() == 0


def test_the_second_trial_of_a_bound_cell_is_swept(session: Session) -> None:
    """Creating was repeated after a lost connection; the cell names the one that counts."""
    claim = claim_cell(session)
    surplus, _ = create_trial(session, claim)
    bound = begin_trial(session, claim)
    assert session.recovery.sweep() == 1
    states = [session.optuna_storage.get_trial(trial_id).state for trial_id in (surplus, bound)]
    assert states == [TrialState.FAIL, TrialState.RUNNING]


def test_a_trial_about_to_be_bound_is_left_alone(session: Session) -> None:
    """Its token holds a cell that has no trial yet."""
    trial_id, _ = create_trial(session, claim_cell(session))
    assert session.recovery.sweep() == 0
    assert session.optuna_storage.get_trial(trial_id).state == TrialState.RUNNING


def test_foreign_trials_are_not_touched(session: Session) -> None:
    """Another program's RUNNING trial is its own affair."""
    trial_id = session.optuna_storage.create_new_trial(session.record.study_id)
    assert session.recovery.sweep() == 0
    assert session.optuna_storage.get_trial(trial_id).state == TrialState.RUNNING


@ON_SQLITE
def test_finished_trials_are_not_swept(session: Session) -> None:
    """A study that is over has nothing to sweep."""
    finish_everything(session)
    assert session.recovery.sweep() == 0
    assert verify(session.storage, session.optuna_storage, session.record.study_id).ok


# Leases

SHORT = Timing(lease_seconds=30.0, renewal_seconds=0.15, poll_seconds=0.02, stall_seconds=60.0)


def test_a_lease_expires_after_two_looks_at_the_same(new_session: Sessions) -> None:
    """Past is not enough: it must stay unchanged for two renewals, 0.3 s here."""
    session = new_session("worker", timing=SHORT)
    claim = claim_cell(session)
    expire(session.storage, claim.cell_id)
    first = session.recovery.requeue_dead()
    began = time.monotonic()
    while not (requeued := session.recovery.requeue_dead()):
        assert time.monotonic() - began < 20.0
        time.sleep(0.05)
    assert (first, len(requeued)) == ([], 1)
    assert time.monotonic() - began >= 0.25
    assert cell_after(session, claim) == expected("no trial")


@ON_SQLITE
def test_an_outage_between_two_looks_starts_the_wait_again(new_session: Sessions) -> None:
    """A holder that could not renew either gets its time."""
    session = new_session("worker", timing=SHORT)
    expire(session.storage, claim_cell(session).cell_id)
    session.recovery.requeue_dead()
    time.sleep(0.31)
    held_cells = session.ledger.held_cells

    def after_an_outage(worker: str | None = None, *, as_writer: bool = False) -> list[HeldCell]:
        session.storage.patience.n_outages += 1
        return held_cells(worker, as_writer=as_writer)

    session.ledger.held_cells = after_an_outage  # type: ignore[method-assign]
    assert session.recovery.requeue_dead() == []


def test_a_cell_of_a_dead_healer_is_taken_over_again(new_session: Sessions) -> None:
    """A take-over is a lease too."""
    session = new_session("worker", timing=SHORT)
    claim = claim_cell(session)
    begin_trial(session, claim)
    assert session.ledger.take_over(held(session, claim), "dead (recovery)", "2" * 32)
    expire(session.storage, claim.cell_id)
    assert session.recovery.requeue_dead() == []
    deadline = time.monotonic() + 20.0
    while not session.recovery.requeue_dead():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert cell_after(session, claim) == expected("running")


@ON_SQLITE
def test_optuna_is_told_nothing_by_a_look(session: Session) -> None:
    """Looking at a healthy study writes nothing."""
    claim_cell(session)
    statements: list[str] = []
    event.listen(session.storage.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    assert session.recovery.requeue_dead() == []
    assert not [text for text in statements if text.split()[0] in ("INSERT", "UPDATE", "DELETE")]
    assert optuna.__version__.startswith("5.")
