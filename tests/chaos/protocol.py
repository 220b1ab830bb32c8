"""A model of the ledger's protocol: one cell, two workers, two requeuers, a sweeper.

A step is one transaction of the real code. Between two steps anything may happen: any other step, which is a pause; a
death; the loss of the answer to a commit, after which the actor does the same step again; a crash of the server. A
requeuer may take anybody for dead at any time, so nothing rests on how long a lease lasts. Deaths, repetitions, crashes
and claims are not limited, only the number of trials that matter at the same time.

Making a trial does not wait until it is on disk. Every other step that writes does, and with it all that was written
before. So a crash loses trials that were made last, and the next one that is made may get the number of a lost one.

Knows no database; `exploration` searches it, and `test_protocol` checks that the real ledger does what the model says.
"""

from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

RUNNING, COMPLETE, FAIL, LOST = "RUNNING", "COMPLETE", "FAIL", "lost in a crash"
NAMES = ("worker 0", "worker 1", "requeuer 0", "requeuer 1", "sweeper", "person")
REQUEUERS, SWEEPER, PERSON = (2, 3), 4, 5
SHARED_TOKEN = -1  # of every claim, where tokens are used again
NO_TOKEN = -2  # of a cell that does not run


class Clause(Enum):
    """What the protocol asks for; the model can do without each."""

    BIND_UNDER_TOKEN = "a trial is bound only to a cell under the binder's token"
    SETTLE_UNDER_TOKEN = "a cell is settled only under the settler's token"
    TAKE_OVER_AS_SEEN = "a cell is taken over only if token, lease and trial are as they were seen"
    TRIAL_AS_SEEN = "a trial bound since the look prevents a take-over"
    TAKER_HAS_TOKEN = "who takes a cell over puts it under a token of its own"
    TOKEN_IS_NEW = "a token is never used again"
    CLAIM_FINDS_ITSELF = "a repeated claim first looks for its token"
    TAKE_OVER_FINDS_ITSELF = "a repeated take-over looks for its token"
    BIND_BEFORE_TELL = "a trial is bound before it is told"
    TELL_BEFORE_COPY = "a result is told to Optuna before it is copied to the cell"
    FAIL_BEFORE_WAIT = "a requeuer fails the trial before it lets the cell wait"
    REQUEUER_READS_AGAIN = "a requeuer reads the trial that it tried to fail"
    ONE_TRANSACTION = "the state of a trial is read and written in one transaction"
    LIST_BEFORE_CELLS = "a sweep lists trials first and reads cells second"
    SPARE_UNBOUND = "a sweep spares a trial that is about to be bound"
    SWEEP = "running trials that no cell owns are swept"
    PARK_UNDER_TOKEN = "a cell is parked only under the parker's token"
    LEAVE_UNPARKED = "who cannot park a cell leaves its trial alone"
    SPARE_PAUSED = "a sweep spares the trial of a cell that is parked, or that waits to go on"
    POINT_WITH_CLAIM = "the first claim fixes the point of its cell, in its own transaction"
    POINT_IS_KEPT = "a claim keeps the point that an earlier one fixed"
    POINT_OF_ROW = "who claims a cell trains the point of its row, whatever it would have suggested"
    BIND_SEES_TRIAL = "a trial is bound only if it is there, made under the binder's token"
    GIVE_BACK_UNBOUND = "who cannot bind a trial gives the cell back if it still has it"
    DROP_UNDER_TOKEN = "who cannot bind a trial fails it only if it is the one that it made"
    SWEEP_UNDER_TOKEN = "a trial is swept only if it is the one that was listed"


class Cell(NamedTuple):
    """The row of the cell; token, trial and point are 0 for NULL, the lease is the clock at its last renewal.

    A parked cell, and one that waits to go on, has the trial that its next claim goes on with. A point is named by the
    time at which it was suggested, so that no two suggestions are the same.
    """

    state: str = "waiting"
    token: int = 0
    trial: int = 0
    lease: int = 0
    point: int = 0


class Trial(NamedTuple):
    """One of Optuna's trials, with the point that it trains; numbered from 1 in the order of their creation.

    One that is not durable is lost in a crash.
    """

    token: int
    status: str = RUNNING
    point: int = 0
    is_durable: bool = True


class Actor(NamedTuple):
    """A process: the step that comes next, and what it remembers.

    Args:
        at: Name of the step.
        token: Its own token, once it has claimed or taken over.
        trial: The trial that it deals with, or saw in the cell; 0 for none.
        seen: Token and lease that a requeuer saw, or the trials on a sweeper's list.
        point: What a worker has suggested, and then what it trains; 0 for none.
        tokens: Of the trials on a sweeper's list, as they were then.
    """

    at: str
    token: int = 0
    trial: int = 0
    seen: tuple[int, ...] = ()
    point: int = 0
    tokens: tuple[int, ...] = ()


class State(NamedTuple):
    """Everything at one moment; the clock counts steps, so that no token and no lease comes twice."""

    clock: int
    cell: Cell
    trials: tuple[Trial, ...]
    actors: tuple[Actor, ...]


class Move(NamedTuple):
    """What one actor does: a "step", a step to be done "again" as its answer was lost, or a "death" instead of it."""

    number: int
    action: str
    kind: str
    after: State


Step = tuple[str, Cell, tuple[Trial, ...], Actor]  # what is done, and what is then so
HOMES = (Actor("suggest"), Actor("suggest"), Actor("look"), Actor("look"), Actor("list"))
WORKER_HOME = HOMES[0]
START = State(1, Cell(), (), HOMES)


class Model:
    """The steps of all actors.

    Args:
        without: Clauses that are taken away.
    """

    def __init__(self, *without: Clause) -> None:
        self._lacks = frozenset(without)
        self._next = {"create": "bind", "bind": "train", "train": "tell", "tell": "read", "copy": ""}
        if Clause.BIND_BEFORE_TELL in without:
            self._next |= {"create": "train", "tell": "bind", "bind": "read"}
        if Clause.TELL_BEFORE_COPY in without:
            self._next |= {"train": "copy", "copy": "tell", "tell": ""}
        self._programs: dict[str, Callable[[State, Actor, Actor], Iterator[Step]]] = {
            at: getattr(self, f"_{at.replace(' ', '_')}")
            for at in (
                *("suggest", "claim", "fix", "create", "bind", "drop", "give back", "train", "tell", "park"),  # workers
                *("fail", "read", "copy", "wait"),  # workers and requeuers
                *("look", "take over"),  # requeuers
                *("list", "compare", "list late", "sweep"),  # the sweeper
                *("write complete", "write fail"),  # where one transaction is two
            )
        }

    def moves(self, state: State) -> Iterator[Move]:
        """Everything that may happen next; of an actor's alternatives the first is that of a healthy one."""
        clock, cell, trials, actors = state
        for number, actor in enumerate(actors):
            before, behind, home = actors[:number], actors[number + 1 :], HOMES[number]
            for action, new_cell, made_trials, new_actor in self._programs[actor.at](state, actor, home):
                is_written = action != "create" and (new_cell is not cell or made_trials is not trials)
                new_trials = _flush(made_trials) if is_written else made_trials
                after = State(clock + 1, new_cell, new_trials, (*before, new_actor, *behind))
                yield Move(number, action, "step", after)
                if new_cell is not cell or new_trials is not trials:
                    same = actor if actor.token else actor._replace(token=new_actor.token)
                    after = State(clock + 1, new_cell, new_trials, (*before, same, *behind))
                    yield Move(number, action, "again", after)
            if actor != home:
                yield Move(number, actor.at, "death", State(clock + 1, cell, trials, (*before, home, *behind)))
        if cell.state == "failed":
            yield Move(PERSON, "retry", "step", State(clock + 1, _wait_again(cell), _flush(trials), actors))
        if cell.state == "parked":  # a worker's, whichever comes; it needs no memory, so it is nobody's step here
            decided = State(clock + 1, cell._replace(state="waiting"), _flush(trials), actors)
            yield Move(PERSON, "decide", "step", decided)
        for n_kept in range(len(trials)):
            if not trials[n_kept].is_durable:
                yield Move(PERSON, "crash", "step", State(clock + 1, cell, trials[:n_kept], actors))

    def recover(self, state: State) -> list[Move]:
        """Everybody has died; a requeuer, a person, a worker and a sweeper do their work one after the other."""
        state = state._replace(actors=HOMES)
        made: list[Move] = []
        for number in (REQUEUERS[0], PERSON, 0, SWEEPER):
            while (move := next((move for move in self.moves(state) if move.number == number), None)) is not None:
                made.append(move)
                state = move.after
                if state.actors == HOMES:
                    break
        return made

    def is_as_seen(self, cell: Cell, actor: Actor) -> bool:
        """Whether a requeuer that saw this token, lease and trial may take the cell over."""
        is_same_trial = cell.trial == actor.trial or Clause.TRIAL_AS_SEEN in self._lacks
        is_same = (cell.token, cell.lease) == actor.seen and is_same_trial
        return cell.state == "running" and (is_same or Clause.TAKE_OVER_AS_SEEN in self._lacks)

    # Workers

    def _suggest(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        """Look at the next cell, and think of a point for it if it has none; nothing is locked meanwhile."""
        clock, cell, trials, _ = state
        if cell.state == "waiting":
            yield "suggest", cell, trials, Actor("claim", point=0 if self._keeps_point(cell) else clock)

    def _claim(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        clock, cell, trials, _ = state
        token = actor.token or (SHARED_TOKEN if Clause.TOKEN_IS_NEW in self._lacks else clock)
        if cell.state == "waiting":
            is_fixed = self._keeps_point(cell) or Clause.POINT_WITH_CLAIM in self._lacks
            claimed = Cell("running", token, cell.trial, clock, cell.point if is_fixed else actor.point)
            yield "claim", claimed, trials, self._claimed(claimed, token, actor)
        elif actor.token:  # done before, but the answer was lost
            is_found = cell.token == actor.token and Clause.CLAIM_FINDS_ITSELF not in self._lacks
            yield "claim", cell, trials, self._claimed(cell, token, actor) if is_found else home
        else:  # another worker was first
            yield "claim", cell, trials, home

    def _keeps_point(self, cell: Cell) -> bool:
        return cell.point != 0 and Clause.POINT_IS_KEPT not in self._lacks

    def _claimed(self, cell: Cell, token: int, actor: Actor) -> Actor:
        """Who has claimed a cell: it goes on with the cell's trial, or makes one of its point."""
        is_own = actor.point != 0 and Clause.POINT_OF_ROW in self._lacks
        at = "fix" if Clause.POINT_WITH_CLAIM in self._lacks and not cell.point else "train" if cell.trial else "create"
        return Actor(at, token, cell.trial, point=actor.point if is_own or at == "fix" else cell.point)

    def _fix(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        """Where the claim does not: write the suggestion into the worker's cell, if it has no point."""
        _, cell, trials, _ = state
        if self._is_mine(cell, actor):
            fixed = cell if cell.point else cell._replace(point=actor.point)
            yield "fix", fixed, trials, actor._replace(at="create", point=fixed.point)
        else:
            yield "fix", cell, trials, home

    def _create(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        trials = (*state.trials, Trial(actor.token, point=actor.point, is_durable=False))
        yield "create", state.cell, trials, Actor(self._next["create"], actor.token, len(trials))

    def _bind(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        _, cell, trials, _ = state
        is_there = Clause.BIND_SEES_TRIAL in self._lacks or _is_made_by(actor, trials)
        if is_there and cell.trial in (0, actor.trial) and self._is_mine(cell, actor, Clause.BIND_UNDER_TOKEN):
            bound = cell if cell.trial == actor.trial else cell._replace(trial=actor.trial)
            yield "bind", bound, trials, self._then("bind", actor, home)
        else:
            yield "bind", cell, trials, actor._replace(at="drop")

    def _drop(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        then = home if Clause.GIVE_BACK_UNBOUND in self._lacks else actor._replace(at="give back")
        if _is_made_by(actor, state.trials) or Clause.DROP_UNDER_TOKEN in self._lacks:
            yield from self._finish(state, actor, FAIL, then)
        else:
            yield "fail", state.cell, state.trials, then

    def _give_back(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        """Whose trial was lost in a crash may still have the cell."""
        _, cell, trials, _ = state
        yield "give back", _wait_again(cell) if self._is_mine(cell, actor) else cell, trials, home

    def _train(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        _, cell, trials, _ = state
        if self._is_mine(cell, actor):
            yield "renew", cell._replace(lease=state.clock), trials, self._then("train", actor, home)
        else:
            yield "renew", cell, trials, actor._replace(at="fail")
        yield "report nothing", cell, trials, self._then("train", actor, home)  # an objective without an epoch
        yield "raise", cell, trials, actor._replace(at="fail")  # an exception of the objective, or a stop
        yield "reach a rung", cell, trials, actor._replace(at="park")

    def _tell(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        yield from self._finish(state, actor, COMPLETE, self._then("tell", actor, home))
        yield "raise", state.cell, state.trials, actor._replace(at="fail")

    def _park(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        _, cell, trials, _ = state
        if self._is_mine(cell, actor, Clause.PARK_UNDER_TOKEN):
            yield "park", Cell("parked", 0, cell.trial, point=cell.point), trials, home
        else:  # taken away, or parked before the answer was lost
            is_failed = Clause.LEAVE_UNPARKED in self._lacks
            yield "park", cell, trials, actor._replace(at="drop") if is_failed else home

    # Workers and requeuers

    def _fail(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        is_blind = home is not WORKER_HOME and Clause.REQUEUER_READS_AGAIN in self._lacks
        yield from self._finish(state, actor, FAIL, actor._replace(at="wait" if is_blind else "read"))

    def _read(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        is_complete = status_of(state.trials, actor.trial) == COMPLETE
        yield "read", state.cell, state.trials, actor._replace(at="copy" if is_complete else "wait")

    def _copy(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        cell = state.cell
        if cell.trial == actor.trial and self._is_mine(cell, actor, Clause.SETTLE_UNDER_TOKEN):
            cell = cell._replace(state="done")
        yield "copy", cell, state.trials, self._then("copy", actor, home) if home is WORKER_HOME else home

    def _wait(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        """Settle a failure, or give a cell without a trial back: it waits, failed too often, or kills its workers."""
        _, cell, trials, _ = state
        if self._is_mine(cell, actor, Clause.SETTLE_UNDER_TOKEN):
            yield "wait", _wait_again(cell), trials, home
            yield "fail for good", Cell("failed", 0, actor.trial, point=cell.point), trials, home
        else:
            yield "wait", cell, trials, home

    def _is_mine(self, cell: Cell, actor: Actor, clause: Clause | None = None) -> bool:
        return cell.state == "running" and (cell.token == actor.token or clause in self._lacks)

    def _then(self, at: str, actor: Actor, home: Actor) -> Actor:
        return Actor(self._next[at], actor.token, actor.trial) if self._next[at] else home

    def _finish(self, state: State, actor: Actor, status: str, then: Actor) -> Iterator[Step]:
        """Finish a trial that runs; a finished one stays as it is."""
        _, cell, trials, _ = state
        action = "tell" if status == COMPLETE else "fail"
        if status_of(trials, actor.trial) != RUNNING:
            yield action, cell, trials, then
        elif Clause.ONE_TRANSACTION in self._lacks:
            yield f"{action}: read", cell, trials, actor._replace(at=f"write {status.lower()}")
        else:
            yield action, cell, _with_status(trials, actor.trial, status), then

    def _write_complete(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        yield "tell: write", state.cell, _with_status(state.trials, actor.trial, COMPLETE), actor._replace(at="read")

    def _write_fail(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        yield "fail: write", state.cell, _with_status(state.trials, actor.trial, FAIL), actor._replace(at="read")

    # Requeuers

    def _look(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        cell = state.cell
        if cell.state == "running":
            yield "look", cell, state.trials, Actor("take over", 0, cell.trial, (cell.token, cell.lease))

    def _take_over(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        clock, cell, trials, _ = state
        step = "wait" if actor.trial == 0 else "read" if Clause.FAIL_BEFORE_WAIT in self._lacks else "fail"
        if self.is_as_seen(cell, actor):
            token = actor.token or (cell.token if Clause.TAKER_HAS_TOKEN in self._lacks else clock)
            taken = Cell("running", token, cell.trial, clock, cell.point)
            yield "take over", taken, trials, Actor(step, token, actor.trial)
        elif actor.token and cell.token == actor.token and Clause.TAKE_OVER_FINDS_ITSELF not in self._lacks:
            yield "take over", cell, trials, Actor(step, actor.token, actor.trial)
        else:
            yield "take over", cell, trials, home

    # The sweeper

    def _list(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        _, cell, trials, _ = state
        if Clause.SWEEP in self._lacks:
            return
        if Clause.LIST_BEFORE_CELLS in self._lacks:
            token = cell.token if cell.state == "running" else NO_TOKEN
            yield "read the cell", cell, trials, Actor("list late", token, cell.trial)
        elif listed := running_trials(trials):
            yield "list", cell, trials, Actor("compare", seen=listed, tokens=_tokens_of(trials, listed))

    def _list_late(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        held = Cell("running", actor.token, actor.trial)
        listed = running_trials(state.trials)
        yield "list", state.cell, state.trials, self._sweeping(held, listed, _tokens_of(state.trials, listed))

    def _compare(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        yield "compare", state.cell, state.trials, self._sweeping(state.cell, actor.seen, actor.tokens)

    def _sweep(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        (first, *others), (token, *tokens) = actor.seen, actor.tokens
        trials = state.trials
        if self.sweeps(trials, first, token) and status_of(trials, first) == RUNNING:
            trials = _with_status(trials, first, FAIL)
        then = Actor("sweep", seen=tuple(others), tokens=tuple(tokens))
        yield "sweep", state.cell, trials, then if others else home

    def sweeps(self, trials: tuple[Trial, ...], listed: int, token: int) -> bool:
        """Whether a trial on a sweeper's list may be failed as the one that was listed."""
        return Clause.SWEEP_UNDER_TOKEN in self._lacks or _tokens_of(trials, (listed,)) == (token,)

    def _sweeping(self, cell: Cell, listed: tuple[int, ...], tokens: tuple[int, ...]) -> Actor:
        is_bound_only = Clause.SPARE_UNBOUND in self._lacks
        if Clause.SPARE_PAUSED in self._lacks and cell.state != "running":
            cell = Cell()  # as if it had no trial
        orphans = [
            (trial, token)
            for trial, token in zip(listed, tokens, strict=True)
            if not owns(cell, token, trial) or (is_bound_only and cell.trial == 0)
        ]
        if not orphans:
            return HOMES[SWEEPER]
        trials, of_trials = zip(*orphans, strict=True)
        return Actor("sweep", seen=trials, tokens=of_trials)


def owns(cell: Cell, token: int, trial: int) -> bool:
    """Whether a cell has this trial and is neither done nor failed, or runs and waits for it to be bound.

    Args:
        token: That the trial was made under.
    """
    if cell.trial == 0:
        return cell.state == "running" and cell.token == token
    return cell.trial == trial and cell.state in ("running", "parked", "waiting")


def _tokens_of(trials: tuple[Trial, ...], numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Of those that are there."""
    return tuple(trials[number - 1].token for number in numbers if number <= len(trials))


def running_trials(trials: tuple[Trial, ...]) -> tuple[int, ...]:
    return tuple(number for number, trial in enumerate(trials, 1) if trial.status == RUNNING)


def status_of(trials: tuple[Trial, ...], trial: int) -> str:
    """Of a trial that may have been lost."""
    return trials[trial - 1].status if trial <= len(trials) else LOST


def _is_made_by(actor: Actor, trials: tuple[Trial, ...]) -> bool:
    """Whether the trial that a worker has made is still there, and not another one with its number."""
    return actor.trial <= len(trials) and trials[actor.trial - 1].token == actor.token


def _flush(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """All of them durable."""
    if all(trial.is_durable for trial in trials):
        return trials
    return tuple(trial if trial.is_durable else trial._replace(is_durable=True) for trial in trials)


def _wait_again(cell: Cell) -> Cell:
    """A cell that waits for a new trial, of the same point."""
    return Cell(point=cell.point)


def _with_status(trials: tuple[Trial, ...], trial: int, status: str) -> tuple[Trial, ...]:
    if trial > len(trials):  # without a clause somebody may write to one that was lost
        return trials
    return (*trials[: trial - 1], trials[trial - 1]._replace(status=status), *trials[trial:])
