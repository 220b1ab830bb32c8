"""Version 9: cells whose points are drawn or suggested, and are known by their number."""

from sqlalchemy import text
from sqlalchemy.engine import Connection


def migrate(connection: Connection) -> None:
    """Add columns to the cells, all of which are points of a grid."""
    connection.execute(text("ALTER TABLE fmnist_cells ADD COLUMN number INTEGER"))
    connection.execute(text("ALTER TABLE fmnist_cells ADD COLUMN known TEXT"))
