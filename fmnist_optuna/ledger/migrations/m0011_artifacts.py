"""Version 11: studies that keep their artifacts in a bucket."""

from sqlalchemy import text
from sqlalchemy.engine import Connection


def migrate(connection: Connection) -> None:
    """Add a column to the studies, all of which have theirs in the folder."""
    connection.execute(text("ALTER TABLE fmnist_studies ADD COLUMN artifacts TEXT"))
