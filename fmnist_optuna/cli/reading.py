"""`status`, `trials`, `show`, `best`, `verify` and `list`: what only reads, and never creates a file."""

import csv
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fmnist_optuna.cli.options import Common, JsonFlag, StudyName, command
from fmnist_optuna.errors import MismatchError, UsageError

if TYPE_CHECKING:
    from fmnist_optuna.ledger.storage import Storage
    from fmnist_optuna.study.session import Session

WATCH_SECONDS = 1.0


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    command(app, "status")(status)
    command(app, "trials")(trials)
    command(app, "show")(show)
    command(app, "best")(best)
    command(app, "verify")(verify)
    command(app, "list")(list_)


def open_storage_of(common: Common) -> "Storage":
    """The storage that a reading command is about; it must be there."""
    from fmnist_optuna.ledger.storage import open_storage

    return open_storage(common.storage, patience_seconds=common.patience_seconds, lease_seconds=common.lease_seconds)


def open_session(common: Common, study: str | None) -> "Session":
    """The study that a reading command is about."""
    from fmnist_optuna.ledger.records import Timing
    from fmnist_optuna.study.session import Session
    from fmnist_optuna.study.studies import find_study

    storage = open_storage_of(common)
    timing = Timing.for_lease(common.lease_seconds)
    return Session(storage, find_study(storage, study), timing, "reader")


def status(
    common: Common,
    study: StudyName = None,
    watch: Annotated[bool, typer.Option("--watch", help="Draw it anew every second until the study is over.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show how far a study is: cells, workers, best so far."""
    from fmnist_optuna.cli.answers import print_json, status_answer
    from fmnist_optuna.cli.live import StudyView, format_seconds
    from fmnist_optuna.cli.tables import out, print_foreign

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
    workers = history.workers()
    elapsed = format_seconds(history.elapsed_seconds())
    out.print(f"{len(workers)} workers, {elapsed} of work, in {session.storage.name}", soft_wrap=True)
    print_foreign(history.n_foreign())
    if history.counts().failed:
        for params, error in history.failed():
            out.print(f"failed: {params}: {error}", soft_wrap=True)


def _watch(session: "Session") -> None:
    from rich.live import Live

    from fmnist_optuna.cli.live import StudyView
    from fmnist_optuna.cli.tables import out

    view = StudyView(session)
    with Live(console=out, auto_refresh=False, transient=True) as live:
        try:
            while not session.history.counts().is_over:
                live.update(view.draw(), refresh=True)
                time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            return


def trials(
    common: Common,
    study: StudyName = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Answer as CSV on stdout.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List all attempts, the best first."""
    from fmnist_optuna.cli.answers import print_json, trials_answer
    from fmnist_optuna.cli.tables import out, print_foreign, print_trials, title
    from fmnist_optuna.study.leaderboard import read_trials

    if as_csv and as_json:
        raise UsageError("--csv must be without --json, but both were given.")
    session = open_session(common, study)
    rows = read_trials(session)
    if as_json:
        print_json(trials_answer(rows))
    elif as_csv:
        _write_csv(rows)
    else:
        n_foreign = sum(row.is_foreign for row in rows)
        out.print(f"{title(session.record)}: {len(rows) - n_foreign} attempts")
        print_foreign(n_foreign)
        print_trials(rows)


def _write_csv(rows: list[Any]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    columns = ("trial", "cell", "state", "val_accuracy", "epochs", "seconds", "attempt", "worker", "reason", "error")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*columns[:3], *names, *columns[3:]])
    for row in rows:
        params = [row.params.get(name, "") for name in names]
        result = [row.value, row.n_epochs, f"{row.seconds:.3f}", row.attempt, row.worker, row.reason, row.error]
        writer.writerow([row.number, row.cell_id, row.state, *params, *result])


def show(
    common: Common,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", min=0, help="Number of the trial.")],
    study: StudyName = None,
    as_json: JsonFlag = False,
) -> None:
    """Show one trial: parameters, curve, error, log, and what its callbacks wrote."""
    from fmnist_optuna.artifacts.folder import kept_files
    from fmnist_optuna.cli.answers import print_json, trial_answer
    from fmnist_optuna.cli.tables import out, percent, print_curve, show_params, title
    from fmnist_optuna.study.leaderboard import read_trial

    session = open_session(common, study)
    row = read_trial(session, trial)
    stored = session.trials.get_trial(row.trial_id)
    files, code = kept_files(session.storage.artifacts, session.trials, stored), stored.user_attrs.get("code")
    curve = session.history.curve(row.trial_id)
    log = session.storage.artifacts.parent / "logs" / f"{row.worker}.log"
    if as_json:
        epochs = [{name: value if value == value else None for name, value in vars(epoch).items()} for epoch in curve]
        log_file = str(log) if log.exists() else None
        answer = {"study": session.record.name, **trial_answer(row), "seed": row.seed, "log": log_file}
        print_json(
            {**answer, "code": code, "files": {name: str(path) for name, path in files.items()}, "curve": epochs}
        )
        return
    out.print(f"trial {row.number} of {title(session.record)}: {row.state}{f', {row.reason}' if row.reason else ''}")
    out.print(f"  {show_params(row.params)}")
    out.print(f"  val accuracy {percent(row.value)}, {row.n_epochs} epochs in {row.seconds:.1f} s, seed {row.seed}")
    attempt = f"attempt {row.attempt} at cell {row.cell_id[:12]} by worker {row.worker}"
    out.print(f"  {'added by another program; it counts for nothing' if row.is_foreign else attempt}")
    if code is not None:
        out.print(f"  model code {code[:12]}")
    if row.error:
        out.print(f"  error: {row.error}", soft_wrap=True)
    if log.exists():
        out.print(f"  log: {log}", soft_wrap=True)
    for name, path in files.items():
        out.print(f"  {name}: {path}", soft_wrap=True)
    if curve:
        print_curve(curve, is_kept=row.state == "COMPLETE")


def best(common: Common, study: StudyName = None, as_json: JsonFlag = False) -> None:
    """Show the winner and its score on the test set."""
    from fmnist_optuna.cli.answers import print_json, winner_answer
    from fmnist_optuna.cli.tables import print_winner
    from fmnist_optuna.results.winner import find_winner

    session = open_session(common, study)
    winner = find_winner(session)
    if as_json:
        print_json(winner_answer(session.record, winner))
    else:
        print_winner(session.record, winner, session.history.counts())


def verify(common: Common, study: StudyName = None, as_json: JsonFlag = False) -> None:
    """Prove that every cell has exactly one result; exit 6 when it has not."""
    from fmnist_optuna.cli.answers import print_json, verification_answer
    from fmnist_optuna.cli.tables import print_verification, title
    from fmnist_optuna.study.verification import verify as verify_study

    session = open_session(common, study)
    verification = verify_study(session.storage, session.trials, session.record.study_id)
    if as_json:
        print_json(verification_answer(verification))
    else:
        print_verification(title(session.record), verification)
    if not verification.ok:
        raise MismatchError(
            f"study {session.record.name}: every cell must have exactly one result, but {verification.n_missing} of "
            f"{verification.n_cells} have none and {len(verification.problems)} problems were found."
        )


def list_(common: Common, as_json: JsonFlag = False) -> None:
    """List the studies of the storage."""
    from fmnist_optuna.cli.answers import print_json, study_answer
    from fmnist_optuna.cli.tables import print_studies
    from fmnist_optuna.ledger.progress import History
    from fmnist_optuna.study.studies import list_studies

    storage = open_storage_of(common)
    histories = [(study, History(storage, study.study_id)) for study in list_studies(storage)]
    if as_json:
        print_json({"studies": [study_answer(study, history.counts()) for study, history in histories]})
    else:
        print_studies([(study, history.counts(), history.best_value()) for study, history in histories])
