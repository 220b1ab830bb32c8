"""What a run loads in moments at which it only waits for its children, as it needs it later."""

import importlib

from sqlalchemy.orm import configure_mappers

# Optuna imports these when it creates its tables: 0.2 s (measured 2026-11).
FOR_CREATION = ("alembic.command", "alembic.config", "alembic.migration", "alembic.script")
PAGES = (
    "fmnist_optuna.pages.notes"  # named, not imported: it loads plotly and optuna-dashboard, 0.5 s (measured 2026-11)
)


def load_creation() -> None:
    """Load what the creation of a storage needs."""
    for name in FOR_CREATION:
        importlib.import_module(name)
    configure_mappers()


def load_pages() -> None:
    """Load what writes the notes and figures of a finished study."""
    importlib.import_module(PAGES)
