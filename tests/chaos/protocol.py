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

from protocol_state import (
    COMPLETE,
    FAIL,
    NO_TOKEN,
    PERSON,
    REQUEUERS,
    RUNNING,
    SHARED_TOKEN,
    SWEEPER,
    Actor,
    Cell,
    Clause,
    Move,
    State,
    Trial,
    flush,
    is_made_by,
    owns,
    running_trials,
    status_of,
    tokens_of,
    wait_again,
    with_status,
)

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
                new_trials = flush(made_trials) if is_written else made_trials
                after = State(clock + 1, new_cell, new_trials, (*before, new_actor, *behind))
                yield Move(number, action, "step", after)
                if new_cell is not cell or new_trials is not trials:
                    same = actor if actor.token else actor._replace(token=new_actor.token)
                    after = State(clock + 1, new_cell, new_trials, (*before, same, *behind))
                    yield Move(number, action, "again", after)
            if actor != home:
                yield Move(number, actor.at, "death", State(clock + 1, cell, trials, (*before, home, *behind)))
        if cell.state == "failed":
            yield Move(PERSON, "retry", "step", State(clock + 1, wait_again(cell), flush(trials), actors))
        if cell.state == "parked":  # a worker's, whichever comes; it needs no memory, so it is nobody's step here
            decided = State(clock + 1, cell._replace(state="waiting"), flush(trials), actors)
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
        is_there = Clause.BIND_SEES_TRIAL in self._lacks or is_made_by(actor, trials)
        if is_there and cell.trial in (0, actor.trial) and self._is_mine(cell, actor, Clause.BIND_UNDER_TOKEN):
            bound = cell if cell.trial == actor.trial else cell._replace(trial=actor.trial)
            yield "bind", bound, trials, self._then("bind", actor, home)
        else:
            yield "bind", cell, trials, actor._replace(at="drop")

    def _drop(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        then = home if Clause.GIVE_BACK_UNBOUND in self._lacks else actor._replace(at="give back")
        if is_made_by(actor, state.trials) or Clause.DROP_UNDER_TOKEN in self._lacks:
            yield from self._finish(state, actor, FAIL, then)
        else:
            yield "fail", state.cell, state.trials, then

    def _give_back(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        """Whose trial was lost in a crash may still have the cell."""
        _, cell, trials, _ = state
        yield "give back", wait_again(cell) if self._is_mine(cell, actor) else cell, trials, home

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
            yield "wait", wait_again(cell), trials, home
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
            yield action, cell, with_status(trials, actor.trial, status), then

    def _write_complete(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        yield "tell: write", state.cell, with_status(state.trials, actor.trial, COMPLETE), actor._replace(at="read")

    def _write_fail(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        yield "fail: write", state.cell, with_status(state.trials, actor.trial, FAIL), actor._replace(at="read")

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
            yield "list", cell, trials, Actor("compare", seen=listed, tokens=tokens_of(trials, listed))

    def _list_late(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        held = Cell("running", actor.token, actor.trial)
        listed = running_trials(state.trials)
        yield "list", state.cell, state.trials, self._sweeping(held, listed, tokens_of(state.trials, listed))

    def _compare(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        yield "compare", state.cell, state.trials, self._sweeping(state.cell, actor.seen, actor.tokens)

    def _sweep(self, state: State, actor: Actor, home: Actor) -> Iterator[Step]:
        (first, *others), (token, *tokens) = actor.seen, actor.tokens
        trials = state.trials
        if self.sweeps(trials, first, token) and status_of(trials, first) == RUNNING:
            trials = with_status(trials, first, FAIL)
        then = Actor("sweep", seen=tuple(others), tokens=tuple(tokens))
        yield "sweep", state.cell, trials, then if others else home

    def sweeps(self, trials: tuple[Trial, ...], listed: int, token: int) -> bool:
        """Whether a trial on a sweeper's list may be failed as the one that was listed."""
        return Clause.SWEEP_UNDER_TOKEN in self._lacks or tokens_of(trials, (listed,)) == (token,)

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
