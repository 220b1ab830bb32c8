"""The studies of a storage in a browser: optuna-dashboard behind a real WSGI server, read-only unless asked."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Any

import optuna_dashboard
import waitress

from fmnist_optuna.errors import FmnistOptunaError, UsageError
from fmnist_optuna.results.address import EVERY_ADDRESS, LOOPBACK, check_address
from fmnist_optuna.results.decoration import decorate
from fmnist_optuna.study.artifacts import DurableStore
from fmnist_optuna.study.claims import Timing
from fmnist_optuna.study.optuna_storage import open_optuna
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.storage import Storage, open_storage
from fmnist_optuna.study.studies import find_study
from fmnist_optuna.work.processes import died, start

READING = ("GET", "HEAD")
N_THREADS = 4  # one slow page of a large study must not hold up the others
REFUSAL = b'{"reason": "read-only: start the dashboard with --writable to change studies"}'
PAGE = "/dashboard"
OF_THE_FILE = ("content-length", "etag", "last-modified")
# The page offers what a read-only server refuses; nothing of it is shown.
CHANGING = ("AddBox", "Delete", "DriveFileRenameOutline", "Edit", "UploadFile")  # icons of its buttons
HIDDEN = "".join(f'button:has([data-testid="{icon}Icon"]) {{ display: none !important; }}' for icon in CHANGING)
HEAD_END = b"</head>"

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


def make_application(storage: Storage, is_writable: bool = False) -> Application:
    """optuna-dashboard over an open storage and its artifacts.

    Args:
        is_writable: Whether studies may be changed and deleted by whoever reaches the address.
    """
    store = DurableStore(storage.artifacts)
    application: Application = optuna_dashboard.wsgi(open_optuna(storage), artifact_store=store)
    return application if is_writable else ReadOnly(application)


class ReadOnly:
    """Lets GET and HEAD through; everything else is answered 405, and the page does not offer it."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        if environ["REQUEST_METHOD"] not in READING:
            headers = [("Content-Type", "application/json"), ("Allow", ", ".join(READING))]
            start_response("405 Method Not Allowed", [*headers, ("Content-Length", str(len(REFUSAL)))])
            return [REFUSAL]
        if environ["PATH_INFO"].startswith(PAGE):
            return self._tidy(environ, start_response)
        return self._application(environ, start_response)

    def _tidy(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        answered: list[Any] = []
        body = self._application(environ, lambda *answer: answered.extend(answer))
        page = b"".join(body).replace(HEAD_END, f"<style>{HIDDEN}</style>".encode() + HEAD_END, 1)
        status, headers, *_ = answered
        kept = [(name, value) for name, value in headers if name.lower() not in OF_THE_FILE]
        start_response(status, [*kept, ("Content-Length", str(len(page)))])
        return [page]


class Dashboard:
    """A server that listens.

    Args:
        host: Address to bind to; 127.0.0.1 is reached from this machine alone.
        port: 0 for any that is free.

    Raises:
        UsageError: The port is taken, or the host is none of ours.
    """

    def __init__(self, application: Application, host: str, port: int) -> None:
        number = check_address(host, port)
        try:
            self._server = waitress.create_server(application, host=number, port=port, threads=N_THREADS, ident=None)
        except OSError as error:
            raise UsageError(
                f"--host and --port must be free to listen at, but {host}:{port}: {error.strerror or error}; "
                "--port 0 takes any free one."
            ) from error
        self.host, self.port = host, int(self._server.effective_port)

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        host = LOOPBACK if self.host in (EVERY_ADDRESS, "::", "*") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}{PAGE}"

    def serve(self) -> None:
        """Answer requests until `close`, or until KeyboardInterrupt, which is its proper end."""
        try:
            self._server.run()
        finally:
            self.close()

    def close(self) -> None:
        """Listen no more."""
        self._server.close()


class DashboardProcess:
    """A read-only dashboard in a process of its own, beside a run; it ends with this process, however that ends.

    Args:
        storage: URL, with its password if any.
        study_name: Of the study that gets its note and figures at the start.
        host: Address to bind to.
        port: 0 for any that is free.

    Raises:
        UsageError: The port is taken.
        WorkerFailedError: The process died.
    """

    def __init__(self, storage: str, study_name: str, host: str, port: int) -> None:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        self._process = start(_serve_beside, (sender, storage, study_name, host, port), name="dashboard")
        sender.close()
        try:
            answer = receiver.recv()
        except (EOFError, OSError):
            raise died("The start of the dashboard", self._process) from None
        finally:
            receiver.close()
        if isinstance(answer, FmnistOptunaError):
            self._process.join()
            raise answer
        self.address: str = answer

    def close(self) -> None:
        """End it."""
        self._process.kill()  # it only reads
        self._process.join()


def _serve_beside(sender: Connection, storage: str, study_name: str, host: str, port: int) -> None:
    from fmnist_optuna.work.training_process import watch_parent  # and with it TensorFlow, which a child has

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the run ends us when it is done
    watch_parent(lambda: os._exit(0))
    try:
        opened = open_storage(storage)
        server = Dashboard(make_application(opened), host, port)
    except FmnistOptunaError as error:
        sender.send(error)
        return
    sender.send(server.address)
    sender.close()
    decorate(Session(opened, find_study(opened, study_name), Timing(), "dashboard"))
    server.serve()
