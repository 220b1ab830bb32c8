"""How a study is made, or joined when everything but what may grow agrees; its cells are seeded with it."""

import json
import secrets
from collections.abc import Sequence

import optuna
from sqlalchemy import Connection, or_, select, update

from fmnist_optuna.artifacts.place import Place
from fmnist_optuna.bridge.artifacts import remove_other_soft_labels, store_soft_labels
from fmnist_optuna.bridge.ids import study_id_of
from fmnist_optuna.bridge.ranges import lock_in_optuna, store_ranges
from fmnist_optuna.bridge.spaces import Accepted, sampler_of
from fmnist_optuna.bridge.storage import open_optuna
from fmnist_optuna.bridge.stores import open_store
from fmnist_optuna.bridge.trials import make_pruner
from fmnist_optuna.data.built_in import BUILT_IN
from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.errors import JoinRefusedError
from fmnist_optuna.ledger.cells import Ledger
from fmnist_optuna.ledger.codes import OfferedCode, join_code
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.progress import History
from fmnist_optuna.ledger.storage import Storage, insert_or_ignore
from fmnist_optuna.ledger.tables import StoredRow, studies
from fmnist_optuna.search.cell import Params, Point, make_point
from fmnist_optuna.search.sampling import sequence_version
from fmnist_optuna.spec.growth import DRAWN_BY, grow, stage_of, tables_of
from fmnist_optuna.spec.reading import restore_spec
from fmnist_optuna.spec.stored import SPEC_VERSION, upgrade_spec
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.agreement import OfferedData, check_join
from fmnist_optuna.study.places import check_same_place, place_of_new
from fmnist_optuna.study.records import KINDS, SEARCH, StudyRecord, read_record
from fmnist_optuna.study.stages import new_points, ordered_points
from fmnist_optuna.study.studies import find_study_or_none
from fmnist_optuna.study.teacher import Lesson

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
    """Create a study, or join it when everything but what may grow agrees, and insert the cells that are missing.

    A grid may grow, and so may the number of trials, the space and the enqueued points of another search.

    Args:
        spec: With the data decided and the grid or space bound to the architecture's types.
        data_fingerprint: Of the data that this machine will train on.
        points: The only points to make cells of, in the order of claims; None for the whole grid or search.
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
    ordered = _list_points(spec, points)  # before the locked transaction
    study_id = _create_in_optuna(storage, spec)
    place = place_of_new(storage, parent)
    _keep(storage, study_id, place, lesson)
    teacher = lesson.teacher if lesson is not None else None if parent is None else parent.teacher
    data = OfferedData(data_fingerprint, info or BUILT_IN[spec.data.source], teacher, place)
    record, n_new = _seed(Ledger(storage, study_id), spec, ordered, data, code, parent)
    if lesson is not None and record.teacher is not None:
        remove_other_soft_labels(storage, open_store(storage.artifacts, place), spec.name, record.teacher.artifact)
    return record, n_new


def _keep(storage: Storage, study_id: int, place: Place | None, lesson: Lesson | None) -> None:
    if lesson is not None:
        store = open_store(storage.artifacts, place)
        store_soft_labels(storage, store, study_id, lesson.teacher.artifact, lesson.content)


def _list_points(spec: StudySpec, points: Sequence[Params] | None) -> list[Point] | None:
    """The cells in the order of claims; None where they follow from what the study has accepted before."""
    if points is not None:
        return [make_point(params) for params in points]
    return ordered_points(spec) if spec.search.is_grid else None


def _create_in_optuna(storage: Storage, spec: StudySpec) -> int:
    trials = open_optuna(storage)
    study = optuna.create_study(
        study_name=spec.name,
        storage=trials,
        direction=spec.metric.direction,
        sampler=sampler_of(spec),
        pruner=make_pruner(spec),
        load_if_exists=True,
    )
    # Trials first: one of ours is created after our row and its cells.
    if study.get_trials(deepcopy=False):
        _check_trials_are_ours(storage, spec.name)
    return study_id_of(study)


def _check_trials_are_ours(storage: Storage, name: str) -> None:
    """Refuse trials that no cell accounts for, as cells that are made now would have a second result beside them."""
    record = find_study_or_none(storage, name)
    if record is None:
        raise JoinRefusedError(
            f"study {name}: must be one that fmnist-optuna made, but another program did; "
            "choose another name (--name NEW)."
        )
    if not History(storage, record.study_id).counts().total:
        raise _deletion_broke_off(name)


@retrying
def _seed(
    ledger: Ledger,
    spec: StudySpec,
    ordered: list[Point] | None,
    data: OfferedData,
    code: OfferedCode | None,
    parent: StudyRecord | None,
) -> tuple[StudyRecord, int]:
    """Our row of the study and its cells, in one transaction."""
    storage, study_id = ledger.storage, ledger.study_id
    with storage.write() as connection:
        _insert_row(connection, ledger, spec, data, parent)
        row = _lock_row(connection, study_id, spec.name)
        if not lock_in_optuna(connection, study_id):
            raise JoinRefusedError(f"study {spec.name}: was deleted a moment ago; run it again.")
        before = read_record(row)
        check_join(before, spec, data)
        if parent is None:
            check_same_place(before, storage.options.artifacts)
        if code is not None:
            join_code(connection, storage, study_id, spec.name, code)
        store_ranges(connection, study_id, _accept(connection, before, row, spec))
        _take_over(connection, row, spec)
        record = read_record(connection.execute(select(studies).where(studies.c.study_id == study_id)).one())
        n_new = ledger.add_cells(connection, new_points(before, record) if ordered is None else ordered)
    return record, n_new


def _insert_row(
    connection: Connection, ledger: Ledger, spec: StudySpec, data: OfferedData, parent: StudyRecord | None
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
        "artifacts": None if data.place is None else data.place.to_url(),
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
        raise _deletion_broke_off(row.study_name)
    return row


def _deletion_broke_off(name: str) -> JoinRefusedError:
    return JoinRefusedError(
        f"study {name}: must be there or be gone, but its deletion broke off; finish it: fmnist-optuna delete {name}"
    )


def _accept(connection: Connection, before: StudyRecord, row: StoredRow, spec: StudySpec) -> list[Accepted]:
    """All accepted grids, or stages of another search, that of the specification among them."""
    accepted: list[Accepted] = json.loads(row.grids)
    if spec.search.is_grid:
        offered: Accepted = {name: list(values) for name, values in spec.cell_grid.items()}
        is_new = offered not in accepted
    else:
        offered = stage_of(grow(before.accepted, spec))
        is_new = all(tables_of(stage) != offered for stage in accepted)
    if is_new:
        drawn_by = {DRAWN_BY: sequence_version()} if spec.search.sampler == "qmc" else {}
        accepted.append({**offered, **drawn_by})
        is_own = studies.c.study_id == row.study_id
        connection.execute(update(studies).where(is_own).values(grids=json.dumps(accepted)))
    return accepted


def _take_over(connection: Connection, row: StoredRow, spec: StudySpec) -> None:
    """Let what may differ between runs be that of the newest: how often checkpoints are written, what is confirmed."""
    stored = restore_spec(upgrade_spec(json.loads(row.spec), row.spec_version), "its specification")
    wanted = {"checkpoint_seconds": spec.training.checkpoint_seconds}
    training = stored.training.model_copy(update=wanted)
    new = stored.model_copy(update={"training": training, "confirm": spec.confirm})
    if new != stored:
        values = {"spec_version": SPEC_VERSION, "spec": new.model_dump_json(), "spec_sha256": new.digest}
        connection.execute(update(studies).where(studies.c.study_id == row.study_id).values(values))
