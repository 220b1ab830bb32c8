"""Version 10: workers say on which device they train."""

from sqlalchemy import text
from sqlalchemy.engine import Connection


def migrate(connection: Connection) -> None:
    """Add a column to the workers; those that are there have not said it."""
    connection.execute(text("ALTER TABLE fmnist_workers ADD COLUMN device VARCHAR(64)"))
