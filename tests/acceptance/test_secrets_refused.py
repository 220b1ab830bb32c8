"""Storages that cannot be used are refused without a word of the password in their URLs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from awkward_password import FILE, HALVES, JSON_LOGS, PASSWORD, VARIABLE, has_password, show
from shell import Answer, Shell, two_at_a_time
from sqlalchemy import URL

pytestmark = pytest.mark.more


@dataclass(frozen=True)
class Fault:
    """A storage that cannot be used.

    Args:
        make: From the URL that works to the text that does not.
        code: Exit status.
        words: What the error says.
    """

    make: Callable[[URL], str]
    code: int
    words: str


def typed(url: URL, password: str = PASSWORD, tail: str = "") -> str:
    """A URL as it is typed, the password unencoded."""
    return f"postgresql://{url.username}:{password}@{url.host}:{url.port}/{url.database}{tail}"


FAULTS = {
    "unreachable": Fault(lambda url: show(url.set(port=1)), 5, "refused"),
    "unreachable, in the query": Fault(
        lambda url: f"postgresql://127.0.0.1:1/x?user=u&password={quote(PASSWORD, safe='')}", 5, "refused"
    ),
    "wrong password": Fault(lambda url: show(url.set(password=PASSWORD[::-1] + PASSWORD)), 5, "authentication failed"),
    "wrong database": Fault(lambda url: show(url.set(database="nowhere")), 5, "does not exist"),
    "unknown parameter": Fault(lambda url: f"{show(url)}?colour=red", 5, "colour"),
    "another database": Fault(lambda url: show(url.set(drivername="mysql")), 2, "must be sqlite:///FILE"),
    "no colon": Fault(lambda url: show(url).replace("://", "//"), 2, "must be sqlite:///FILE"),
    "no database": Fault(lambda url: show(url).rpartition("/")[0], 2, "without one"),
    "an unencoded @": Fault(lambda url: typed(url, "{}@{}".format(*HALVES)), 2, "%40"),
    "an unencoded @ and /": Fault(lambda url: typed(url, "{}@x/{}".format(*HALVES)), 2, "%40"),
    "nothing encoded": Fault(typed, 2, "must be sqlite:///FILE"),
    "no colon, in the query": Fault(
        lambda url: f"postgresql//127.0.0.1/x?password={quote(PASSWORD, safe='')}", 2, "must be sqlite:///FILE"
    ),
    "a passphrase": Fault(lambda url: f"{show(url.set(port=1))}?sslpassword={quote(PASSWORD, safe='')}", 5, "refused"),
}
FILES: dict[str, tuple[Callable[[Path, URL], Path | str], str]] = {  # what the variable names, and what the error says
    "a URL for a file": (lambda _folder, url: show(url), "holds a URL itself"),
    "a file in another encoding": (lambda folder, url: write(folder, f"{show(url)}ä".encode("latin-1")), "decode"),
    "two URLs in a file": (lambda folder, url: write(folder, f"{show(url)}\n{show(url)}".encode()), "has 2"),
}


def write(folder: Path, content: bytes) -> Path:
    (folder / "url").write_bytes(content)
    return folder / "url"


@pytest.fixture(scope="module")
def refusals(awkward_url: URL, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """What each storage that cannot be used met, with the traceback."""

    def ask(variable: str, value: str) -> Answer:
        return Shell(tmp_path_factory.mktemp("fault"), {variable: value})("list", *JSON_LOGS)

    values = {name: (VARIABLE, fault.make(awkward_url)) for name, fault in FAULTS.items()}
    for name, (make, _) in FILES.items():
        values[name] = (FILE, str(make(tmp_path_factory.mktemp("file"), awkward_url)))
    return two_at_a_time({name: partial(ask, *pair) for name, pair in values.items()})


@pytest.mark.parametrize("name", FAULTS)
def test_an_unusable_storage_is_told_without_the_password(refusals: dict[str, Answer], name: str) -> None:
    """One line of error and, with --debug, a traceback: neither has the password or a part of it."""
    answer, fault = refusals[name], FAULTS[name]
    assert not has_password(answer.stdout + answer.stderr)
    assert (answer.code, answer.stdout, len(answer.errors)) == (fault.code, "", 1), answer.stderr
    assert fault.words in answer.errors[0]
    assert "Traceback (most recent call last)" in answer.stderr


@pytest.mark.parametrize("name", list(FILES))
def test_an_unusable_storage_file_is_told_without_the_password(refusals: dict[str, Answer], name: str) -> None:
    """What the file holds is not repeated, nor a URL that was taken for its name."""
    answer = refusals[name]
    assert not has_password(answer.stdout + answer.stderr)
    assert (answer.stdout, len(answer.errors)) == ("", 1)
    assert FILES[name][1] in answer.errors[0]
