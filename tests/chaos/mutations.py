"""The package with one of its protections taken away, to see that the tests notice.

Chosen by the environment variable FMNIST_TEST_MUTATION, which child processes inherit.
"""

import os
from collections.abc import Callable
from typing import Any

from optuna.storages import RDBStorage
from sqlalchemy import Update, update

from fmnist_optuna.bridge import storage as optuna_storage
from fmnist_optuna.ledger.cells import Ledger
from fmnist_optuna.ledger.records import Attempt, Claim
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import cells

VARIABLE = "FMNIST_TEST_MUTATION"


def without_token_check() -> None:
    """A change of a cell no longer asks whether the cell is still under the token."""

    def _mine(self: Ledger, cell_id: str, token: str) -> Update:
        return update(cells).where(
            cells.c.study_id == self.study_id, cells.c.cell_id == cell_id, cells.c.state == "running"
        )

    _replace(Ledger, "_mine", _mine)


def with_deferred_transactions() -> None:
    """Optuna works on SQLite as it comes: a transaction reads first and takes the write lock when it writes."""
    init = optuna_storage._SharedEngine.__init__

    def _init(self: Any, storage: Storage, *, create: bool) -> None:
        if create or not storage.is_sqlite:
            init(self, storage, create=create)
        else:
            RDBStorage.__init__(self, storage.url.render_as_string(), skip_table_creation=True)

    _replace(optuna_storage._SharedEngine, "__init__", _init)


def with_bind_after_tell() -> None:
    """The trial is tied to its cell only when its result is copied."""
    bind, finish_cell = Ledger.bind, Ledger.finish_cell
    bound: dict[str, tuple[Claim, int, int]] = {}

    def _bind(self: Ledger, claim: Claim, trial_id: int, trial_number: int) -> bool:
        bound[claim.token] = claim, trial_id, trial_number
        return True

    def _finish_cell(self: Ledger, cell_id: str, token: str, attempt: Attempt) -> bool:
        if token in bound:
            bind(self, *bound.pop(token))
        return finish_cell(self, cell_id, token, attempt)

    _replace(Ledger, "bind", _bind)
    _replace(Ledger, "finish_cell", _finish_cell)


MUTATIONS: dict[str, Callable[[], None]] = {
    "without-token-check": without_token_check,
    "with-deferred-transactions": with_deferred_transactions,
    "with-bind-after-tell": with_bind_after_tell,
}


def apply_from_environment() -> None:
    """Apply the mutation that is asked for, if any."""
    if name := os.environ.get(VARIABLE):
        MUTATIONS[name]()


def _replace(owner: type, name: str, replacement: Any) -> None:
    setattr(owner, name, replacement)
