"""A dashboard beside a run, in a process of its own."""

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection

from fmnist_optuna.errors import FmnistOptunaError
from fmnist_optuna.ledger.connecting import open_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.pages.access import make_access
from fmnist_optuna.pages.dashboard import Dashboard, make_application
from fmnist_optuna.pages.notes import decorate
from fmnist_optuna.processes.children import died, start
from fmnist_optuna.processes.parent import watch_parent
from fmnist_optuna.settings import read_dashboard_token
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study


class DashboardProcess:
    """A read-only dashboard in a process of its own, beside a run; it ends with this process, however that ends.

    With a token file in the environment it asks for that token, which is no part of the address.

    Args:
        storage: URL, with its password if any.
        study_name: Of the study that gets its note and figures at the start.
        host: Address to bind to.
        port: 0 for any that is free.

    Raises:
        UsageError: The port is taken, or the token file is none.
        WorkerFailedError: The process died.
    """

    def __init__(self, storage: StorageOptions, study_name: str, host: str, port: int) -> None:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        arguments = sender, storage, study_name, host, port
        self._process = start(_serve_beside, arguments, name="dashboard", is_warm=False)  # it needs no TensorFlow
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


def _serve_beside(sender: Connection, storage: StorageOptions, study_name: str, host: str, port: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the run ends us when it is done
    watch_parent(lambda: os._exit(0))
    try:
        opened = open_storage(storage)
        access = make_access(host, (), read_dashboard_token(), is_writable=False)
        server = Dashboard(make_application(opened, access), host, port)
    except FmnistOptunaError as error:
        sender.send(error)
        return
    sender.send(server.address)
    sender.close()
    decorate(Session(opened, find_study(opened, study_name), "dashboard"))
    server.serve()
