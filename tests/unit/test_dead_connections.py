"""Connections that the network has forgotten: how soon they are given up, and that what is said then is an outage."""

from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event, make_url

from fmnist_optuna.ledger.engine import make_engine
from fmnist_optuna.ledger.outages import is_outage, is_permanent
from fmnist_optuna.ledger.records import Timing

URL = "postgresql+psycopg://tester@db.invalid/studies"  # a name that never has an address (RFC 2606)
# As libpq and psycopg word them, with what the kernel says.
SAID_BY_A_NETWORK = [
    'connection failed: connection to server at "198.18.77.1", port 5432 failed: No route to host',
    'connection failed: connection to server at "198.18.77.1", port 5432 failed: Network is unreachable',
    'connection failed: connection to server at "198.18.77.1", port 5432 failed: Connection timed out',
    'connection failed: connection to server at "198.18.77.1", port 5432 failed: Connection refused',
    "connection timeout expired",
    "failed to resolve host 'db.invalid': [Errno -3] Temporary failure in name resolution",
    "failed to resolve host 'db.invalid': [Errno -2] Name or service not known",
    "consuming input failed: could not receive data from server: Connection timed out",
    "consuming input failed: could not receive data from server: No route to host",
    "consuming input failed: SSL SYSCALL error: Connection reset by peer",
]


def connecting(engine: Engine, error: Exception) -> tuple[dict[str, Any], Exception]:
    """What the driver is asked for when a connection is made, and what comes when it says this."""
    asked: dict[str, Any] = {}

    def fail(_dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
        asked.update(options)
        raise error

    event.listen(engine, "do_connect", fail)
    with pytest.raises(Exception) as raised, engine.connect():  # noqa: PT011 - it is looked at
        pass
    return asked, raised.value


def options_of(url: str, lease_seconds: float) -> dict[str, Any]:
    """Of the connections of an engine."""
    return connecting(make_engine(make_url(url), lease_seconds, create=False), InterruptedError())[0]


@pytest.mark.parametrize(
    ("lease_seconds", "expected"),
    [(3.0, (2, 1, 3, 3000)), (12.0, (2, 1, 3, 4000)), (60.0, (10, 3, 3, 20_000)), (600.0, (100, 33, 3, 200_000))],
)
def test_a_silent_connection_is_given_up_within_the_lease(lease_seconds: float, expected: tuple[int, ...]) -> None:
    """After a third of it, but not before TCP has sent twice more; an answer that never comes as well."""
    options = options_of(URL, lease_seconds)
    names = ("keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
    assert tuple(options[name] for name in names) == expected
    assert (options["keepalives"], options["connect_timeout"]) == (1, 10)


@pytest.mark.parametrize("lease_seconds", [12.0, 60.0, 3600.0])
def test_a_holder_that_was_forgotten_can_still_renew(lease_seconds: float) -> None:
    """It renewed a while ago, waits for an answer or an acknowledgement, and has a third of the lease left."""
    options, timing = options_of(URL, lease_seconds), Timing.for_lease(lease_seconds)
    answer = options["keepalives_idle"] + options["keepalives_count"] * options["keepalives_interval"]
    silent = max(answer, options["tcp_user_timeout"] / 1000)
    assert timing.renewal_seconds + silent <= lease_seconds * 2 / 3


def test_what_the_url_says_of_its_connections_holds() -> None:
    """Who has an odd network knows better; the rest stays as it is."""
    options = options_of(f"{URL}?tcp_user_timeout=90000&keepalives_idle=45&connect_timeout=30", 60.0)
    assert (options["tcp_user_timeout"], options["keepalives_idle"], options["connect_timeout"]) == (
        "90000", "45", "30",
    )  # fmt: skip
    assert (options["keepalives_interval"], options["keepalives_count"]) == (3, 3)


@pytest.mark.parametrize("text", SAID_BY_A_NETWORK)
def test_what_a_network_says_is_an_outage(text: str) -> None:
    """No route, no name, no answer: all of them are waited for, as all of them may pass."""
    engine = make_engine(make_url(URL), 60.0, create=False)
    _, raised = connecting(engine, psycopg.OperationalError(text))
    assert (is_outage(raised), is_permanent(raised)) == (True, False)
