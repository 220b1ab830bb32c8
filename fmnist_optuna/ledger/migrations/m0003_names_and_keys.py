"""Version 3: a prefix for our tables, foreign keys, and what listings read without what they do not.

The tables are made anew and filled from the old ones, which then go: SQLite cannot add a foreign key to a table.
- `control` becomes `fmnist_studies`, with kind and parent of a study and the version of its specification;
- epochs carry their study, so that a listing need not read those of every other study;
- the predictions of an opening lie in a table of their own.
"""

from sqlalchemy import (
    Column,
    Double,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    insert,
    text,
)
from sqlalchemy.engine import Connection

metadata = MetaData()

# The number of versions 1 and 2 stays where it was, so that a program of then refuses what it sees.
schema_version = Table("fmnist_schema_version", metadata, Column("version", Integer, primary_key=True))

studies = Table(
    "fmnist_studies",
    metadata,
    Column("study_id", Integer, primary_key=True, autoincrement=False),
    Column("study_name", String(512), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("parent_id", Integer, ForeignKey("fmnist_studies.study_id")),
    Column("generation", Integer, nullable=False),
    Column("spec_version", Integer, nullable=False),
    Column("spec", Text, nullable=False),
    Column("spec_sha256", String(64), nullable=False),
    Column("grids", Text, nullable=False),
    Column("data_source", String(32), nullable=False),
    Column("data_fingerprint", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
)


def _study_id(*, primary_key: bool = False) -> Column[int]:
    key = ForeignKey("fmnist_studies.study_id")
    return Column("study_id", Integer, key, primary_key=primary_key, autoincrement=False, nullable=False)


cells = Table(
    "fmnist_cells",
    metadata,
    _study_id(primary_key=True),
    Column("cell_id", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("params", Text, nullable=False),
    Column("state", String(8), nullable=False),
    Column("token", String(32), unique=True),
    Column("worker", String(128)),
    Column("lease_until", Double),
    Column("claimed_at", Double),
    Column("finished_at", Double),
    Column("trial_id", Integer),
    Column("trial_number", Integer),
    Column("claims", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("lost", Integer, nullable=False),
    Column("result", String(8)),
    Column("value", Float(53)),
    Column("error", Text),
    Index("ix_fmnist_cells_queue", "study_id", "state", "position"),
    Index("ix_fmnist_cells_worker", "study_id", "worker"),
)

epochs = Table(
    "fmnist_epochs",
    metadata,
    Column("trial_id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    _study_id(),
    Column("train_loss", Float(53)),
    Column("train_accuracy", Float(53)),
    Column("val_loss", Float(53)),
    Column("val_accuracy", Float(53)),
    Column("seconds", Float(53), nullable=False),
    Index("ix_fmnist_epochs_study", "study_id"),
)

openings = Table(
    "fmnist_openings",
    metadata,
    Column("opening_id", Integer, primary_key=True),
    _study_id(),
    Column("trial_id", Integer, nullable=False),
    Column("weights_sha256", String(64), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("opener", String(512), nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("accuracy", Float(53)),
    UniqueConstraint("study_id", "weights_sha256", name="uq_fmnist_openings_weights"),
)

predictions = Table(
    "fmnist_predictions",
    metadata,
    Column("opening_id", Integer, ForeignKey("fmnist_openings.opening_id"), primary_key=True, autoincrement=False),
    Column("predictions", LargeBinary, nullable=False),
)

workers = Table(
    "fmnist_workers",
    metadata,
    Column("worker_id", String(128), primary_key=True),
    _study_id(),
    Column("host", String(255), nullable=False),
    Column("host_id", String(128), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Double, nullable=False),
    Column("version", String(32), nullable=False),
    Column("started", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
    Index("ix_fmnist_workers_study", "study_id"),
)

codes = Table(
    "fmnist_codes",
    metadata,
    _study_id(primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("accepted_at", Double, nullable=False),
    Column("code", LargeBinary, nullable=False),
    Column("environment", Text, nullable=False),
)

# Rows without a study are what a deletion left that broke off: they belong to nothing.
_OF_A_STUDY = "study_id IN (SELECT study_id FROM fmnist_studies)"
_COPIED = (cells, workers, codes, openings)  # all their columns are those of the table without the prefix
_OLD_TABLES = ("cells", "epochs", "openings", "workers", "codes", "control")


def migrate(connection: Connection) -> None:
    """Make the new tables, copy every row of a study, and remove the old tables."""
    metadata.create_all(connection)
    connection.execute(insert(schema_version).values(version=3))
    _copy_studies(connection)
    for table in _COPIED:
        old, names = table.name.removeprefix("fmnist_"), ", ".join(table.columns.keys())
        connection.execute(text(f"INSERT INTO {table.name} ({names}) SELECT {names} FROM {old} WHERE {_OF_A_STUDY}"))
    _copy_epochs(connection)
    connection.execute(
        text(
            "INSERT INTO fmnist_predictions (opening_id, predictions) SELECT opening_id, predictions FROM openings "
            f"WHERE predictions IS NOT NULL AND {_OF_A_STUDY}"
        )
    )
    if connection.dialect.name == "postgresql":  # the ids were copied past the counter that gives the next one
        connection.execute(
            text(
                "SELECT setval(pg_get_serial_sequence('fmnist_openings', 'opening_id'), "
                "(SELECT coalesce(max(opening_id), 0) + 1 FROM fmnist_openings), false)"
            )
        )
    for old in _OLD_TABLES:
        connection.execute(text(f"DROP TABLE {old}"))


def _copy_studies(connection: Connection) -> None:
    columns = "study_id, study_name, generation, spec, spec_sha256, grids, data_source, data_fingerprint, created_at"
    connection.execute(
        text(
            f"INSERT INTO fmnist_studies (kind, spec_version, {columns}) "
            "SELECT CASE WHEN study_name LIKE '%/confirm' THEN 'confirmation' ELSE 'search' END, 1, "
            f"{columns} FROM control"
        )
    )
    connection.execute(
        text(
            "UPDATE fmnist_studies SET parent_id = (SELECT parent.study_id FROM control AS parent "
            "WHERE parent.study_name || '/confirm' = fmnist_studies.study_name) WHERE kind = 'confirmation'"
        )
    )


def _copy_epochs(connection: Connection) -> None:
    """With the study of each, which Optuna's table of trials has."""
    columns = "trial_id, epoch, train_loss, train_accuracy, val_loss, val_accuracy, seconds"
    connection.execute(
        text(
            f"INSERT INTO fmnist_epochs (study_id, {columns}) "
            f"SELECT trials.study_id, {', '.join('epochs.' + name for name in columns.split(', '))} "
            "FROM epochs JOIN trials ON trials.trial_id = epochs.trial_id "
            f"WHERE trials.{_OF_A_STUDY}"
        )
    )
