"""What follows from a study and is not at its end: why it says nothing yet, and the command that helps."""

from dataclasses import dataclass

from fmnist_optuna.ledger.states import State
from fmnist_optuna.results.confirmation import Confirmation, point_key, read_groups
from fmnist_optuna.spec.study_names import CONFIRMATION_SUFFIX, command_of, name_command_of, searched_study
from fmnist_optuna.study.records import ALL_DATA, CONFIRMATION
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import open_following


@dataclass(frozen=True)
class Unsettled:
    """What was begun after a search and says nothing of it, as it is.

    Args:
        what: That is: `confirmation` or `all data`.
        reason: Why, in words without a full stop.
        advice: The command that goes on with it or explains it, in backticks, and what that does.
    """

    what: str
    reason: str
    advice: str

    def __str__(self) -> str:
        """In one line."""
        return f"{self.reason}; {self.advice}"


def find_unsettled(session: Session, confirmation: Confirmation | None) -> Unsettled | None:
    """A confirmation that was begun and chooses nothing, or else training on all data that lacks seeds; None for none.

    Args:
        session: Of the search.
        confirmation: What chooses its cell; None if nothing does.
    """
    return _find_unconfirmed(session) if confirmation is None else _find_untrained(session, confirmation)


def _find_unconfirmed(session: Session) -> Unsettled | None:
    following, name = open_following(session, CONFIRMATION), session.record.name
    if following is None:
        return None
    counts, goes_on = following.history.counts(), f"`fmnist-optuna {command_of(following.record.name)}` goes on"
    if not session.history.counts().is_over:
        reason = "the study has cells again that are not done"
        goes_on = f"{name_command_of(name, session.record.spec.data.folds)} goes on with these"
    elif not counts.is_over:
        reason = f"{counts.done + counts.failed} of its {counts.total} cells are done"
    elif (leader := session.history.best()) is None or point_key(leader.params) not in read_groups(session, following):
        reason = "the best cell is none of its cells, as the grid has grown since"
    else:
        reason, goes_on = "no cell has a result for each of its seeds", advise_on_missing(session, following)
    return Unsettled(CONFIRMATION, reason, goes_on)


def _find_untrained(session: Session, confirmation: Confirmation) -> Unsettled | None:
    following = open_following(session, ALL_DATA)
    if following is None:
        return None
    states = {cell.cell_id: cell.state for cell in following.history.cells()}
    seeds = [states.get(run.cell_id) for run in confirmation.chosen.runs]
    missing = [state for state in seeds if state is not State.COMPLETE]
    if not missing:
        return None
    again, name = f"`fmnist-optuna {command_of(following.record.name)}`", session.record.name
    advice = f"{again} goes on"
    if all(state in (State.PRUNED, State.FAILED) for state in missing):
        advice = advise_on_missing(session, following)
    elif not session.history.counts().is_over:  # then it would be refused
        command = name_command_of(name, session.record.spec.data.folds)
        advice = f"{command} goes on with the cells of the study that are not done, then {again} with these"
    return Unsettled("all data", f"{len(seeds) - len(missing)} of {len(seeds)} seeds trained", advice)


def advise_on_missing(session: Session, following: Session) -> str:
    """What helps where every cell of a study that follows from a search has its end, and a seed has no result.

    A seed that failed may be tried again. One that diverged would do so again: another cell may be chosen.
    """
    name = following.record.name
    if following.history.counts().failed:
        return f"`fmnist-optuna retry {name}` lets the failed ones wait again, once the cause is mended"
    if name.endswith(CONFIRMATION_SUFFIX):
        n_compared = len(read_groups(session, following))
        if n_compared < len(session.history.leaders_of_points()):
            return f"`fmnist-optuna confirm {searched_study(name)} --top {n_compared + 1}` compares one more cell"
    return f"`fmnist-optuna trials {name}` shows which diverged"
