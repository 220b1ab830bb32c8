"""Who may use the dashboard: the names it answers to, its token, and what becomes of wrong ones.

Knows no web server and no storage; `pages.guard` asks it about every request.
"""

import hmac
import ipaddress
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from fmnist_optuna.errors import UsageError
from fmnist_optuna.pages.address import LOOPBACK

LOOPBACK_NAMES = ("localhost", LOOPBACK, "[::1]")
AUTHORITY = re.compile(r"([a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII | re.IGNORECASE)
N_WRONG_TOKENS = 5  # of any clients together, within WRONG_TOKENS_SECONDS; then none is looked at for as long
WRONG_TOKENS_SECONDS = 30.0


@dataclass(frozen=True)
class Access:
    """What a dashboard lets in.

    Args:
        hosts: Lower-case names that a Host header may have; an IPv6 address in brackets and in its shortest form.
        token: What a visitor must know; None lets in everybody who reaches the address.
        is_writable: Whether studies may be changed and deleted.
    """

    hosts: frozenset[str]
    token: str | None = field(default=None, repr=False)
    is_writable: bool = False


def make_access(host: str, allowed: Sequence[str], token: str | None, is_writable: bool) -> Access:
    """The access to a server at an address; one that others reach, or that can change studies, has a token.

    Args:
        host: Address to bind to.
        allowed: Further names under which it is reached.
        token: Of the user's own choice; None for a new one where one is needed.

    Raises:
        UsageError: A name is none.
    """
    hosts = {*LOOPBACK_NAMES, *map(_check_name, allowed)}
    if name := _normalize(f"[{host.strip('[]')}]" if ":" in host else host):
        hosts.add(name)
    if token is None and (is_writable or not is_loopback(host)):
        token = secrets.token_urlsafe(32)
    return Access(frozenset(hosts), token, is_writable)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; of a name other than localhost that is not known."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def split_authority(text: str) -> tuple[str, str] | None:
    """Name and port ("" without one) of a Host header; None of what is no name, with a port or without."""
    match = AUTHORITY.fullmatch(text)
    name = match and _normalize(match[1])
    return (name, match[2] or "") if match and name else None


def _check_name(given: str) -> str:
    authority = split_authority(f"[{given}]" if given.count(":") > 1 and "[" not in given else given)
    if authority is None or authority[1]:
        raise UsageError(
            f"--allow-host must be a host name or an address, without http://, port or path, but got {given!r}."
        )
    return authority[0]


def _normalize(name: str) -> str | None:
    """A name as it is compared; None where brackets hold no IPv6 address."""
    if not name.startswith("["):
        return name.lower()
    try:
        return f"[{ipaddress.IPv6Address(name[1:-1]).compressed}]"
    except ValueError:
        return None


class TokenCheck:
    """Compares tokens in constant time; after several wrong ones none is looked at for a while.

    Those who are in by a cookie are not asked again, so guessing by somebody else does not shut them out.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._wrong: deque[float] = deque(maxlen=N_WRONG_TOKENS)  # when they came, by the monotonic clock
        self._lock = threading.Lock()

    def is_right(self, given: str) -> bool | None:
        """Whether a token is the right one; None when it was not looked at."""
        with self._lock:
            if self.seconds_to_wait() > 0:
                return None
            if hmac.compare_digest(given.encode(errors="replace"), self._token):
                return True
            self._wrong.append(time.monotonic())
            return False

    def seconds_to_wait(self) -> float:
        """How long no token is looked at from now on; 0.0 when one would be."""
        if len(self._wrong) < N_WRONG_TOKENS:
            return 0.0
        return max(0.0, self._wrong[0] + WRONG_TOKENS_SECONDS - time.monotonic())
