"""Our tables, beside Optuna's in the same database. Times are float seconds since 1970 UTC, by the database's clock.

What they are in this version; `migrations` brings older ones up to date.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    Double,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Select,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

# A row that a query gave, and a query: what their columns are is known when it is run.
StoredRow = Row[Any]
Query = Select[Any]
Id = TypeVar("Id", int, str)

# System attributes that tie one of Optuna's trials to our tables; a trial with neither is another program's.
CELL_ID, TOKEN = OWN_ATTRIBUTES = ("cell_id", "token")

IDS_A_QUERY = 500  # SQLite takes some thousand parameters
SCHEMA_VERSION = 12

metadata = MetaData()

schema_version = Table("fmnist_schema_version", metadata, Column("version", Integer, primary_key=True))
# Where versions 1 and 2 have their number. An upgrade leaves it there, so that a program of then refuses what it sees.
first_schema_version = Table("schema_version", MetaData(), Column("version", Integer, primary_key=True))

studies = Table(
    "fmnist_studies",
    metadata,
    Column("study_id", Integer, primary_key=True, autoincrement=False),  # Optuna's
    Column("study_name", String(512), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),  # search, or what follows from one: confirmation, all-data
    Column("parent_id", Integer, ForeignKey("fmnist_studies.study_id")),  # which study it follows from
    Column("generation", Integer, nullable=False),  # raised by `stop`; a worker that began with a smaller one leaves
    Column("spec_version", Integer, nullable=False),  # of the form that the specification is stored in
    Column("spec", Text, nullable=False),  # canonical JSON of the specification that made the study
    Column("spec_sha256", String(64), nullable=False),
    Column("grids", Text, nullable=False),  # JSON list of every accepted grid, or stage of another search, newest last
    Column("data_source", String(512), nullable=False),
    Column("data_fingerprint", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("data_info", Text),  # JSON of what the user's own data is; NULL for a built-in source
    Column("teacher", Text),  # JSON of whose answers it learns from, and where they are; NULL for none
    Column("artifacts", Text),  # URL of the bucket that its artifacts are in; NULL for the folder beside the storage
)


def _study_id(*, primary_key: bool = False) -> Column[int]:
    key = ForeignKey("fmnist_studies.study_id")
    return Column("study_id", Integer, key, primary_key=primary_key, autoincrement=False, nullable=False)


cells = Table(
    "fmnist_cells",
    metadata,
    _study_id(primary_key=True),
    Column("cell_id", String(64), primary_key=True),
    Column("position", Integer, nullable=False),  # order of claims
    Column("params", Text, nullable=False),  # JSON in the declared types; {} until the first claim fixes the point
    Column("state", String(8), nullable=False),  # waiting, running, parked, done, failed
    Column("token", String(32), unique=True),  # which claim holds, or last held, the cell
    Column("worker", String(128)),
    Column("lease_until", Double),  # of a cell that waits again or failed: when its last holder lost it or gave it up
    Column("claimed_at", Double),
    Column("finished_at", Double),
    Column("trial_id", Integer),  # Optuna's id of the bound trial; one that waits with it goes on
    Column("trial_number", Integer),
    Column("claims", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("lost", Integer, nullable=False),
    Column("result", String(8)),  # COMPLETE or PRUNED once done
    Column("value", Float(53)),  # of the study's metric
    Column("error", Text),
    Column("first_claimed_at", Double),
    Column("rung", Integer, nullable=False, server_default=text("0")),  # epochs at which it was parked last
    Column("cut_at", Integer),  # the rung beyond which it does not go
    Column("decision_id", Integer),  # of the decision that cut it
    Column("val_accuracy", Float(53)),  # of its result, where that is not the value
    Column("number", Integer),  # within a search that is no grid; NULL of a grid
    Column("known", Text),  # JSON of the cells that its point was suggested by; NULL where nothing else decides it
    Index("ix_fmnist_cells_queue", "study_id", "state", "position"),
    Index("ix_fmnist_cells_worker", "study_id", "worker"),
)

epochs = Table(
    "fmnist_epochs",
    metadata,
    Column("trial_id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, primary_key=True, autoincrement=False),  # 0-based
    _study_id(),
    Column("train_loss", Float(53)),
    Column("train_accuracy", Float(53)),
    Column("val_loss", Float(53)),
    Column("val_accuracy", Float(53)),
    Column("seconds", Float(53), nullable=False),
    Column("objective", Float(53)),  # the study's metric, where it is none of these
    Index("ix_fmnist_epochs_study", "study_id"),
)

decisions = Table(
    "fmnist_decisions",
    metadata,
    Column("decision_id", Integer, primary_key=True),
    _study_id(),
    Column("rung", Integer, nullable=False),  # in epochs
    Column("decided_at", Double, nullable=False),
    Column("n_parked", Integer, nullable=False),  # cells that it was about
    Column("n_cut", Integer, nullable=False),
    Column("leader", String(64), nullable=False),  # cell_id of the best; empty if no value was finite
    Column("leader_value", Float(53)),  # a score: of a metric that falls the negative; so are the next two
    Column("margin", Float(53), nullable=False),
    Column("kept_from", Float(53)),
    Column("absent", Text, nullable=False, server_default="[]"),  # JSON list of the cell_ids that it did not wait for
    Index("ix_fmnist_decisions_study", "study_id", "rung"),
)

openings = Table(
    "fmnist_openings",
    metadata,
    Column("opening_id", Integer, primary_key=True),
    _study_id(),
    Column("trial_id", Integer, nullable=False),
    Column("weights_sha256", String(64), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("opener", String(512), nullable=False),  # JSON of the process that scores
    Column("opened_at", Double, nullable=False),
    Column("accuracy", Float(53)),  # NULL while the scoring runs
    Column("objective", Float(53)),  # the study's metric on the test images, where it is another one
    UniqueConstraint("study_id", "weights_sha256", name="uq_fmnist_openings_weights"),
)

predictions = Table(
    "fmnist_predictions",
    metadata,
    Column("opening_id", Integer, ForeignKey("fmnist_openings.opening_id"), primary_key=True, autoincrement=False),
    Column("predictions", LargeBinary, nullable=False),  # .npz: float32 (n_images, n_classes), labels
)

workers = Table(
    "fmnist_workers",
    metadata,
    Column("worker_id", String(128), primary_key=True),
    _study_id(),
    Column("host", String(255), nullable=False),
    Column("host_id", String(128), nullable=False),  # boot and process namespace: where a pid means something
    Column("pid", Integer, nullable=False),
    Column("pid_started", Double, nullable=False),  # start time of the process: a pid may be used again
    Column("version", String(32), nullable=False),
    Column("started", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
    Column("device", String(64)),  # on which it trains, such as CPU
    Index("ix_fmnist_workers_study", "study_id"),
)

codes = Table(
    "fmnist_codes",
    metadata,
    _study_id(primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("position", Integer, nullable=False),  # joins are compared with the highest
    Column("accepted_at", Double, nullable=False),
    Column("code", LargeBinary, nullable=False),  # compressed JSON of the user's code
    Column("environment", Text, nullable=False),  # JSON of the environment of the process that brought it
)


def ids_by_query(ids: Sequence[Id]) -> Iterator[Sequence[Id]]:
    """All of them, as many at a time as one query takes."""
    return (ids[begin : begin + IDS_A_QUERY] for begin in range(0, len(ids), IDS_A_QUERY))
