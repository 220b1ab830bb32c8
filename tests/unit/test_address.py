"""Where a server may listen, checked before it does."""

import socket
from collections.abc import Iterator

import pytest

from fmnist_optuna.errors import UsageError
from fmnist_optuna.pages.address import check_address


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of 127.0.0.1 that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("host", "number"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("*", "0.0.0.0"), ("0.0.0.0", "0.0.0.0")],
)
def test_an_address_of_this_machine_is_taken(host: str, number: str) -> None:
    """By name or number; a name that has two is the one of IPv4."""
    assert check_address(host, 0) == number


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_address_of_ipv6_is_taken(host: str) -> None:
    """With the brackets of a link or without."""
    assert check_address(host, 0) == "::1"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "256.1.1.1",
        "1.2.3",
        "127.1",
        "0x7f.1",
        "203.0.113.7",
        "255.255.255.255",
        "a b",
        "[",
        "x" * 300,
        "a..b",
        "fe80::1",
        "::1%nowhere",
    ],
)
def test_any_other_address_is_refused_in_one_line(host: str) -> None:
    """Malformed, of another machine, or empty, which could mean here alone as well as everywhere."""
    with pytest.raises(UsageError, match=r"^--host must be an address of this machine") as refused:
        check_address(host, 0)
    assert "\n" not in str(refused.value)


def test_a_port_that_is_taken_is_refused(taken_port: int) -> None:
    """It says which, and how to get another."""
    with pytest.raises(UsageError, match=f"127.0.0.1:{taken_port}.*--port 0 takes any free one"):
        check_address("127.0.0.1", taken_port)
