"""What a run loads in moments at which it only waits for its children, as it needs it later."""

import contextlib
import importlib

# Optuna imports these when it creates its tables: 0.2 s (measured 2026-11).
FOR_CREATION = ("alembic.command", "alembic.config", "alembic.migration", "alembic.script")
# By its name, so that only who asks loads plotly and optuna-dashboard with it: 0.5 s (measured 2026-11).
PAGES = "fmnist_optuna.pages.notes"


def load_creation() -> None:
    """Load what the creation of a storage needs."""
    for name in FOR_CREATION:
        importlib.import_module(name)


def load_pages() -> None:
    """Load what writes the notes and figures of a finished study; who needs it says so if it cannot be loaded."""
    with contextlib.suppress(ImportError):
        importlib.import_module(PAGES)
