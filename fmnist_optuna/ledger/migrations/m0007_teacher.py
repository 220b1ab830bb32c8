"""Version 7: studies that learn from another one."""

from sqlalchemy import text
from sqlalchemy.engine import Connection


def migrate(connection: Connection) -> None:
    """Add a column to the studies, none of which has a teacher."""
    connection.execute(text("ALTER TABLE fmnist_studies ADD COLUMN teacher TEXT"))
