"""How a study is made, or joined when everything but its grid agrees; its cells are seeded with it."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import check_distribution_compatibility
from sqlalchemy import Connection, or_, select, update

from fmnist_optuna.bridge.artifacts import remove_artifact, store_soft_labels
from fmnist_optuna.bridge.ids import study_id_of
from fmnist_optuna.bridge.ranges import store_ranges
from fmnist_optuna.bridge.storage import open_optuna
from fmnist_optuna.bridge.trials import make_distributions, make_pruner, make_sampler
from fmnist_optuna.data.built_in import BUILT_IN
from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.source import with_source
from fmnist_optuna.errors import JoinRefusedError, MismatchError
from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.cells import Ledger
from fmnist_optuna.ledger.codes import OfferedCode, join_code
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.storage import Storage, insert_or_ignore
from fmnist_optuna.ledger.tables import StoredRow, studies
from fmnist_optuna.search.cell import Grid, Params, Point, make_point, make_points
from fmnist_optuna.spec.differences import differences
from fmnist_optuna.spec.reading import restore_spec
from fmnist_optuna.spec.stored import SPEC_VERSION, upgrade_spec
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.records import KINDS, SEARCH, StudyRecord, read_record
from fmnist_optuna.study.studies import find_study_or_none
from fmnist_optuna.study.teacher import Lesson, Teacher

N_FIRST_GENERATIONS = 2**30  # half of what an INTEGER of Postgres can count


def create_or_join(
    storage: Storage,
    spec: StudySpec,
    data_fingerprint: str,
    points: Sequence[Params] | None = None,
    code: OfferedCode | None = None,
    parent: StudyRecord | None = None,
    info: DatasetInfo | None = None,
    lesson: Lesson | None = None,
) -> tuple[StudyRecord, int]:
    """Create a study, or join it when everything but the grid agrees, and insert the cells that are missing.

    Args:
        spec: With the data decided and the grid bound to the architecture's types.
        data_fingerprint: Of the data that this machine will train on.
        points: The only points of the grid to make cells of, in the order of claims; None for the whole grid.
        code: What is to train; None where nothing of the user's does.
        parent: The study that it follows from, as the end of its name says, with the same teacher; None for a search.
        info: Of the data; None for that of the built-in source.
        lesson: Of a study with a teacher; one that is there keeps what it has.

    Returns:
        The study as it is now and the number of new cells.

    Raises:
        JoinRefusedError: The study exists and differs in source, model, training, seed, pruner or code.
        MismatchError: It agrees in all of these, but its source gives other data here.
    """
    # Before the locked transaction.
    ordered = ordered_points(spec) if points is None else [make_point(params) for params in points]
    study_id = _create_in_optuna(storage, spec)
    if lesson is not None:
        store_soft_labels(storage, study_id, lesson.teacher.artifact, lesson.content)
    teacher = lesson.teacher if lesson is not None else None if parent is None else parent.teacher
    data = _OfferedData(data_fingerprint, info or BUILT_IN[spec.data.source], teacher)
    record, n_new = _seed(Ledger(storage, study_id), spec, ordered, data, code, parent)
    if lesson is not None and record.teacher != teacher:  # another process has made the study meanwhile
        remove_artifact(storage.artifacts, lesson.teacher.artifact)
    return record, n_new


def _create_in_optuna(storage: Storage, spec: StudySpec) -> int:
    trials = open_optuna(storage)
    study = optuna.create_study(
        study_name=spec.name,
        storage=trials,
        direction=spec.metric.direction,
        sampler=make_sampler(spec.grid),
        pruner=make_pruner(spec),
        load_if_exists=True,
    )
    # Trials first: one of ours is created after our row.
    if study.get_trials(deepcopy=False) and find_study_or_none(storage, spec.name) is None:
        raise JoinRefusedError(
            f"study {spec.name}: must be one that fmnist-optuna made, but another program did; "
            "choose another name (--name NEW)."
        )
    return study_id_of(study)


@retrying
def _seed(
    ledger: Ledger,
    spec: StudySpec,
    ordered: list[Point],
    data: "_OfferedData",
    code: OfferedCode | None,
    parent: StudyRecord | None,
) -> tuple[StudyRecord, int]:
    """Our row of the study and its cells, in one transaction."""
    storage, study_id = ledger.storage, ledger.study_id
    with storage.write() as connection:
        _insert_row(connection, ledger, spec, data, parent)
        row = _lock_row(connection, study_id, spec.name)
        _check_join(read_record(row), spec, data)
        if code is not None:
            join_code(connection, storage, study_id, spec.name, code)
        store_ranges(connection, study_id, _add_grid(connection, row, spec))
        _take_over(connection, row, spec)
        n_new = ledger.add_cells(connection, ordered)
        record = read_record(connection.execute(select(studies).where(studies.c.study_id == study_id)).one())
    return record, n_new


def _insert_row(
    connection: Connection, ledger: Ledger, spec: StudySpec, data: "_OfferedData", parent: StudyRecord | None
) -> None:
    """The row of a study, unless it is there."""
    values = {
        "study_id": ledger.study_id,
        "study_name": spec.name,
        "kind": SEARCH if parent is None else KINDS[spec.name.removeprefix(parent.name)],
        "parent_id": None if parent is None else parent.study_id,
        # SQLite gives the id of a deleted study to the next one: a worker of the old one must not fit it.
        "generation": secrets.randbelow(N_FIRST_GENERATIONS),
        "spec_version": SPEC_VERSION,
        "spec": spec.model_dump_json(),
        "spec_sha256": spec.digest,
        "grids": "[]",
        "data_source": spec.data.source,
        "data_fingerprint": data.fingerprint,
        "data_info": None if spec.data.source in BUILT_IN else json.dumps(data.info.to_content()),
        "created_at": ledger.storage.now,
        "teacher": None if data.teacher is None else data.teacher.model_dump_json(),
    }
    connection.execute(insert_or_ignore(ledger.storage, studies).values(**values))


def _lock_row(connection: Connection, study_id: int, name: str) -> StoredRow:
    """The row of a study, which nobody else changes until this transaction ends.

    Raises:
        JoinRefusedError: Id and name are of two rows: an earlier study of that id or name was half deleted.
    """
    is_either = or_(studies.c.study_id == study_id, studies.c.study_name == name)
    row, *others = connection.execute(select(studies).where(is_either).with_for_update(key_share=True)).all()
    if others or row.study_id != study_id or row.study_name != name:
        raise JoinRefusedError(
            f"study {row.study_name}: must be there or be gone, but its deletion broke off; "
            f"finish it: fmnist-optuna delete {row.study_name}"
        )
    return row


def _add_grid(connection: Connection, row: StoredRow, spec: StudySpec) -> list[Grid]:
    """All accepted grids, that of the specification among them."""
    grids: list[Grid] = json.loads(row.grids)
    grid = {name: list(values) for name, values in spec.grid.items()}
    if grid not in grids:
        grids.append(grid)
        is_own = studies.c.study_id == row.study_id
        connection.execute(update(studies).where(is_own).values(grids=json.dumps(grids)))
    return grids


def _take_over(connection: Connection, row: StoredRow, spec: StudySpec) -> None:
    """Let what may differ between runs be that of the newest: how often checkpoints are written, what is confirmed."""
    stored = restore_spec(upgrade_spec(json.loads(row.spec), row.spec_version), "its specification")
    wanted = {"checkpoint_seconds": spec.training.checkpoint_seconds}
    training = stored.training.model_copy(update=wanted)
    new = stored.model_copy(update={"training": training, "confirm": spec.confirm})
    if new != stored:
        values = {"spec_version": SPEC_VERSION, "spec": new.model_dump_json(), "spec_sha256": new.digest}
        connection.execute(update(studies).where(studies.c.study_id == row.study_id).values(values))


def ordered_points(spec: StudySpec) -> list[Point]:
    """The cells in the order of claims: that of a stock GridSampler, shuffled, so that a pruner soon sees a mixture."""
    sampler = make_sampler(spec.grid)
    return sorted(make_points(spec.grid), key=lambda point: sampler.grid_id(point.params))


@dataclass(frozen=True)
class _OfferedData:
    """What the source of a specification gives on this machine, and whose answers come with it to a new study."""

    fingerprint: str
    info: DatasetInfo
    teacher: Teacher | None


def _check_join(record: StudyRecord, spec: StudySpec, data: _OfferedData) -> None:
    lines = differences(_compared_part(record.spec), _compared_part(spec))
    if record.spec.grid.keys() != spec.grid.keys():
        lines.append(f"grid names: the study has {sorted(record.spec.grid)}, this run {sorted(spec.grid)}")
    else:
        lines += _new_choices(record, spec)
    if lines:
        raise JoinRefusedError(
            f"study {spec.name}: exists with another specification.\n"
            + "".join(f"  {line}\n" for line in lines)
            + f"Choose another name (--name NEW), or remove it: fmnist-optuna delete {spec.name}"
        )
    if record.data_fingerprint != data.fingerprint:
        raise MismatchError(_describe_other_data(record, data))


def _compared_part(spec: StudySpec) -> dict[str, Json]:
    """What must agree. Some studies have the number of images that was asked for, where fewer are held out."""
    fixed = spec.model_copy(update={"data": with_source(spec.data, spec.data.source)}).fixed_part()
    return {**fixed, "objective": spec.objective.model_dump(mode="json")}


def _describe_other_data(record: StudyRecord, data: _OfferedData) -> str:
    """What is said where the source is that of the study, but what it gives is not."""
    changed = differences(record.info.to_content(), data.info.to_content()) or ["other images or labels"]
    return (
        f"study {record.name}: {record.data_source} must give the data that the study was created with, fingerprint "
        f"{record.data_fingerprint[:12]}, but gives {'; '.join(changed)}, fingerprint {data.fingerprint[:12]}; bring "
        "that data back, or choose another name (--name NEW)."
    )


def _new_choices(record: StudyRecord, spec: StudySpec) -> list[str]:
    """Optuna refuses new choices of a categorical parameter, so a grid of strings cannot grow."""
    lines = []
    accepted = record.grids or (record.spec.grid,)
    stored, given = make_distributions(accepted), make_distributions([*accepted, spec.grid])
    for name in sorted(given):
        try:
            check_distribution_compatibility(stored[name], given[name])
        except ValueError:
            lines.append(f"grid.{name}: the study has {list(record.spec.grid[name])}, this run {list(spec.grid[name])}")
    return lines
