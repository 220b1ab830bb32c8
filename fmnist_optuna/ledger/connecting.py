"""From a storage URL to an open storage whose tables are ours and of this version; errors are in our words."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from fmnist_optuna.errors import NotFoundError, StorageError
from fmnist_optuna.ledger.engine import make_engine
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.outages import LONGEST_DELAY_SECONDS, Patience
from fmnist_optuna.ledger.schema import check_schema, create_schema, schema_lock, upgrade_schema
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.urls import check_url
from fmnist_optuna.wording import reason_of


def open_storage(
    options: StorageOptions,
    *,
    make_tables: Callable[[Storage], None] | None = None,
    is_patient: bool = False,
) -> Storage:
    """Open a storage and check that it is one of ours.

    Args:
        make_tables: Makes the tables that others keep beside ours. With it, a missing database file and missing tables
            are made; without it nothing is ever written. `bridge.storage.create_storage` hands Optuna's in.
        is_patient: Whether an outage is waited for now already; otherwise it is said at once.

    Raises:
        UsageError: The URL is malformed or names another kind of database.
        NotFoundError: No such file, or no study tables in it, and they are not to be made.
        StorageError: Unreachable, not a database, not writable, or made by another version.
    """
    opened = _connect(options, create=make_tables is not None)
    with _explained(opened):
        if make_tables is not None:
            with schema_lock(opened):
                create_schema(opened, make_tables)
            upgrade_schema(opened)
        elif is_patient:
            opened.patience.call(lambda: check_schema(opened), "open_storage")
        else:
            check_schema(opened)
    return opened


def upgrade_storage(options: StorageOptions) -> int:
    """Bring the tables of a storage that an earlier version made up to date.

    Returns:
        The version that the tables had.

    Raises:
        NotFoundError: No such file, or no study tables in it.
        StorageError: Unreachable, not writable, made by a later version, or workers of the earlier one are at work.
    """
    opened = _connect(options, create=False)
    try:
        with _explained(opened):
            return upgrade_schema(opened)
    finally:
        opened.close()


def _connect(options: StorageOptions, *, create: bool) -> Storage:
    """A storage whose tables nobody has looked at."""
    url, lease_seconds = check_url(options.url, create=create), options.timing.lease_seconds
    if create and url.get_backend_name() == "sqlite":
        _make_folder(Path(str(url.database)))
    engine = make_engine(url, lease_seconds, create)
    patience = Patience(options.patience_seconds, min(LONGEST_DELAY_SECONDS, lease_seconds / 12))  # half a renewal
    return Storage(options, url, engine, patience, artifacts=_artifact_folder(url))


@contextlib.contextmanager
def _explained(storage: Storage) -> Iterator[None]:
    """Errors of the database in our words."""
    try:
        yield
    except NotFoundError:
        raise
    except (SQLAlchemyError, OSError) as error:
        raise StorageError(
            f"The storage {storage.name} must be reachable and writable, but {reason_of(error)}."
        ) from error


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"The folder of the storage must be writable, but {error}.") from error


def _artifact_folder(url: URL) -> Path:
    if url.get_backend_name() == "sqlite":
        return Path(str(url.database)).absolute().parent / "artifacts"
    return Path("studies").absolute() / "artifacts"
