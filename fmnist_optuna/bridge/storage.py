"""Optuna's storage over our engine. Importing this module imports Optuna, so reading commands do without it."""

from collections.abc import Callable, Container
from functools import partial
from typing import TypeVar

from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import scoped_session, sessionmaker

from fmnist_optuna.bridge.fitting import adopt, is_known_optuna, tables_fit
from fmnist_optuna.bridge.new_trials import insert_trial
from fmnist_optuna.bridge.postgres import PostgresStorage
from fmnist_optuna.errors import StorageError
from fmnist_optuna.ledger.connecting import open_storage
from fmnist_optuna.ledger.engine import connect_sqlite, reading
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.wording import reason_of

T = TypeVar("T")


class _SharedEngine(RDBStorage):
    """RDBStorage whose transactions are those of our engine: writers begin at once, readers wait for nobody."""

    def __init__(self, storage: Storage, *, create: bool) -> None:
        url = storage.url.render_as_string(hide_password=False)
        super().__init__(
            url.replace("{", "{{").replace("}", "}}"),  # Optuna takes it for a template
            engine_kwargs={"creator": partial(connect_sqlite, storage.url, create, timeout=20)}
            if storage.is_sqlite
            else {"pool": storage.engine.pool},
            skip_table_creation=not create,
        )
        if storage.is_sqlite:
            self.engine.dispose()
        self.engine = storage.engine
        self.scoped_session = scoped_session(sessionmaker(bind=storage.engine))

    # The two reads that a training worker makes every epoch; as writers they would queue behind one another.
    def get_trial(self, trial_id: int) -> FrozenTrial:
        return _read(lambda: super(_SharedEngine, self).get_trial(trial_id))

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        get_trials = super()._get_trials
        return _read(lambda: get_trials(study_id, states, included_trial_ids, trial_id_greater_than))


class SharedPostgres(PostgresStorage, _SharedEngine):
    """The same on Postgres, with fewer round trips, of which joining takes one."""

    def __init__(self, storage: Storage, *, create: bool) -> None:
        if create or not is_known_optuna() or not tables_fit(storage):
            super().__init__(storage, create=create)
        else:
            adopt(self, storage)


def _read(operation: Callable[[], T]) -> T:
    with reading():
        return operation()


def create_storage(options: StorageOptions) -> Storage:
    """Open a storage, and make its file and all tables, Optuna's and ours, where they are missing.

    Raises:
        UsageError: The URL is malformed or names another kind of database.
        StorageError: Unreachable, not a database, not writable, or with tables of another version.
    """
    return open_storage(options, make_tables=_create_tables)


def _create_tables(storage: Storage) -> None:
    _share_engine(storage, create=True)


class PatientStorage(_CachedStorage):
    """Optuna's storage over our engine, with Optuna's cache of finished trials; its operations wait out outages.

    Each may be run again although it was done and its answer was lost. What creates a trial then makes a second one,
    which no cell is bound to, and the sweep fails it. `set_trial_state_values` then says that the trial is finished,
    which whoever finishes one takes for an answer. `create_new_study` then says that the study exists. All others
    change nothing the second time, but for `delete_study`, which does not wait.

    Args:
        storage: The open storage.

    Raises:
        StorageError: Optuna's tables are of another version.
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__(_share_engine(storage, create=False))
        self._storage = storage
        self._made: dict[int, FrozenTrial] = {}
        self.patience = storage.patience

    @retrying
    def create_claimed_trial(self, study_id: int, template_trial: FrozenTrial, grids: str) -> int | None:
        """Make the trial of a claim, as `create_new_trial` but in one round trip to Postgres; returns its id.

        Args:
            grids: As `insert_trial` has it, which also says when None is returned.
        """
        made = insert_trial(self._storage, study_id, template_trial, grids)
        if made is None:
            return None
        template_trial.number, template_trial._trial_id = made.number, made.trial_id
        with self._lock:  # as `create_new_trial` does
            self._studies.setdefault(study_id, _StudyInfo())
            self._add_trials_to_cache(study_id, [template_trial])
        self._made = {made.trial_id: template_trial}
        return made.trial_id

    @retrying
    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As Optuna's; the first look at a trial that this process has just made, to begin it, asks nobody."""
        made = self._made.pop(trial_id, None)
        return super().get_trial(trial_id) if made is None else made

    @retrying
    def running_trials(self, study_id: int) -> list[FrozenTrial]:
        """The RUNNING trials of a study, read past the cache, which would load every trial first: 0.7 ms each.

        Raises:
            KeyError: There is no such study.
        """
        return self._backend.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))


for _name in (BaseStorage.__abstractmethods__ | {"get_best_trial"}) - {"delete_study", "get_trial"}:
    setattr(PatientStorage, _name, retrying(getattr(_CachedStorage, _name)))


@retrying
def open_optuna(storage: Storage) -> PatientStorage:
    """Optuna's storage over the same engine.

    Raises:
        StorageError: Optuna's tables are of another version.
    """
    return PatientStorage(storage)


def open_impatient(storage: Storage) -> BaseStorage:
    """The same for those who ask again by themselves, as a browser does: an outage is said at once.

    Raises:
        StorageError: Optuna's tables are of another version.
    """
    return get_storage(_share_engine(storage, create=False))


def _share_engine(storage: Storage, *, create: bool) -> _SharedEngine:
    try:
        return (_SharedEngine if storage.is_sqlite else SharedPostgres)(storage, create=create)
    except RuntimeError as error:
        raise StorageError(f"The storage {storage.name} must fit this Optuna, but {reason_of(error)}.") from error
