"""Whose weights are exported: those of the winner or another trial, of a seed trained on all data, of several seeds."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from fmnist_optuna.arguments import check_count
from fmnist_optuna.errors import NotFoundError, UsageError
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.ledger.states import State
from fmnist_optuna.results.all_data import AllData, find_all_data
from fmnist_optuna.results.changed_code import explained_by_code
from fmnist_optuna.results.confirmation import Confirmation, find_confirmation
from fmnist_optuna.results.cross_validation import CrossValidation, open_training
from fmnist_optuna.results.ensemble import MIN_MEMBERS, PURPOSE
from fmnist_optuna.results.seeds import Sample
from fmnist_optuna.results.unsettled import find_unsettled
from fmnist_optuna.results.winner import find_folds, finished_attempt, sample_repeats, winning_attempt
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.repeats import point_of
from fmnist_optuna.spec.study_names import searched_study
from fmnist_optuna.study.records import ALL_DATA, CONFIRMATION
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import open_following


@dataclass(frozen=True)
class Source:
    """Whose weights are exported.

    Args:
        session: Of the study whose trials these are: that of the grid, its confirmation, or what is on all data.
        attempts: One, or several whose answers are averaged.
        confirmation: What chose their cell over fresh seeds; None if nothing did.
        all_data: What they are part of where the validation images were trained on too; None where not.
        repeats: What the study compares by over the repeats of their point; None where it has none.
        folds: What the folds say of the point, which was then trained on all training images; None where there are
            none, and for a trial that was asked for by its number.
        is_passed_over: Whether its cell was trained over fresh seeds too, which chose another one.
        is_asked_for: Whether it is another trial than the winner, asked for by its number.
    """

    session: Session
    attempts: tuple[Attempt, ...]
    confirmation: Confirmation | None
    all_data: AllData | None = None
    repeats: Sample | None = None
    folds: CrossValidation | None = None
    is_passed_over: bool = False
    is_asked_for: bool = False

    @property
    def is_ensemble(self) -> bool:
        """Whether several answer together."""
        return len(self.attempts) > 1

    def explained(self) -> AbstractContextManager[None]:
        """Let an error within a block name what of the user's code has changed since the training, if any."""
        return explained_by_code(self.session, self.attempts[0])

    @property
    def purpose(self) -> str:
        """Of their opening, if there is none yet."""
        return PURPOSE if self.is_ensemble else "export"

    @property
    def params(self) -> Params:
        """The point of the grid."""
        if self.confirmation is not None:
            return self.confirmation.chosen.params
        params = self.attempts[0].params
        return params if self.repeats is None and self.folds is None else point_of(params)

    @property
    def is_on_all_data(self) -> bool:
        """Whether no image is left that the weights were not trained on and that is not of the test."""
        return self.all_data is not None or self.folds is not None


def choose_source(session: Session, trial: int | None, all_data: bool, ensemble: int | None) -> Source:
    """Find whose weights are asked for.

    Args:
        trial: Number of another trial than the winner.
        all_data: Whether it is a seed that was trained on all data: always the one with the smallest training_seed, as
            a choice by the test set would be none.
        ensemble: How many seeds answer together, >= 2; None for one alone. They are the first by training_seed.

    Raises:
        NotFoundError: No such trial, none is complete, or what is asked for was not trained yet.
        UsageError: The study follows from another; the trial is not COMPLETE; or there are not so many seeds.
    """
    name, has_folds = session.record.name, session.record.is_cross_validated
    if not session.record.is_search:
        raise UsageError(
            f"The study must be one of a grid, but {name} is {session.record.described_kind}; export what it is of: "
            f"fmnist-optuna export {searched_study(name)}"
        )
    if not all_data and ensemble is None:
        return _choose_trial(session, trial) if trial is not None or not has_folds else _choose_trained(session)
    if has_folds:
        raise UsageError(
            f"all_data (--all-data) and ensemble (--ensemble) must be left out for study {name}, as its winner is one "
            f"training, on all training {session.record.info.noun}s."
        )
    if trial is not None:
        raise UsageError(
            "trial (--trial) must be alone, but all_data (--all-data) or ensemble (--ensemble) was given too, which "
            "take confirmed seeds."
        )
    check_count("ensemble", ensemble, MIN_MEMBERS)
    return _choose_seeds(session, all_data, ensemble or 1)


def _choose_trained(session: Session) -> Source:
    """The best point of a study with folds, as it was trained on all training images."""
    folds = find_folds(session)
    training, trained = open_training(session, folds)
    return Source(training, (trained,), None, folds=folds)


def _choose_trial(session: Session, trial: int | None) -> Source:
    confirmation = find_confirmation(session)
    attempt = winning_attempt(session, confirmation) if trial is None else finished_attempt(session, trial)
    if attempt.state is not State.COMPLETE:
        raise UsageError(f"trial (--trial) must be COMPLETE, but trial {trial} was pruned and kept no weights.")
    is_confirmed = confirmation is not None and confirmation.chosen.original.trial_id == attempt.trial_id
    repeats = sample_repeats(session, attempt.cell_id)
    compared = () if confirmation is None or is_confirmed else confirmation.candidates
    is_passed_over = any(each.original.trial_id == attempt.trial_id for each in compared)
    chosen_by = confirmation if is_confirmed else None
    is_asked_for = trial is not None and not _is_winner(session, attempt, confirmation)
    return Source(
        session, (attempt,), chosen_by, repeats=repeats, is_passed_over=is_passed_over, is_asked_for=is_asked_for
    )


def _is_winner(session: Session, attempt: Attempt, confirmation: Confirmation | None) -> bool:
    """Whether it would be exported without being asked for; with folds none would, as a point is trained anew."""
    if session.record.is_cross_validated or session.history.best() is None:
        return False
    return attempt.trial_id == winning_attempt(session, confirmation).trial_id


def _choose_seeds(session: Session, is_on_all_data: bool, n_seeds: int) -> Source:
    name, confirmation = session.record.name, find_confirmation(session)
    all_data = find_all_data(session, confirmation) if is_on_all_data else None
    following = open_following(session, ALL_DATA if is_on_all_data else CONFIRMATION)
    what, option = ("trained on all data", " --all-data") if is_on_all_data else ("confirmed", "")
    if confirmation is None or following is None or (is_on_all_data and all_data is None):
        unsettled = find_unsettled(session, confirmation)
        why = f", but is not: fmnist-optuna confirm {name}{option}"
        if unsettled is not None:
            why = f"; {unsettled.what}: {unsettled}"
        raise NotFoundError(f"study {name}: must be {what} first{why}")
    runs = confirmation.chosen.runs if all_data is None else all_data.runs
    if n_seeds > len(runs):
        raise UsageError(
            f"ensemble (--ensemble) must be {MIN_MEMBERS} to {len(runs)}, as so many seeds were confirmed, but is "
            f"{n_seeds}; `fmnist-optuna confirm {name} --seeds {n_seeds}{option}` confirms more."
        )
    repeats = sample_repeats(session, confirmation.chosen.original.cell_id)
    return Source(following, runs[:n_seeds], confirmation, all_data, repeats)
