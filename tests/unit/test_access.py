"""Who may use a dashboard: who needs a token, which names it answers to, which tokens are good."""

from pathlib import Path

import pytest

from fmnist_optuna.errors import UsageError
from fmnist_optuna.pages.access import make_access
from fmnist_optuna.pages.address import LOOPBACK
from fmnist_optuna.settings import DASHBOARD_TOKEN_FILE, read_dashboard_token

TOKEN = "an-example-token-0123456789"


@pytest.mark.parametrize(
    ("host", "is_writable", "has_token"),
    [("127.0.0.1", False, False), ("localhost", False, False), ("::1", False, False), ("127.0.0.9", False, False),
     ("127.0.0.1", True, True), ("0.0.0.0", False, True), ("::", False, True), ("192.168.1.2", False, True),
     ("studies.example", False, True)],
)  # fmt: skip
def test_who_needs_a_token(host: str, is_writable: bool, has_token: bool) -> None:
    """Whoever may change, and whoever comes from elsewhere; a new one each time, and never shown."""
    first, second = (make_access(host, [], None, is_writable) for _ in range(2))
    assert (first.token is not None) == has_token
    assert first.token is None or (first.token != second.token and len(first.token) >= 32)
    assert first.token is None or first.token not in repr(first)
    assert make_access(host, [], TOKEN, is_writable).token == TOKEN


@pytest.mark.parametrize(
    "name", ["", "*", "http://a", "a:80", "a/b", "a b", "u@a", "[::1", "::g", "a.", "b\u00fccher.de"]
)
def test_an_allowed_host_is_a_name(name: str) -> None:
    """Anything else is refused, with what came."""
    with pytest.raises(UsageError, match="--allow-host must be a host name") as raised:
        make_access(LOOPBACK, [name], None, is_writable=False)
    assert repr(name) in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"short", b"a" * 40, TOKEN.encode() + b"\n" + TOKEN.encode(), b"with spaces " * 4, b"\xff" * 40],
)
def test_a_weak_token_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is named by its file's variable, and not repeated."""
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(UsageError, match=DASHBOARD_TOKEN_FILE) as raised:
        read_dashboard_token({DASHBOARD_TOKEN_FILE: str(tmp_path / "token")})
    assert not content.strip() or content.decode("latin-1").strip() not in str(raised.value)


def test_the_token_file_is_read(tmp_path: Path) -> None:
    """Its one line; a variable with the token itself in place of a file does not show it."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_dashboard_token({DASHBOARD_TOKEN_FILE: str(tmp_path / "token")}) == TOKEN
    assert read_dashboard_token({}) is None
    with pytest.raises(UsageError, match="readable file") as raised:
        read_dashboard_token({DASHBOARD_TOKEN_FILE: TOKEN})
    assert TOKEN not in str(raised.value)
