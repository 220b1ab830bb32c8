"""`report` and `dashboard`: the study on one page, and in a browser while it runs."""

import logging
import signal
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from fmnist_optuna.cli.options import Common, DataDir, StudyName, command, say
from fmnist_optuna.cli.reading import open_session, open_storage_of

PORT = 8080
Host = Annotated[
    str | None,
    typer.Option(
        "--host", show_default="127.0.0.1", help="Address to listen at; the default is reached from here alone."
    ),
]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any free one.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    command(app, "report")(report)
    command(app, "dashboard")(dashboard)


def report(
    common: Common,
    study: StudyName = None,
    out: Annotated[
        Path | None, typer.Option("--out", show_default="STUDY-report.html", help="The file, which is replaced.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Write one HTML page that tells the story of a study; it opens from disk, offline."""
    from fmnist_optuna.results.report import default_file, write_report

    session = open_session(common, study)
    file = out or default_file(session.record.name)
    write_report(session, file, data_dir)
    print(file)
    say(f"Open it in a browser: {file.absolute().as_uri()}")


def dashboard(
    common: Common,
    study: StudyName = None,
    host: Host = None,
    port: Port = PORT,
    is_writable: Annotated[bool, typer.Option("--writable", help="Let the page change and delete studies.")] = False,
    is_opened: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Show the studies of the storage in a browser, by optuna-dashboard, until Ctrl-C; read-only."""
    from fmnist_optuna.results.address import LOOPBACK, check_address
    from fmnist_optuna.results.dashboard import Dashboard, make_application

    host = LOOPBACK if host is None else host  # an empty one is refused, as it may mean here alone or everywhere
    check_address(host, port)
    session = open_session(common, study) if study is not None else None
    storage = open_storage_of(common) if session is None else session.storage
    server = Dashboard(make_application(storage, is_writable), host, port)
    address = server.address if session is None else f"{server.address}/studies/{session.record.study_id}"
    print(address, flush=True)
    say(
        f"{'WRITABLE' if is_writable else 'Read-only'}; Ctrl-C stops it.",
        logging.WARNING if is_writable else logging.INFO,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if is_opened:
        webbrowser.open(address)
    server.serve()
