"""Version 5: cells that are parked at a rung, and the decisions over them."""

from sqlalchemy import Column, Double, Float, ForeignKey, Index, Integer, MetaData, String, Table, text
from sqlalchemy.engine import Connection

metadata = MetaData()
studies = Table("fmnist_studies", metadata, Column("study_id", Integer, primary_key=True))
decisions = Table(
    "fmnist_decisions",
    metadata,
    Column("decision_id", Integer, primary_key=True),
    Column("study_id", Integer, ForeignKey("fmnist_studies.study_id"), autoincrement=False, nullable=False),
    Column("rung", Integer, nullable=False),
    Column("decided_at", Double, nullable=False),
    Column("n_parked", Integer, nullable=False),
    Column("n_cut", Integer, nullable=False),
    Column("leader", String(64), nullable=False),
    Column("leader_value", Float(53)),
    Column("margin", Float(53), nullable=False),
    Column("kept_from", Float(53)),
    Index("ix_fmnist_decisions_study", "study_id", "rung"),
)


def migrate(connection: Connection) -> None:
    """Add columns to the cells, none of which has reached a rung, and an empty table."""
    double = "DOUBLE PRECISION" if connection.dialect.name == "postgresql" else "DOUBLE"
    for column in (
        f"first_claimed_at {double}",
        "rung INTEGER NOT NULL DEFAULT 0",
        "cut_at INTEGER",
        "decision_id INTEGER",
    ):
        connection.execute(text(f"ALTER TABLE fmnist_cells ADD COLUMN {column}"))
    connection.execute(text("UPDATE fmnist_cells SET first_claimed_at = claimed_at"))
    decisions.create(connection)
