"""Storage URLs: what is taken, and what is refused before anything is opened or made."""

from pathlib import Path

import pytest
from psycopg import pq

from fmnist_optuna.cli.options import PASSWORD_IN_URL
from fmnist_optuna.errors import FmnistOptunaError, StorageError, UsageError
from fmnist_optuna.ledger.urls import SECRETS, check_url, mask, parse_url


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///a/b.db", "a/b.db"),
        ("sqlite:////a/b.db", "/a/b.db"),
        ("sqlite+pysqlite:///b.db", "b.db"),
        ("sqlite:///a b/ä=&#+@:.db", "a b/ä=&#+@:.db"),
        ("sqlite:///100%.db", "100%.db"),
        ("sqlite:///a%20b%2525.db", "a b%25.db"),
        ("sqlite:///~/b.db", "/home/ada/b.db"),
        ("sqlite:///a~/~.db", "a~/~.db"),
        ("sqlite:///a$b/$1.db", "a$b/$1.db"),
    ],
)
def test_a_file_is_taken_by_its_path(url: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Percent-encoding is undone once, as in every URL, and ~ is the home folder."""
    monkeypatch.setenv("HOME", "/home/ada")
    parsed = parse_url(url)
    assert (parsed.drivername, parsed.database) == ("sqlite", path)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("sqlite+aiosqlite:///b.db", "without another driver"),
        ("sqlite+pysqlcipher://:key@/b.db", "without another driver"),
        ("sqlite://host/b.db", "three slashes"),
        ("sqlite://:5/b.db", "three slashes"),
        ("sqlite:///file:b.db?mode=memory&uri=true", "without ?"),
        ("sqlite:///b.db?mode=ro", "without ?"),
        ("sqlite:///b.db?", "without ?"),
        ("sqlite:///a?b.db", "without ?"),
        ("sqlite:///file:b.db", "instead of file:"),
        ("sqlite:///FILE::memory:", "instead of file:"),
        (r"sqlite:///C:\studies\b.db", "of this system"),
        ("sqlite:///C:/b.db", "of this system"),
        ("sqlite:///a/", "not a folder"),
        ("sqlite:///a/.", "not a folder"),
        ("sqlite:///~nobody-of-this-name/b.db", "known home folder"),
        ("sqlite:///a/~/b.db", "~ at its beginning alone"),
        ("sqlite:///$HOME/b.db", "without $"),
        ("sqlite:////data/${NAME}/b.db", "without $"),
        ("sqlite:///b.db ", "spaces at its ends"),
        ("sqlite:///a\nb.db", "control characters"),
        ("sqlite:///a%00b.db", "control characters"),
        ("sqlite:///a\0b.db", "control characters"),
        ("sqlite://", "name a database"),
        ("sqlite:///", "name a database"),
        ("sqlite:///:memory:", "name a database"),
        ("sqlite:b.db", "must be sqlite:///FILE or"),
        ("b.db", "must be sqlite:///FILE or"),
        ("", "must be sqlite:///FILE or"),
        ("postgres://u@h/d", "must be sqlite:///FILE or postgresql://"),
        ("mysql://u@h/d", "must be sqlite:///FILE or postgresql://"),
    ],
)
def test_a_url_with_another_meaning_is_refused(url: str, rule: str) -> None:
    """In one line that says what it must be."""
    with pytest.raises(UsageError, match=r"^storage \(--storage\) must ") as refused:
        parse_url(url)
    assert rule in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        "host=db user=ada password=s3cret",
        "host=db user=ada PASSWORD = 's3cret word' port=5432",
        "PGPASSWORD=s3cret postgresql://db/studies",
        "postgresql://ada:s3cret",
        "postgresql://ada:s3cret/studies",
        "postgresql://ada:12s3cret/studies",
        "jdbc:postgresql://db/studies?user=ada&password=s3cret",
        "postgresql//ada:s3cret@db/studies",
    ],
)
def test_no_other_form_shows_its_password(given: str) -> None:
    """Those of libpq and of other programs are refused as well as a URL that lacks its host."""
    with pytest.raises(UsageError, match=r"must be sqlite:///FILE or .*\*\*\*") as refused:
        parse_url(given)
    assert "s3cret" not in str(refused.value)
    assert "word'" not in str(refused.value)


def test_a_password_among_the_parameters_is_hidden() -> None:
    """However it is written; the other parameters are shown."""
    url = parse_url("postgresql://ada:s3cret@db/studies?password=s3cret&PassWord=s3cret&connect_timeout=9")
    assert mask(url) == "postgresql://ada:***@db/studies?PassWord=***&connect_timeout=9&password=***"


def test_whatever_lets_in_is_hidden() -> None:
    """All that libpq itself hides, and the keys that stand for a password; the command line is warned of, too."""
    hidden = {option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.dispchar == b"*"}
    assert hidden <= set(SECRETS)
    for name in (*SECRETS, "SCRAM_Client_Key"):
        given = f"postgresql://ada@db/studies?{name}=s3cret"
        assert mask(parse_url(given)) == f"postgresql://ada@db/studies?{name}=***"
        assert PASSWORD_IN_URL.search(given)
        with pytest.raises(UsageError, match=r"but got 'host=db \w+=\*\*\*'"):
            parse_url(f"host=db {name}=s3cret")


@pytest.mark.parametrize("name", ["a" * 300 + "/b.db", "b" * 300, "b" * 252, "ä" * 125, "a/" * 3000 + "b.db"])
def test_a_name_too_long_is_refused_before_anything_is_made(name: str, tmp_path: Path) -> None:
    """Also where the file itself would fit, but none of those beside it."""
    with pytest.raises(StorageError, match=r"name of at most \d+ bytes|File name too long"):
        check_url(f"sqlite:///{tmp_path}/{name}", create=True)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_storage(tmp_path: Path) -> None:
    """It is there and readable, but no file."""
    with pytest.raises(FmnistOptunaError, match="must be a readable file"):
        check_url(f"sqlite:///{tmp_path}", create=True)
