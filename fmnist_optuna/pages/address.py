"""The address that a server is asked to listen at: checked before anything else happens, and refused in one line."""

import errno
import ipaddress
import re
import socket

from fmnist_optuna.errors import UsageError
from fmnist_optuna.wording import reason_of

LOOPBACK = "127.0.0.1"  # reached from this machine alone
EVERY_ADDRESS = "0.0.0.0"
BROADCAST = "255.255.255.255"
FIRST_FREE_PORT = 1024  # the ports below it are for the administrator


def check_address(host: str, port: int, options: str = "--") -> str:
    """Check that a server of this process may listen at an address, by listening there for an instant.

    Args:
        host: Name or number of an address of this machine; "*" for all of them.
        port: 0 for any that is free.
        options: What the names of the options begin with that say where: "--" of --host and --port.

    Returns:
        The address as a number, of which a name may have several: the one of IPv4 is preferred, as browsers expect it.

    Raises:
        UsageError: No such address, none of this machine, or the port is taken or not permitted.
    """
    number = _resolve(host, options)
    family = socket.AF_INET6 if ":" in number else socket.AF_INET
    try:
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            listener.bind((number, port))
            listener.listen()
    except PermissionError as error:
        raise UsageError(
            f"{options}port must be one that this user may listen at, from {FIRST_FREE_PORT} on, but {port}: "
            f"{error.strerror}."
        ) from error
    except OSError as error:
        # A link-local address without its zone is invalid, a zone that no interface has cannot be resolved.
        if isinstance(error, socket.gaierror) or error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL):
            raise _no_address(host, options) from error
        raise describe_taken(host, port, error, options) from error
    return number


def describe_taken(host: str, port: int, error: OSError, options: str = "--") -> UsageError:
    """The error of an address at which nobody can listen now.

    Args:
        options: As `check_address` has it.
    """
    return UsageError(
        f"{options}host and {options}port must be free to listen at, but {host}:{port}: {reason_of(error)}; "
        f"{options}port 0 takes any free one."
    )


def _resolve(host: str, options: str) -> str:
    """A number from a name, or the number itself."""
    if host == "*":
        return EVERY_ADDRESS
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        pass
    else:
        if address.is_multicast or bare == BROADCAST:  # which can be bound, but never connected to
            raise _no_address(host, options)
        return str(address)
    # Numbers are not looked up as names: resolvers ask the network for them, and take 127.1 for 127.0.0.1.
    is_number = ":" in bare or re.fullmatch(r"\d+|0x[\da-f]*", bare.lower().rpartition(".")[2])
    if not bare or is_number:
        raise _no_address(host, options)
    try:
        found = socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _no_address(host, options) from error
    numbers = [str(address[0]) for _, _, _, _, address in found]
    return min(numbers, key=lambda number: ":" in number)


def _no_address(host: str, options: str) -> UsageError:
    return UsageError(
        f"{options}host must be an address of this machine, such as 127.0.0.1 or 0.0.0.0, but got {host!r}."
    )
