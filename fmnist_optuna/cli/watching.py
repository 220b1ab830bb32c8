"""How commands are watched by other programs: by a monitor that asks a worker, and by whoever follows the events."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from fmnist_optuna.cli.streams import say
from fmnist_optuna.errors import UsageError
from fmnist_optuna.events.descriptors import is_stdout
from fmnist_optuna.events.file import recording
from fmnist_optuna.log import listening

LOOPBACK = "127.0.0.1"
WATCHING = "For a monitor"
MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        min=0,
        max=65535,
        help="Answer at this port: /metrics, /healthz; 0 takes any free one.",
        rich_help_panel=WATCHING,
    ),
]
MetricsHost = Annotated[
    str,
    typer.Option(
        "--metrics-host",
        help="Address of --metrics-port; the default is reached from here alone.",
        rich_help_panel=WATCHING,
    ),
]


def check_metrics_host(host: str, port: int | None) -> None:
    """Refuse an address at which nothing would answer.

    Raises:
        UsageError: There is no port with it.
    """
    if port is None and host != LOOPBACK:
        raise UsageError(f"--metrics-host must come with --metrics-port, but {host} is given without a port.")


def give_stdout(events: str | None, as_json: bool) -> None:
    """Give stdout to one thing: where events go there, the answer goes to stderr.

    Raises:
        UsageError: The answer is to be JSON, which nobody could tell from the events.
    """
    if not is_stdout(events):
        return
    if as_json:
        raise UsageError(
            f"--events must name a file where --json is given, but got {events}: both would write to stdout."
        )
    from fmnist_optuna.cli.console import answer_on_stderr  # loads rich

    answer_on_stderr()


@contextmanager
def watched(study: str, host: str, port: int | None, events: str | None) -> Iterator[None]:
    """Within this block, answer a monitor at an address, and append what happens where the events are to go.

    Args:
        port: None for no answer.
        events: None for nowhere.

    Raises:
        UsageError: Nobody can listen there, or write there.
    """
    from fmnist_optuna.events.relay import event_file  # loads multiprocessing

    with _answering(study, host, port), event_file(events) as file, recording(file):
        yield


@contextmanager
def _answering(study: str, host: str, port: int | None) -> Iterator[None]:
    if port is None:
        yield
        return
    # These load waitress and prometheus_client.
    from fmnist_optuna.pages.monitoring.server import MonitoringServer
    from fmnist_optuna.pages.monitoring.worker import WorkerMetrics

    metrics = WorkerMetrics(study)
    server = MonitoringServer(metrics, host, port)
    say(f"metrics: {server.address}")
    with listening(metrics.hear):
        yield
