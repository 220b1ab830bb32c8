"""A storage on Postgres without a server: each statement is compiled, kept, and sent nowhere.

What compiles a statement before a fork runs the operation that has it on such a storage, up to that statement.
"""

from pathlib import Path
from types import SimpleNamespace

from sqlalchemy import Engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import QueuePool

from fmnist_optuna.ledger.dialect import IDLE, postgres_dialect, share_compiled
from fmnist_optuna.ledger.engine import configure_postgres
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.outages import Patience
from fmnist_optuna.ledger.storage import Storage

URL = "postgresql+psycopg:///nowhere"


class NotSentError(Exception):
    """In place of an answer: the statement was compiled."""


class _Cursor:
    """Takes what begins a transaction, and sends nothing."""

    description, rowcount = None, -1

    def execute(self, statement: str, _parameters: object = None) -> None:
        if not statement.startswith("BEGIN"):
            raise NotSentError

    def close(self) -> None:
        """As of any cursor."""


class _Unconnected:
    """A connection to no server, as far as one is used before an answer comes."""

    closed = broken = False
    pgconn = SimpleNamespace(transaction_status=IDLE)

    def cursor(self) -> _Cursor:
        return _Cursor()

    def commit(self) -> None:
        """As of any connection."""

    rollback = close = commit


def unconnected_storage() -> Storage:
    """One whose every statement raises NotSentError.

    Raises:
        ImportError: The driver is not installed.
    """
    dialect, url = postgres_dialect(), make_url(URL)
    engine = share_compiled(Engine(QueuePool(_Unconnected, dialect=dialect), dialect, url))  # type: ignore[arg-type]
    configure_postgres(engine, rest_seconds=0.0)
    return Storage(StorageOptions(URL), url, engine, Patience(0.0), Path())
