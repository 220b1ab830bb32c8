"""Waiting out an outage of the database: backoff with jitter, within a patience, with one warning per outage.

An operation that waits is marked `retrying` where it is written; who calls it need not know of outages.
"""

import functools
import logging
import random
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError

from fmnist_optuna.durable import FULL_DISK
from fmnist_optuna.errors import ArtifactsAwayError, ArtifactsError, StorageError
from fmnist_optuna.log import log_event
from fmnist_optuna.wording import reason_of

logger = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0  # at the default lease
SLICE_SECONDS = 0.2
# What no waiting mends: an operator has to.
PERMANENT = ("no such table", "no such column", "readonly database", "not a database", "malformed", "password")

# Codes of SQL for what a role may not do: insufficient_privilege and read_only_sql_transaction. The second comes from a
# standby too; then the dialect says that its connection is of no more use.
READ_ONLY = "25006"
REFUSALS = ("42501", READ_ONLY)


P = ParamSpec("P")
R = TypeVar("R")


class Patience:
    """How long operations wait for a database that went away.

    Args:
        seconds: How long an outage is waited for, in seconds, >= 0.
        longest_delay_seconds: Between two tries; well below two renewals of a lease, so that after an outage a holder
            comes before those who look for expired leases.
    """

    def __init__(self, seconds: float, longest_delay_seconds: float = LONGEST_DELAY_SECONDS) -> None:
        self.seconds = seconds
        self._longest_delay_seconds = longest_delay_seconds
        self.n_outages = 0
        self.is_over: Callable[[], bool] = lambda: False  # set from outside: wait no longer

    def call(self, operation: Callable[[], R], name: str) -> R:
        """Run an operation, again and again while the database is away. It must be safe to run twice.

        Raises:
            StorageError: The outage lasted longer than the patience, or is of a kind that waiting does not mend.
        """
        began = time.monotonic()
        delay = FIRST_DELAY_SECONDS
        has_warned = False
        while True:
            try:
                result = operation()
            except Exception as error:
                if not is_outage(error):
                    raise
                waited = time.monotonic() - began
                if is_permanent(error) or waited + delay > self.seconds or self.is_over():
                    raise StorageError(
                        f"The storage must answer, but {name} failed for {waited:.0f} s: {reason_of(error)}; "
                        "start again when it is back."
                    ) from error
                if not has_warned:
                    has_warned = True
                    self.n_outages += 1
                    how = {"operation": name, "patience_seconds": self.seconds, "error": reason_of(error)}
                    log_event(logger, logging.WARNING, "storage_outage", **how)
                self._sleep(delay * random.uniform(0.5, 1.5))
                delay = min(2 * delay, self._longest_delay_seconds)
            else:
                if has_warned:
                    seconds = round(time.monotonic() - began, 1)
                    log_event(logger, logging.INFO, "storage_back", operation=name, seconds=seconds)
                return result

    def _sleep(self, seconds: float) -> None:
        """In slices, so that a person who gives up need not wait."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.is_over():
            time.sleep(min(left, SLICE_SECONDS))


class HasPatience(Protocol):
    """Whatever carries a patience for its operations: an open storage, a part of a study, Optuna's storage."""

    @property
    def patience(self) -> Patience:
        """The patience."""


S = TypeVar("S", bound=HasPatience)


def retrying(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let a method, or a function of a storage, wait out outages with the patience of its first argument.

    It must be safe to run twice: an outage may swallow the answer to what was done.
    """
    name = method.__name__.strip("_")

    def wrapper(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.patience.call(lambda: method(self, *args, **kwargs), name)

    return functools.update_wrapper(wrapper, method)


def is_outage(error: BaseException) -> bool:
    """Whether the database, or the bucket of the artifacts, went away or is busy, as opposed to a wrong statement."""
    if isinstance(error, OperationalError | InterfaceError | ArtifactsAwayError):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(error, PendingRollbackError):  # Optuna tries some queries once more on the connection that broke
        return error.__context__ is not None and is_outage(error.__context__)
    if isinstance(error, OSError):
        return error.errno in FULL_DISK
    if type(error).__name__ == "StorageInternalError":  # Optuna's wrapper; named so that Optuna need not be imported
        return error.__cause__ is None or is_outage(error.__cause__)
    return False


def is_permanent(error: BaseException) -> bool:
    """Whether waiting cannot mend it."""
    return any(phrase in reason_of(error).lower() for phrase in PERMANENT)


def is_of_database(error: StorageError) -> bool:
    """Whether it was the database that failed, not the place of the artifacts or a full disk: then it may answer."""
    return not isinstance(error, ArtifactsError) and not isinstance(error.__cause__, ArtifactsError | OSError)


def is_refusal(error: BaseException) -> bool:
    """Whether the database refused what its role may not do; waiting does not mend that."""
    inner: BaseException | None = error
    while inner is not None:
        if getattr(inner, "sqlstate", None) in REFUSALS:
            return True
        inner = getattr(inner, "orig", None) or inner.__cause__
    return False
