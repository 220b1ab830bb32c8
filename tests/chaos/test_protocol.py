"""The protocol on every path of a small model, and the real ledger on random paths of the same model."""

import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import optuna
import pytest
from exploration import describe, explore
from optuna.storages import BaseStorage
from optuna.storages._rdb.models import (
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
)
from optuna.trial import FrozenTrial
from protocol import START, Model
from protocol_state import (
    COMPLETE,
    PERSON,
    REQUEUERS,
    RUNNING,
    Actor,
    Cell,
    Clause,
    Move,
    Trial,
)
from small_study import LOST, create_study, create_trial, epoch_of, open_small, search_spec, set_cell
from sqlalchemy import delete, select

from fmnist_optuna.bridge.attributes import read_attempt
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.orphans import fail_orphan, fail_trial
from fmnist_optuna.bridge.trials import Outcome, tell
from fmnist_optuna.ledger.failures import MAX_FAILURES, MAX_LOST
from fmnist_optuna.ledger.points import Proposal
from fmnist_optuna.ledger.records import Attempt, Claim, HeldCell, TrialAttributes
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import TOKEN, cells
from fmnist_optuna.search.ladder import LadderRule
from fmnist_optuna.study import recovery
from fmnist_optuna.study.session import Session

pytestmark = pytest.mark.chaos

MAX_TRIALS, MORE_TRIALS = 2, 4  # of the first 567,797 states
N_WALKS, N_STEPS = 120, 31
WEIGHTS = {"step": 12, "again": 4, "death": 1, "crash": 2}
CLOCK_TICK_SECONDS = 0.002  # SQLite's clock counts milliseconds; here a renewal follows at once on what it renews
# Every action of the model with all clauses, and those that change nothing, so that a lost answer does no harm.
ACTIONS = {
    *(
        "suggest",
        "claim",
        "create",
        "bind",
        "renew",
        "report nothing",
        "raise",
        "tell",
        "fail",
        "read",
        "copy",
        "wait",
        "fail for good",
    ),
    *("look", "take over", "list", "compare", "sweep", "retry"),
    *("reach a rung", "park", "decide", "give back", "crash"),
}
HARMLESS = {
    *("suggest", "raise", "report nothing", "reach a rung", "read", "look", "list", "compare"),
    *("retry", "decide", "crash"),
}
RARE = {"give back"}  # with a lost answer: after a crash of the server alone
RULE = LadderRule(first_rung=1, kappa=1.0, margin=1.0, n_validation=100, max_epochs=8, keep=1)


def test_no_path_breaks_a_promise(note: Callable[[str], None]) -> None:
    """With every clause in place no death, pause or repetition breaks a promise, and every state can be healed."""
    found = explore(Model(), MAX_TRIALS)
    note(f"{found.n_states:,} states")
    assert not found.broken, "\n".join((found.broken, *found.trace))


@pytest.mark.slow
def test_no_path_with_four_trials_breaks_a_promise(note: Callable[[str], None]) -> None:
    """Nor does any path on which four trials matter at the same time."""
    found = explore(Model(), MORE_TRIALS)
    note(f"{found.n_states:,} states")
    assert not found.broken, "\n".join((found.broken, *found.trace))


@pytest.mark.parametrize("clause", Clause, ids=lambda clause: clause.name.lower())
def test_every_clause_is_needed(clause: Clause, record_property: Callable[[str, object], None]) -> None:
    """Without any one clause the search finds a path that breaks a promise."""
    found = explore(Model(clause), MAX_TRIALS)
    record_property("path", "\n".join((f"without: {clause.value}", f"broken: {found.broken}", *found.trace)))
    assert found.broken


@pytest.fixture
def storage(sqlite_url: str, alembic_read_once: None) -> Iterator[Storage]:
    """An open storage; one database is enough for what the model says of both."""
    opened = open_small(sqlite_url)
    yield opened
    opened.close()


def test_the_ledger_does_what_the_model_says(storage: Storage, note: Callable[[str], None]) -> None:
    """On random paths of the model, a real cell and its trials are after each step as the model has them."""
    choices, model, trials = random.Random(0), Model(), None
    made: Counter[tuple[str, str]] = Counter()
    n_ahead = 0
    for walk in range(N_WALKS):
        real, state = RealCell(storage, walk, trials), START
        lines: list[str] = []
        trials = real.session.optuna_storage
        while len(lines) < N_STEPS and (moves := list(model.moves(state))):
            (move,) = choices.choices(moves, [WEIGHTS.get(move.action, WEIGHTS[move.kind]) for move in moves])
            lines.append(describe(move))
            path = "\n".join(lines)
            is_expected = real.make(move, state.actors[move.number] if move.number != PERSON else Actor(""))
            assert is_expected, f"another answer than expected in the end of\n{path}"
            state = move.after
            durable = tuple(trial._replace(is_durable=True) for trial in state.trials)
            assert real.read() == (state.cell._replace(lease=0), durable), path
            made[move.action, move.kind] += 1
        n_ahead += real.n_ahead
    note(f"{made.total():,} steps on the real ledger")
    assert {action for action, kind in made if kind == "step"} == ACTIONS
    assert {action for action, kind in made if kind == "again"} | RARE == ACTIONS - HARMLESS
    assert 0 < n_ahead < made["decide", "step"]


class RealCell:
    """A study of one cell in a real database, on which moves of the model are made.

    Args:
        storage: Open storage.
        number: Makes the study and its cell different from others in the storage.
        trials: Optuna's storage over it, if somebody has opened it already: opening takes longer than a walk.
    """

    def __init__(self, storage: Storage, number: int, trials: BaseStorage | None) -> None:
        # Its one cell has no point at first; a suggestion is named by its hidden_size.
        space = {"hidden_size": {"low": 1, "high": 10**6}}
        record = create_study(storage, search_spec("tpe", 1, f"walk{number}", space))
        self.session = Session(storage, record, "walker")
        if trials is not None:
            vars(self.session)["trials"] = trials
        (cell,) = self.session.history.cells()
        self.cell_id = cell.cell_id
        self.tokens: dict[int, str | None] = {0: None}  # by the model's
        self.created: list[tuple[int, int]] = [(0, -1)]  # id and number of each trial, the first for "none"
        # What the actors remember, by their number; a new process overwrites what the dead one knew.
        self.proposals: dict[int, Proposal | None] = {}
        self.claims: dict[int, Claim] = {}
        self.seen: dict[int, HeldCell] = {}
        self.attempts: dict[int, Attempt] = {}
        self.listed: list[FrozenTrial] = []
        self.orphans: dict[int, tuple[int, str]] = {}
        self.n_ahead = 0  # how often its cell was let on ahead of a decision

    def read(self) -> tuple[Cell, tuple[Trial, ...]]:
        """The cell but for its lease, and all trials, in the model's names."""
        with self.session.storage.read() as connection:
            row = connection.execute(select(cells).where(cells.c.study_id == self.session.record.study_id)).one()
        names = {token: name for name, token in self.tokens.items()}
        trial = [trial_id for trial_id, _ in self.created].index(row.trial_id or 0)
        backend = vars(self.session.optuna_storage)["_backend"]  # past the cache, which does not know of crashes
        trials = backend.get_all_trials(self.session.record.study_id, deepcopy=False)
        known = sorted(trials, key=lambda trial: trial.number)
        return (
            Cell(row.state, names[row.token], trial, point=json.loads(row.params).get("hidden_size", 0)),
            tuple(_read_trial(names, trial) for trial in known),
        )

    def make(self, move: Move, actor: Actor) -> bool:
        """Make a move; whether the database answered what the actor of the model goes on with."""
        if move.kind == "death" or move.action in ("raise", "report nothing", "reach a rung"):
            return True
        if move.action == "retry":
            return self.session.ledger.retry_failed() == 1
        if move.action == "crash":
            self._crash(len(move.after.trials))
            return True
        if move.action == "decide":
            rungs = self.session.rungs
            # One that has trained so far is the best of one and may be let on ahead, which is the same step.
            ahead = rungs.let_on_ahead(RULE) if move.after.clock % 4 else None
            self.n_ahead += ahead is not None
            return (ahead or rungs.decide(RULE)) is not None
        action = getattr(self, f"_{move.action.replace(' ', '_')}")
        then = move.after.actors[move.number]
        return bool(action(move, actor, then) == (move.kind == "again" or self._goes_well(move, actor, then)))

    def _goes_well(self, move: Move, actor: Actor, then: Actor) -> bool:
        at = {"bind": "train", "renew": "tell"}
        if move.action == "take over":
            return then.at != "look"
        if move.action == "claim":
            return then.at in ("create", "train")
        return then.at == at.get(move.action, then.at)

    def _token(self, actor: Actor, then: Actor) -> str:
        """The token with which an actor claims or takes over: one that the model knows from now on if it worked."""
        number = then.token or actor.token
        if number == 0:
            return uuid.uuid4().hex
        return str(self.tokens.setdefault(number, uuid.uuid4().hex))

    def _suggest(self, move: Move, actor: Actor, then: Actor) -> bool:
        upcoming = self.session.points.find_next()
        point = json.dumps({"hidden_size": then.point})
        self.proposals[move.number] = Proposal(self.cell_id, point, "{}") if then.point else None
        return upcoming is not None and upcoming.has_point == (then.point == 0)

    def _claim(self, move: Move, actor: Actor, then: Actor) -> bool:
        record = self.session.record
        proposal = self.proposals[move.number]
        token = self._token(actor, then)
        claim = self.session.ledger._claim(f"worker {move.number}", record.generation, token, proposal=proposal)
        if claim is not None:
            self.claims[move.number] = claim
        return claim is not None

    def _create(self, move: Move, actor: Actor, then: Actor) -> bool:
        trial = create_trial(self.session, self.claims[move.number])
        self.created[len(move.after.trials) :] = [trial, *self.created[len(move.after.trials) + 1 :]]
        return True

    def _crash(self, n_kept: int) -> None:
        """Lose the trials that were made last; SQLite then gives their ids to others, as Postgres may."""
        lost = [trial_id for trial_id, number in self.created[1:] if number >= n_kept]
        with self.session.storage.write() as connection:
            for table in (TrialParamModel, TrialUserAttributeModel, TrialSystemAttributeModel, TrialModel):
                connection.execute(delete(table).where(table.trial_id.in_(lost)))

    def _give_back(self, move: Move, actor: Actor, then: Actor) -> bool:
        claim = self.claims[move.number]
        self.session.ledger.give_back(claim.cell_id, claim.token, count_lost=False)
        return True

    def _bind(self, move: Move, actor: Actor, then: Actor) -> bool:
        return self.session.ledger.bind(self.claims[move.number], *self.created[actor.trial])

    def _renew(self, move: Move, actor: Actor, then: Actor) -> bool:
        time.sleep(CLOCK_TICK_SECONDS)
        epoch, trial_id = epoch_of(0, 0.5), self._trial_id(actor)
        return self.session.ledger.record_epoch(self.claims[move.number], trial_id, epoch) is not None

    def _park(self, move: Move, actor: Actor, then: Actor) -> bool:
        self.session.ledger.park(self.claims[move.number], self._trial_id(actor), RULE.first_rung)
        return True

    def _tell(self, move: Move, actor: Actor, then: Actor) -> bool:
        study = self.session.optuna_study
        tell(study, optuna.Trial(study, self._trial_id(actor)), Outcome(State.COMPLETE, 0.5))
        return True

    def _fail(self, move: Move, actor: Actor, then: Actor) -> bool:
        if actor.at == "drop":
            fail_orphan(self.session.storage, self._trial_id(actor), self.claims[move.number].token)
            return True
        error = TrialAttributes(reason="exception", error="ValueError: bad")
        fail_trial(self.session.storage, self._trial_id(actor), LOST if move.number in REQUEUERS else error)
        return True

    def _read(self, move: Move, actor: Actor, then: Actor) -> bool:
        trial = self.session.optuna_storage.get_trial(self._trial_id(actor))
        self.attempts[move.number] = read_attempt(trial)
        return trial.state.name != RUNNING and (trial.state.name == COMPLETE) == (then.at == "copy")

    def _copy(self, move: Move, actor: Actor, then: Actor) -> bool:
        self._finish(move, actor)
        return True

    def _wait(self, move: Move, actor: Actor, then: Actor) -> bool:
        set_cell(self.session.storage, self.cell_id, failures=0, lost=0, error=None)
        self._finish(move, actor)
        return True

    def _fail_for_good(self, move: Move, actor: Actor, then: Actor) -> bool:
        if actor.trial and move.number == REQUEUERS[0]:  # one of them finds that the cell kills its workers
            blame = TrialAttributes(reason="blamed", error="was killed")
            self.attempts[move.number] = replace(self.attempts[move.number], attributes=blame)
        else:
            set_cell(self.session.storage, self.cell_id, failures=MAX_FAILURES - 1, lost=MAX_LOST - 1, error=None)
        self._finish(move, actor)
        return True

    def _finish(self, move: Move, actor: Actor) -> None:
        token = str(self.tokens[actor.token])
        if actor.trial:
            self.session.ledger.finish_cell(self.cell_id, token, self.attempts[move.number])
        else:
            self.session.ledger.give_back(self.cell_id, token, count_lost=True)

    def _look(self, move: Move, actor: Actor, then: Actor) -> bool:
        (self.seen[move.number],) = self.session.ledger.held_cells()
        return (self.seen[move.number].trial_id or 0) == self._trial_id(then)

    def _take_over(self, move: Move, actor: Actor, then: Actor) -> bool:
        return self.session.ledger.take_over(self.seen[move.number], "requeuer", self._token(actor, then))

    def _list(self, move: Move, actor: Actor, then: Actor) -> bool:
        self.listed = self.session.recovery._running_trials()
        return [trial_id_of(trial) for trial in self.listed] == [self.created[trial][0] for trial in then.seen]

    def _compare(self, move: Move, actor: Actor, then: Actor) -> bool:
        orphans: list[tuple[int, str]] = []

        def note(_storage: Storage, trial_id: int, token: str) -> bool:
            orphans.append((trial_id, token))
            return True

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.session.recovery, "_running_trials", lambda: self.listed)
            patch.setattr(recovery, "fail_orphan", note)
            self.session.recovery.sweep()
        self.orphans = dict(zip(then.seen, orphans, strict=False))
        return [trial_id for trial_id, _ in orphans] == [self.created[trial][0] for trial in then.seen]

    def _sweep(self, move: Move, actor: Actor, then: Actor) -> bool:
        fail_orphan(self.session.storage, *self.orphans[actor.seen[0]])
        return True

    def _trial_id(self, actor: Actor) -> int:
        return self.created[actor.trial][0]


def _read_trial(names: Mapping[str | None, int], trial: FrozenTrial) -> Trial:
    return Trial(names[trial.system_attrs[TOKEN]], trial.state.name, trial.params["hidden_size"])
