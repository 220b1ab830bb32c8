"""Version 8: studies that compare by another metric than the accuracy."""

from sqlalchemy import text
from sqlalchemy.engine import Connection


def migrate(connection: Connection) -> None:
    """Add columns for such a metric, and for the accuracy beside it; no study has them so far."""
    number = "FLOAT(53)" if connection.dialect.name == "postgresql" else "FLOAT"
    for table, column in (("cells", "val_accuracy"), ("epochs", "objective"), ("openings", "objective")):
        connection.execute(text(f"ALTER TABLE fmnist_{table} ADD COLUMN {column} {number}"))
