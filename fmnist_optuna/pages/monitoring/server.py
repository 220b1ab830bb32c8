"""A small server beside a worker, in a thread of its process: it answers a monitor, and nobody else."""

import logging
import threading

import waitress

from fmnist_optuna.pages.access import is_loopback, make_access
from fmnist_optuna.pages.address import check_address, describe_taken
from fmnist_optuna.pages.monitoring.page import METRICS, MonitoringPages
from fmnist_optuna.pages.monitoring.worker import WorkerMetrics

OPTIONS = "--metrics-"  # begins the names of the options that say where
MAX_HEADER_BYTES = 16 * 2**10
MAX_BODY_BYTES = 2**10  # what reads has no body
MAX_CONNECTIONS = 20  # a monitor has one


class MonitoringServer:
    """A server that listens, and answers from then on.

    Args:
        metrics: Of the worker.
        host: Address to bind to; 127.0.0.1 is reached from this machine alone.
        port: 0 for any that is free.

    Raises:
        UsageError: The port is taken, or the host is none of ours.
    """

    def __init__(self, metrics: WorkerMetrics, host: str, port: int) -> None:
        number = check_address(host, port, OPTIONS)
        hosts = make_access(host, (), None, is_writable=False).hosts if is_loopback(host) else None
        pages = MonitoringPages(metrics.registry, metrics.find_trouble, hosts)
        try:
            self._server = waitress.create_server(
                pages, host=number, port=port, threads=1, ident=None, connection_limit=MAX_CONNECTIONS,
                max_request_header_size=MAX_HEADER_BYTES, max_request_body_size=MAX_BODY_BYTES,
            )  # fmt: skip
        except OSError as error:
            raise describe_taken(host, port, error, OPTIONS) from error
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # two monitors at once are no news
        shown = f"[{number}]" if ":" in number else number
        self.address = f"http://{shown}:{int(self._server.effective_port)}{METRICS}"
        threading.Thread(target=self._server.run, name="metrics", daemon=True).start()
