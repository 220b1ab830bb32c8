"""Waiting out an outage: every promise of `study.retry`, with a clock that does not run."""

import errno
import logging
import random
import time
from collections.abc import Callable

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    ProgrammingError,
)

from fmnist_optuna.errors import StorageError
from fmnist_optuna.ledger import outages as retry
from fmnist_optuna.ledger.outages import Patience, is_outage, is_permanent, retrying
from fmnist_optuna.log import listening


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    monkeypatch.setattr(Patience, "_sleep", lambda _patience, seconds: clock.sleep(seconds))
    monkeypatch.setattr(random, "uniform", lambda low, high: 1.0)
    return clock


def gone(text: str = "server closed the connection") -> OperationalError:
    return OperationalError("UPDATE cells", {"token": "t"}, Exception(text))


def failing(n_times: int, error: Exception) -> Callable[[], str]:
    """An operation that fails n times and then answers."""
    left = [n_times]

    def operation() -> str:
        if left[0] > 0:
            left[0] -= 1
            raise error
        return "answer"

    return operation


def test_an_outage_beyond_the_patience_is_a_storage_error(clock: Clock) -> None:
    """It names the operation, how long was waited, what the database said, and the next step."""
    with pytest.raises(StorageError) as error:
        Patience(3.0).call(failing(99, gone()), "claim")
    assert clock.naps == [0.1, 0.2, 0.4, 0.8]  # the next, 1.6, would end after 3.1 s
    assert str(error.value) == (
        "The storage must answer, but claim failed for 2 s: server closed the connection; start again when it is back."
    )


def test_a_person_who_gives_up_is_not_kept_waiting() -> None:
    """However long the patience, the sleep ends when it is over."""
    patience = Patience(300.0)
    n_asked = 0

    def is_over() -> bool:
        nonlocal n_asked
        n_asked += 1
        return n_asked > 2

    patience.is_over = is_over
    began = time.monotonic()
    with pytest.raises(StorageError):
        patience.call(failing(99, gone()), "claim")
    assert time.monotonic() - began < 2.0


def test_the_end_of_an_outage_is_told(clock: Clock) -> None:
    """Once, with how long it was waited for; an answer at once is no news."""
    heard: list[tuple[str, object, object]] = []
    with listening(lambda event, fields: heard.append((event, fields["operation"], fields.get("seconds")))):
        Patience(300.0).call(failing(2, gone()), "claim")
        Patience(300.0).call(failing(0, gone()), "renew")
    assert heard == [("storage_outage", "claim", None), ("storage_back", "claim", 0.3)]


def test_without_patience_nothing_is_tried_twice(clock: Clock) -> None:
    """A patience of 0 s gives up at the first failure."""
    with pytest.raises(StorageError):
        Patience(0.0).call(failing(1, gone()), "claim")
    assert clock.naps == []


def test_a_wrong_statement_is_raised_as_it_is(clock: Clock) -> None:
    """Only an outage is waited for."""
    wrong = ProgrammingError("SELEC", {}, Exception("syntax"))
    with pytest.raises(ProgrammingError):
        Patience(300.0).call(failing(1, wrong), "claim")
    assert clock.naps == []


@pytest.mark.parametrize("phrase", retry.PERMANENT)
def test_what_waiting_does_not_mend_is_not_waited_for(clock: Clock, phrase: str) -> None:
    """A missing table, a read-only file or a wrong password fails at once."""
    with pytest.raises(StorageError, match="failed for 0 s"):
        Patience(300.0).call(failing(1, gone(f"error: {phrase} x")), "claim")
    assert clock.naps == []


def test_an_outage_within_the_patience_is_waited_out(clock: Clock) -> None:
    """The operation runs again until it answers; delays double up to 5 s."""
    assert Patience(300.0).call(failing(8, gone()), "claim") == "answer"
    assert clock.naps == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_one_outage_is_one_warning(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """However often an operation is repeated, people read of it once, and it counts once."""
    patience = Patience(300.0)
    with caplog.at_level(logging.WARNING):
        patience.call(failing(8, gone()), "claim")
    assert [record.getMessage() for record in caplog.records] == [
        'storage_outage operation=claim patience_seconds=300 error="server closed the connection"'
    ]
    assert patience.n_outages == 1


def test_the_error_says_nothing_of_statement_and_parameters(clock: Clock) -> None:
    """SQL and its values are no help to a person, and may hold a secret."""
    with pytest.raises(StorageError) as error:
        Patience(0.0).call(failing(1, gone()), "claim")
    assert "UPDATE" not in str(error.value)
    assert "token" not in str(error.value)


def wrapped(cause: Exception | None) -> StorageInternalError:
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = cause
    return error


def pending(before: Exception) -> PendingRollbackError:
    """A second try on a connection whose transaction has failed."""
    error = PendingRollbackError("Can't reconnect until invalid transaction is rolled back.")
    error.__context__ = before
    return error


def lost_connection() -> DBAPIError:
    return DBAPIError("SELECT", {}, Exception("x"), connection_invalidated=True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (gone(), True),
        (InterfaceError("SELECT", {}, Exception("connection is closed")), True),
        (lost_connection(), True),
        (wrapped(gone()), True),
        (wrapped(None), True),
        (wrapped(pending(gone())), True),
        (wrapped(pending(IntegrityError("INSERT", {}, Exception("unique")))), False),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Quota exceeded"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (wrapped(IntegrityError("INSERT", {}, Exception("unique"))), False),
        (IntegrityError("INSERT", {}, Exception("unique")), False),
        (ValueError("x"), False),
    ],
    ids=repr,
)
def test_what_counts_as_an_outage(error: Exception, expected: bool) -> None:
    """The database or the disk is away, as opposed to a wrong statement or value."""
    assert is_outage(error) is expected


def test_a_permanent_cause_is_seen_through_optunas_wrapper() -> None:
    """Optuna hides the cause of a failed commit in `__cause__`."""
    assert is_permanent(wrapped(gone("attempt to write a readonly database")))


def test_a_retrying_method_uses_the_patience_of_its_object(clock: Clock) -> None:
    """Arguments and result pass through; the error names the method."""

    class Thing:
        patience = Patience(300.0)

        def __init__(self) -> None:
            self.operation = failing(2, gone())

        @retrying
        def fetch(self, number: int, *, extra: int) -> tuple[str, int]:
            """Doc."""
            return self.operation(), number + extra

    assert Thing().fetch(1, extra=2) == ("answer", 3)
    assert clock.naps == [0.1, 0.2]
    assert Thing.fetch.__doc__ == "Doc."
