"""Version 2: the user's code that a study accepted."""

from sqlalchemy import Column, Double, Integer, LargeBinary, MetaData, String, Table, Text
from sqlalchemy.engine import Connection

codes = Table(
    "codes",
    MetaData(),
    Column("study_id", Integer, primary_key=True, autoincrement=False),
    Column("fingerprint", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("accepted_at", Double, nullable=False),
    Column("code", LargeBinary, nullable=False),
    Column("environment", Text, nullable=False),
)


def migrate(connection: Connection) -> None:
    """Add the table; studies of before have none of its rows until somebody joins them."""
    codes.create(connection)
