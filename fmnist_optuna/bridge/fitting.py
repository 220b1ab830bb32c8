"""Whether Optuna's tables on Postgres are those of the Optuna that is installed, in one statement.

Optuna itself asks eleven, opens an engine of its own, and loads its migrations: 0.1 s of the processor a process.
"""

import re
from pathlib import Path

import optuna
import optuna.storages._rdb
from optuna.storages import RDBStorage
from optuna.storages._rdb.storage import _VersionManager
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import scoped_session, sessionmaker

from fmnist_optuna.ledger.storage import Storage

KNOWN = (5, 0)  # the version of Optuna whose `RDBStorage.__init__` sets what `adopt` does, and nothing more
_PRESENT = text("SELECT version_num FROM alembic_version WHERE EXISTS (SELECT FROM version_info)")


def is_known_optuna() -> bool:
    """Whether the installed Optuna is the one that `adopt` was written for; another one joins by its own questions."""
    return tuple(int(number) for number in optuna.__version__.split(".")[:2]) == KNOWN


def newest_tables() -> str:
    """The revision of the tables that the installed Optuna makes, by the names of its migrations, as `v3.2.0.a_.py`."""
    folder = Path(str(optuna.storages._rdb.__file__)).parent / "alembic" / "versions"
    revisions = [file.stem.rstrip("_") for file in folder.glob("v*.py")]
    return max(revisions, key=lambda name: ([int(number) for number in re.findall(r"\d+", name)], name), default="")


def tables_fit(storage: Storage) -> bool:
    """Whether the tables are of that revision; where they are not, or not there, Optuna says what is wrong."""
    try:
        with storage.look() as connection:
            return list(connection.execute(_PRESENT).scalars()) == [newest_tables()]
    except ProgrammingError:  # no such table
        return False


def adopt(made: RDBStorage, storage: Storage) -> None:
    """Give Optuna's storage what its `__init__` would, over an engine that is there; its tables fit."""
    url = storage.url.render_as_string(hide_password=False)
    session = scoped_session(sessionmaker(bind=storage.engine))
    manager: _VersionManager = object.__new__(_VersionManager)  # one that has asked nothing yet
    vars(manager).update(url=url, engine=storage.engine, scoped_session=session)
    nothing = ("heartbeat_interval", "grace_period", "heartbeat_stale_trial_callback", "failed_trial_callback")
    vars(made).update(
        dict.fromkeys(nothing),
        url=url,
        engine_kwargs={},
        engine=storage.engine,
        scoped_session=session,
        skip_compatibility_check=False,
        _version_manager=manager,
    )
