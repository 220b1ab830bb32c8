"""`stop`, `retry`, `upgrade` and `delete`: what changes a study, or its storage, without training."""

import sys
from typing import Annotated

import typer

from fmnist_optuna.cli.commands import command, make_group
from fmnist_optuna.cli.options import Common, StudyName, open_session, open_storage_of
from fmnist_optuna.cli.streams import say
from fmnist_optuna.errors import UsageError
from fmnist_optuna.spec.study_names import command_of

group = make_group()


@command(group, "stop")
def stop(common: Common, study: StudyName = None) -> None:
    """End a study's workers, wherever they run: they finish their epoch and give their cells back."""
    from fmnist_optuna.study.studies import raise_generation  # loads SQLAlchemy

    session = open_session(common, study)
    raise_generation(session.storage, session.record.study_id)
    n_workers, name = len(session.history.workers()), session.record.name
    say(f"study {name}: workers told to leave: {n_workers}. Next: fmnist-optuna status {name}")


@command(group, "retry")
def retry(common: Common, study: StudyName = None) -> None:
    """Let the failed cells of a study wait again, with their counters at 0."""
    session = open_session(common, study)
    n_cells = session.ledger.retry_failed()
    name = session.record.name
    again = command_of(name, session.record.spec.data.folds)
    if again == "run":  # which without the file begins the default study
        again = f"run, with the study's file if it has one, or fmnist-optuna worker {name}"
    say(f"study {name}: failed cells that wait again: {n_cells}. Next: fmnist-optuna {again}")


@command(group, "upgrade")
def upgrade(common: Common) -> None:
    """Bring the tables of a storage that an earlier version made up to date; make a backup of it before.

    `run` and `init` do the same by themselves.
    """
    # These load SQLAlchemy.
    from fmnist_optuna.ledger.connecting import upgrade_storage
    from fmnist_optuna.ledger.tables import SCHEMA_VERSION

    before = upgrade_storage(common.storage)
    is_new = before == SCHEMA_VERSION
    say(f"The storage has schema version {SCHEMA_VERSION}{', as before' if is_new else f'; it had {before}'}.")


@command(group, "delete")
def delete(
    common: Common,
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name of the study.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a study with its trials, curves, openings, weights, and all that follows from it."""
    # These load SQLAlchemy and rich.
    from fmnist_optuna.cli.study_tables import describe_counts
    from fmnist_optuna.ledger.progress import History
    from fmnist_optuna.study.deletion import delete_study
    from fmnist_optuna.study.studies import find_readable_or_not

    storage = open_storage_of(common)
    found = find_readable_or_not(storage, study)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"delete must be confirmed, but nobody can be asked here; add --yes to remove {study}.")
        counts = describe_counts(History(storage, found.study_id).counts())
        if not typer.confirm(f"Remove study {study} with {counts} from {storage.name}?", err=True):
            say("Nothing was removed.")
            return
    delete_study(storage, found)
    say(f"study {study} was removed from {storage.name}.")
