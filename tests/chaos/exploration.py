"""An exhaustive search of the protocol's model: every state that can be reached, and what must hold in it."""

from collections import deque
from typing import Any, NamedTuple

from protocol import HOMES, START, Model
from protocol_state import (
    COMPLETE,
    FAIL,
    LOST,
    NAMES,
    NO_TOKEN,
    RUNNING,
    SWEEPER,
    Move,
    State,
    Trial,
    owns,
    running_trials,
    status_of,
)

Shape = tuple[Any, ...]


class Exploration(NamedTuple):
    """What a search found.

    Args:
        n_states: States that differ in more than names.
        broken: The promise that did not hold, or nothing.
        trace: The shortest way there, a line a step.
    """

    n_states: int
    broken: str
    trace: tuple[str, ...]


def explore(model: Model, max_trials: int) -> Exploration:
    """Visit every state, nearest first, in which no more than `max_trials` trials matter, up to a broken promise."""
    seen = {shape_of(model, START)}
    ways: list[tuple[int, int]] = [(0, 0)]  # for each state the one before it and which of its moves led on
    recovered: dict[Shape, str] = {}
    waiting = deque([(0, START)])
    while waiting:
        index, state = waiting.popleft()
        for ordinal, move in enumerate(model.moves(state)):
            broken = broken_by_move(state, move)
            shape = shape_of(model, move.after)
            if not broken:
                if shape in seen or shape[-1] > max_trials:
                    continue
                seen.add(shape)
                broken = broken_in(move.after) or broken_in_the_end(model, move.after, recovered)
            ways.append((index, ordinal))
            if broken:
                return Exploration(len(seen), broken, _trace(model, ways))
            waiting.append((len(ways) - 1, move.after))
    return Exploration(len(seen), "", ())


def broken_by_move(state: State, move: Move) -> str:
    """Which promise a move breaks."""
    number, _, kind, (_, cell, trials, actors) = move
    if state.cell.point not in (0, cell.point):
        return "the point of a cell never changes"
    if trials is not state.trials:
        for trial, (old, new) in enumerate(zip(state.trials, trials, strict=False), 1):
            if old.status not in (RUNNING, new.status):
                return "a finished trial never changes"
            if number == SWEEPER and old.status != new.status and owns(cell, new.token, trial):
                return "the sweeper fails no trial that a cell owns"
            is_dropped = old.status != new.status and number < SWEEPER and state.actors[number].at == "drop"
            if is_dropped and old.token != state.actors[number].token:
                return "who cannot bind a trial fails no other one"
    if kind == "step" and number < SWEEPER and actors[number] == HOMES[number]:
        token = state.actors[number].token
        if token and cell.state == "running" and cell.token == token:
            return "nobody alive leaves a running cell under its token"
    return ""


def broken_in(state: State) -> str:
    """Which promise does not hold in a state."""
    _, cell, trials, _ = state
    if cell.trial > len(trials):
        return "the trial of a cell is there"
    n_complete = [trial.status for trial in trials].count(COMPLETE)
    if n_complete > 1:
        return "no cell has two results"
    if cell.state == "done" and (cell.trial == 0 or trials[cell.trial - 1].status != COMPLETE):
        return "a done cell names a COMPLETE trial"
    if cell.state not in ("waiting", "failed") and not cell.point:
        return "a cell that is at work or has a result has a point"
    if cell.trial and trials[cell.trial - 1].point != cell.point:
        return "the trial of a cell is of its point"
    if cell.state in ("waiting", "parked", "failed") and n_complete:
        return "a cell without a result has no COMPLETE trial"
    if cell.state in ("waiting", "parked") and cell.trial and trials[cell.trial - 1].status != RUNNING:
        return "the trial of a paused cell runs"
    return ""


def broken_in_the_end(model: Model, state: State, known: dict[Shape, str]) -> str:
    """Which promise does not hold after everybody has died and others have healed the study."""
    dead = state._replace(actors=HOMES)
    shape = shape_of(model, dead)
    if shape not in known:
        end = [dead, *(move.after for move in model.recover(dead))][-1]
        is_healed = end.cell.state == "done" and not running_trials(end.trials)
        known[shape] = broken_in(end) or ("" if is_healed else "every state can be healed")
    return known[shape]


def shape_of(model: Model, state: State) -> Shape:
    """What matters of a state: two states of one shape differ only in names and in what nobody will ever use.

    Of a token only whether the cell carries it, as no other token ever comes back; workers and requeuers in any order;
    trials in the order in which they are mentioned, failed ones only if they are. The last item counts the trials.
    """
    _, cell, trials, actors = state
    token = cell.token if cell.state == "running" else NO_TOKEN
    bound = cell.trial if cell.state != "failed" else 0
    ranks = []
    for actor in actors:
        at, own, trial, _, point, _ = actor
        named = 0 if at == "wait" else trial  # nobody asks which trial failed
        status = status_of(trials, named) if named else ""
        is_as_seen = at == "take over" and model.is_as_seen(cell, actor)
        # One that was suggested for a cell that has a point by now is used by nobody; `broken_in` knows what else.
        is_of_cell = point == 0 if at == "claim" else point == cell.point
        ranks.append((at, own == token, is_as_seen, is_of_cell, status, named == bound, named))
    one, two, three, four, sweeper = ranks
    if one > two:
        one, two = two, one
    if three > four:
        three, four = four, three
    names = {0: 0, bound: 1} if bound else {0: 0}
    shape: list[Any] = [cell.state, bound > 0, cell.point > 0]
    for at, is_mine, is_as_seen, is_of_cell, _, _, named in (one, two, three, four, sweeper):
        shape += (at, is_mine, is_as_seen, is_of_cell, names.setdefault(named, len(names)))
    listed = zip(actors[SWEEPER].seen, actors[SWEEPER].tokens, strict=True)
    swept = [(trial, own) for trial, own in listed if model.sweeps(trials, trial, own)]
    swept = [(trial, own) for trial, own in swept if status_of(trials, trial) in (RUNNING, LOST)]
    shape += sorted([(names.setdefault(trial, len(names)), own == token) for trial, own in swept])
    shape += [_mark(trials, trial, token, cell.point) for trial in names if trial]
    others = [_mark(trials, trial, token, cell.point) for trial in range(1, len(trials) + 1) if trial not in names]
    others = sorted([mark for mark in others if not mark.startswith(FAIL)])
    return (*shape, len(names) - 1, *others, len(names) - 1 + len(others))


def _mark(trials: tuple[Trial, ...], number: int, token: int, point: int) -> str:
    """What matters of one trial; of one that a crash loses also how many are lost before it."""
    if number > len(trials):
        return f"{LOST} {number - len(trials)}"
    trial = trials[number - 1]
    status = "owned" if trial.status == RUNNING and trial.token == token else trial.status
    status = status if trial.is_durable else f"{status} {len(trials) - number} before"
    return status if trial.point == point else f"{status} of another point"


def _trace(model: Model, ways: list[tuple[int, int]]) -> tuple[str, ...]:
    index, ordinals = len(ways) - 1, []
    while index:
        index, ordinal = ways[index]
        ordinals.append(ordinal)
    state, lines, is_broken = START, [], False
    for ordinal in reversed(ordinals):
        move = list(model.moves(state))[ordinal]
        is_broken = bool(broken_by_move(state, move) or broken_in(move.after))
        state = move.after
        lines.append(describe(move))
    if not is_broken:
        lines += ["everybody dies", *(describe(move) for move in model.recover(state))]
    return tuple(lines)


def describe(move: Move) -> str:
    """A move and what is then in the database, in one line."""
    _, cell, trials, _ = move.after
    how = {"step": move.action, "again": f"{move.action}, answer lost", "death": f"dies before: {move.action}"}[
        move.kind
    ]
    listed = ", ".join(
        f"{number} {trial.status} of {trial.token} point {trial.point}" for number, trial in enumerate(trials, 1)
    )
    row = f"{cell.state} token {cell.token or '-'} trial {cell.trial or '-'} point {cell.point or '-'}"
    return f"{NAMES[move.number]}: {how:24} | cell {row} | trials: {listed or 'none'}"
