"""Version 6: decisions that did not wait for a cell."""

from sqlalchemy import text
from sqlalchemy.engine import Connection


def migrate(connection: Connection) -> None:
    """Add a column to the decisions, all of which have waited for every cell."""
    connection.execute(text("ALTER TABLE fmnist_decisions ADD COLUMN absent TEXT NOT NULL DEFAULT '[]'"))
