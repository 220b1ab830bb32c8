"""How `worker` is watched by other programs: by a monitor that asks it, and by whoever follows its events."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from fmnist_optuna.cli.streams import say
from fmnist_optuna.events.file import recording
from fmnist_optuna.log import listening

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
