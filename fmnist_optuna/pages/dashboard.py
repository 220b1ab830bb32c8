"""The studies of a storage in a browser: optuna-dashboard behind a real WSGI server and a guard."""

import functools
import logging
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import optuna_dashboard
import waitress

from fmnist_optuna.bridge.storage import open_impatient
from fmnist_optuna.bridge.stores import SharedStore
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.pages.access import Access
from fmnist_optuna.pages.address import EVERY_ADDRESS, LOOPBACK, check_address, describe_taken
from fmnist_optuna.pages.channel import Channel
from fmnist_optuna.pages.guard import PAGE, ExceptionInfo, Guard, Headers
from fmnist_optuna.pages.monitoring.page import WithMetrics
from fmnist_optuna.pages.monitoring.studies import StudyMetrics

N_THREADS = 4  # one slow page of a large study must not hold up the others
MAX_HEADER_BYTES = 32 * 2**10
MAX_BODY_BYTES = 64 * 2**20  # of a request: an uploaded artifact of 48 MB, as the page encodes it
MAX_BODY_BYTES_READ_ONLY = 2**10  # what reads has no body
OF_THE_FILE = ("content-length", "etag", "last-modified")
# The page offers what a read-only server refuses; nothing of it is shown.
CHANGING_ICONS = ("AddBox", "Delete", "DriveFileRenameOutline", "Edit", "UploadFile")
HIDDEN = "".join(f'button:has([data-testid="{icon}Icon"]) {{ display: none !important; }}' for icon in CHANGING_ICONS)
HEAD_END = b"</head>"


def make_application(storage: Storage, access: Access, study: str | None = None) -> Guard:
    """optuna-dashboard over an open storage and its artifacts, and `/metrics`, for those whom `access` lets in.

    Args:
        study: Name of the only study whose numbers are in `/metrics`; None for all.
    """
    metrics = StudyMetrics(storage, study)
    application: WSGIApplication = optuna_dashboard.wsgi(
        open_impatient(storage), artifact_store=SharedStore(storage.impatient())
    )
    pages = application if access.is_writable else Tidied(application)
    return Guard(WithMetrics(pages, metrics.registry), access, metrics.find_trouble)


class Tidied:
    """The pages without the buttons that a read-only server refuses."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        if not environ["PATH_INFO"].startswith(PAGE):
            return self._application(environ, start_response)
        answered: list[tuple[str, Headers]] = []

        def keep(status: str, headers: Headers, exc_info: ExceptionInfo | None = None, /) -> Callable[[bytes], object]:
            answered.append((status, headers))
            return written.append

        written: list[bytes] = []  # by the way that WSGI has for old applications
        body = self._application(environ, keep)
        page = b"".join([*written, *body]).replace(HEAD_END, f"<style>{HIDDEN}</style>".encode() + HEAD_END, 1)
        status, headers = answered[-1]
        kept = [(name, value) for name, value in headers if name.lower() not in OF_THE_FILE]
        start_response(status, [*kept, ("Content-Length", str(len(page)))])
        return [page]


class Dashboard:
    """A server that listens.

    Args:
        host: Address to bind to; 127.0.0.1 is reached from this machine alone.
        port: 0 for any that is free.
        is_writable: Whether requests may bring something.

    Raises:
        UsageError: The port is taken, or the host is none of ours.
    """

    def __init__(self, application: Guard, host: str, port: int, *, is_writable: bool = False) -> None:
        number = check_address(host, port)
        try:
            self._server = waitress.create_server(
                application, host=number, port=port, threads=N_THREADS, ident=None,
                max_request_header_size=MAX_HEADER_BYTES,
                max_request_body_size=MAX_BODY_BYTES if is_writable else MAX_BODY_BYTES_READ_ONLY,
            )  # fmt: skip
        except OSError as error:
            raise describe_taken(host, port, error) from error
        self._server.channel_class = functools.partial(Channel, application.look)
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a page that asks for five things is no news
        self.host, self.port = host, int(self._server.effective_port)

    @property
    def address(self) -> str:
        """Where a browser on this machine finds it."""
        host = {EVERY_ADDRESS: LOOPBACK, "*": LOOPBACK, "::": "::1"}.get(self.host.strip("[]"), self.host.strip("[]"))
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
