"""`report` and `dashboard`: the study on one page, and in a browser while it runs."""

import contextlib
import logging
import signal
import tempfile
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from fmnist_optuna.cli.commands import command, make_group
from fmnist_optuna.cli.options import Common, DataDir, StudyName, open_session, open_storage_of
from fmnist_optuna.cli.streams import say
from fmnist_optuna.settings import DASHBOARD_TOKEN_FILE, read_dashboard_token

PORT = 8080
Host = Annotated[
    str | None,
    typer.Option(
        "--host", show_default="127.0.0.1", help="Address to listen at; the default is reached from here alone."
    ),
]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any free one.")]


group = make_group()


@command(group, "report")
def report(
    common: Common,
    study: StudyName = None,
    out: Annotated[
        Path | None, typer.Option("--out", show_default="STUDY-report.html", help="The file, which is replaced.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Write one HTML page that tells the story of a study; it opens from disk, offline."""
    from fmnist_optuna.pages.report import default_file, write_report  # loads plotly, Optuna, SQLAlchemy and Jinja

    session = open_session(common, study)
    file = out or default_file(session.record.name)
    write_report(session, file, data_dir)
    print(file)
    say(f"Open it in a browser: {file.absolute().as_uri()}")


@command(group, "dashboard")
def dashboard(
    common: Common,
    study: StudyName = None,
    host: Host = None,
    port: Port = PORT,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A further name under which it is reached; repeatable."),
    ] = None,
    is_writable: Annotated[bool, typer.Option("--writable", help="Let the page change and delete studies.")] = False,
    is_opened: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Show the studies of the storage in a browser, by optuna-dashboard, until Ctrl-C; read-only.

    With --writable, or a --host that others reach, it asks for a token, and prints a link that has it.

    FMNIST_OPTUNA_DASHBOARD_TOKEN_FILE names a file with a token of your own, which is then not printed.
    """
    # These load optuna-dashboard, Optuna, SQLAlchemy and waitress.
    from fmnist_optuna.pages.access import make_access
    from fmnist_optuna.pages.address import LOOPBACK, check_address
    from fmnist_optuna.pages.dashboard import Dashboard, make_application

    host = LOOPBACK if host is None else host  # an empty one is refused, as it may mean here alone or everywhere
    check_address(host, port)
    token = read_dashboard_token()
    access = make_access(host, allow_host or (), token, is_writable)
    session = open_session(common, study) if study is not None else None
    storage = open_storage_of(common) if session is None else session.storage
    server = Dashboard(make_application(storage, access, study), host, port, is_writable=is_writable)
    address = server.address if session is None else f"{server.address}/studies/{session.record.study_id}"
    link = address if access.token is None else f"{address}?token={access.token}"
    # Logs may keep what is printed, and whoever named a file knows its token.
    print(link if token is None else address, flush=True)
    _say_how_to_use_it(is_writable, has_token_file=token is not None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _opened(link) if is_opened else contextlib.nullcontext():
        server.serve()


def _say_how_to_use_it(is_writable: bool, has_token_file: bool) -> None:
    kind, level = ("WRITABLE", logging.WARNING) if is_writable else ("Read-only", logging.INFO)
    say(f"{kind}; Ctrl-C stops it.", level)
    if has_token_file:
        say(f"Add ?token=... to it, with the token of the file that {DASHBOARD_TOKEN_FILE} names.", logging.INFO)


@contextlib.contextmanager
def _opened(link: str) -> Iterator[None]:
    """Open a link in the browser through a file, as the arguments of a browser can be read in the process list."""
    with tempfile.TemporaryDirectory(prefix="fmnist-optuna-") as folder:  # for its owner alone
        file = Path(folder) / "dashboard.html"
        file.write_text(f'<meta http-equiv="refresh" content="0; url={link}">', encoding="utf-8")
        webbrowser.open(file.as_uri())
        yield
