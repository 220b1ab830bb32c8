"""`status`, `trials`, `show`, `best`, `verify` and `list`: what only reads, and never creates a file."""

import csv
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fmnist_optuna.cli.answers import (
    details_answer,
    print_json,
    status_answer,
    study_answer,
    trials_answer,
    verification_answer,
    winner_answer,
)
from fmnist_optuna.cli.commands import command, make_group
from fmnist_optuna.cli.options import (
    Common,
    JsonFlag,
    StudyName,
    TrialArgument,
    WideFlag,
    open_session,
    open_storage_of,
)
from fmnist_optuna.errors import MismatchError, UsageError
from fmnist_optuna.search.metric import VAL_ACCURACY
from fmnist_optuna.search.repeats import format_cell
from fmnist_optuna.wording import count, format_duration

if TYPE_CHECKING:
    from fmnist_optuna.ledger.records import Attempt
    from fmnist_optuna.search.metric import Metric
    from fmnist_optuna.study.records import StudyRecord, UnreadableStudy
    from fmnist_optuna.study.session import Session

WATCH_SECONDS = 1.0

group = make_group()


@command(group, "status")
def status(
    common: Common,
    study: StudyName = None,
    watch: Annotated[bool, typer.Option("--watch", help="Draw it anew every second until the study is over.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show how far a study is: cells, workers, best so far."""
    # These load SQLAlchemy and rich.
    from fmnist_optuna.bridge.foreign import count_foreign
    from fmnist_optuna.cli.console import out
    from fmnist_optuna.cli.live import StudyView
    from fmnist_optuna.cli.study_tables import describe_checkpoints, print_foreign, workers_table

    session = open_session(common, study)
    if as_json and watch:
        raise UsageError("--watch must be without --json, but both were given; poll `status --json` instead.")
    if as_json:
        print_json(status_answer(session))
        return
    if watch:
        _watch(session)
    history = session.history
    out.print(StudyView(session).draw())
    workers, elapsed = history.workers(), format_duration(history.elapsed_seconds())
    if workers:
        out.print(workers_table(workers))
    out.print(f"{count(len(workers), 'worker')}, {elapsed} of work, in {session.storage.name}", soft_wrap=True)
    use = session.checkpoints.disk_use()
    if session.record.place is not None:
        out.print(f"artifacts in {session.record.place}", soft_wrap=True)
    if use is not None and use.n_files:
        out.print(describe_checkpoints(use))
    print_foreign(count_foreign(session.storage, session.record.study_id))
    if history.counts().failed:
        for cell in history.failed():
            out.print(f"failed: {format_cell(cell.params)}: {cell.error or ''}", soft_wrap=True)


def _watch(session: "Session") -> None:
    """Draw the study again and again until it is over, or until Ctrl-C."""
    # These load SQLAlchemy and rich.
    from rich.live import Live

    from fmnist_optuna.cli.console import out
    from fmnist_optuna.cli.live import StudyView

    view = StudyView(session)
    with Live(console=out, auto_refresh=False, transient=True) as live:
        try:
            while not session.history.counts().is_over:
                live.update(view.draw(), refresh=True)
                time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            return


@command(group, "trials")
def trials(
    common: Common,
    study: StudyName = None,
    is_wide: WideFlag = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Answer as CSV on stdout.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List all attempts, the best first; those of one point together.

    Parameters that do not fit the terminal are named above the table.
    """
    # These load Optuna, SQLAlchemy and rich.
    from fmnist_optuna.cli.console import describe_study, out
    from fmnist_optuna.cli.parameter_order import make_parameter_order
    from fmnist_optuna.cli.study_tables import print_foreign
    from fmnist_optuna.cli.trial_tables import print_trials
    from fmnist_optuna.study.attempts import arrange_attempts, list_attempts, list_points, with_point_means

    if as_csv and as_json:
        raise UsageError("--csv must be without --json, but both were given.")
    session = open_session(common, study)
    attempts = list_attempts(session)
    if as_json:
        print_json(trials_answer(session.record, with_point_means(attempts, list_points(session))))
    elif as_csv:
        _write_csv(with_point_means(attempts, list_points(session)), session.record)
    else:
        n_foreign = sum(attempt.is_foreign for attempt in attempts)
        out.print(f"{describe_study(session.record)}: {count(len(attempts) - n_foreign, 'attempt')}")
        print_foreign(n_foreign)
        print_trials(arrange_attempts(session, attempts), session.record, make_parameter_order(session, is_wide))


def _write_csv(attempts: Sequence["Attempt"], record: "StudyRecord") -> None:
    """One line for each attempt, with a column for each parameter: the rows of `Study.trials()`."""
    from fmnist_optuna.study.attempts import flat_table  # loads Optuna and SQLAlchemy

    columns, rows = flat_table(attempts, record)
    writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


@command(group, "show")
def show(
    common: Common,
    trial: TrialArgument,
    study: StudyName = None,
    as_json: JsonFlag = False,
) -> None:
    """Show one trial: parameters, curve, error, log, and what its callbacks wrote."""
    # These load Optuna, SQLAlchemy and rich.
    from fmnist_optuna.cli.trial_details import read_details
    from fmnist_optuna.cli.trial_tables import print_details

    details = read_details(open_session(common, study), trial)
    if as_json:
        print_json(details_answer(details))
    else:
        print_details(details)


@command(group, "best")
def best(common: Common, study: StudyName = None, as_json: JsonFlag = False) -> None:
    """Show the winner and its score on the test set."""
    # These load Optuna, SQLAlchemy and rich.
    from fmnist_optuna.cli.winner_tables import print_winner
    from fmnist_optuna.results.winner import find_winner

    session = open_session(common, study)
    winner = find_winner(session)
    if as_json:
        print_json(winner_answer(session.record, winner))
    else:
        print_winner(session.record, winner, session.history.counts())


@command(group, "verify")
def verify(common: Common, study: StudyName = None, as_json: JsonFlag = False) -> None:
    """Prove that every cell has exactly one result; exit 6 when it has not."""
    # These load Optuna, SQLAlchemy and rich.
    from fmnist_optuna.cli.console import describe_study
    from fmnist_optuna.cli.study_tables import print_verification
    from fmnist_optuna.study.cuts import verify_study

    session = open_session(common, study)
    verification = verify_study(session)
    if as_json:
        print_json(verification_answer(verification))
    else:
        print_verification(describe_study(session.record), verification)
    if not verification.ok:
        raise MismatchError(
            f"study {session.record.name}: every cell must have exactly one result, but {verification.n_missing} of "
            f"{verification.n_cells} have none and {count(len(verification.problems), 'problem')} "
            f"{'was' if len(verification.problems) == 1 else 'were'} found."
        )


@command(group, "list")
def list_(common: Common, as_json: JsonFlag = False) -> None:
    """List the studies of the storage."""
    # These load SQLAlchemy and rich.
    from fmnist_optuna.cli.study_tables import print_studies
    from fmnist_optuna.ledger.progress import History
    from fmnist_optuna.study.studies import list_studies

    storage = open_storage_of(common)
    histories = [(study, History(storage, study.study_id, *_compared_by(study))) for study in list_studies(storage)]
    if as_json:
        print_json({"studies": [study_answer(study, history.counts()) for study, history in histories]})
    else:
        print_studies([(study, history.counts(), history.best_value()) for study, history in histories])


def _compared_by(study: "StudyRecord | UnreadableStudy") -> "tuple[Metric, int]":
    """The metric of a study and how many cells a point of it has; of one that cannot be read neither is known."""
    from fmnist_optuna.study.records import StudyRecord  # loads SQLAlchemy

    return (study.metric, study.spec.repeats.n_cells) if isinstance(study, StudyRecord) else (VAL_ACCURACY, 1)
