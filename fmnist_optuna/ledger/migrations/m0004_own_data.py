"""Version 4: studies on data of the user's own keep what it is, and a longer name of where it comes from."""

from sqlalchemy import text
from sqlalchemy.engine import Connection


def migrate(connection: Connection) -> None:
    """Add a column, empty for studies of before; SQLite keeps a text of any length already."""
    connection.execute(text("ALTER TABLE fmnist_studies ADD COLUMN data_info TEXT"))
    if connection.dialect.name == "postgresql":
        connection.execute(text("ALTER TABLE fmnist_studies ALTER COLUMN data_source TYPE VARCHAR(512)"))
