"""The studies of a storage: create, join, find, list, stop, delete.

A study is one row of ours in `fmnist_studies` and one study of Optuna under the same name. Reading commands need
only the row.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, or_, select, update

from fmnist_optuna import __version__
from fmnist_optuna.data.built_in import BUILT_IN
from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.errors import (
    DataError,
    JoinRefusedError,
    MismatchError,
    NotFoundError,
    SpecError,
    UnreadableStudyError,
    UsageError,
)
from fmnist_optuna.ledger.cells import Ledger
from fmnist_optuna.ledger.codes import OfferedCode, join_code
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.storage import Storage, insert_or_ignore
from fmnist_optuna.ledger.tables import StoredRow, cells, codes, epochs, openings, predictions, studies, workers
from fmnist_optuna.search.cell import Params, ParamValue, Point, make_point, make_points
from fmnist_optuna.search.metric import VAL_ACCURACY
from fmnist_optuna.spec.stored import SPEC_VERSION, upgrade_spec
from fmnist_optuna.spec.study_spec import StudySpec, differences, restore_spec

SEARCH, CONFIRMING = "search", "confirmation"  # kinds of a study
N_FIRST_GENERATIONS = 2**30  # half of what an INTEGER of Postgres can count


@dataclass(frozen=True)
class StudyRecord:
    """A study as its row in `fmnist_studies` has it.

    Args:
        spec: The specification that made the study; its grid is the newest accepted one.
        grids: Every accepted grid, the newest last.
        data_source: "fashion-mnist", "synthetic" or "package.module:function".
        data_fingerprint: SHA-256 over images, labels and split.
        info: What the images and labels of its data are.
        generation: How often the study was told to stop.
        created_at: Seconds since 1970 UTC.
        kind: "search", or "confirmation" of another study.
        parent_id: The study that it confirms; None for a search.
    """

    study_id: int
    name: str
    spec: StudySpec
    grids: tuple[Mapping[str, tuple[ParamValue, ...]], ...]
    data_source: str
    data_fingerprint: str
    info: DatasetInfo
    generation: int
    created_at: float
    kind: str = SEARCH
    parent_id: int | None = None

    @property
    def is_confirmation(self) -> bool:
        """Whether it trains the best cells of another study over fresh seeds."""
        return self.kind == CONFIRMING


@dataclass(frozen=True)
class UnreadableStudy:
    """A study that this version cannot read, so that all but `list` and `delete` refuse it.

    Args:
        reason: What is wrong with its row, in one line.
        kind: "search", or "confirmation" of another study.
        parent_id: The study that it confirms; None for a search.
    """

    study_id: int
    name: str
    reason: str
    kind: str = SEARCH
    parent_id: int | None = None


def create_or_join(
    storage: Storage,
    spec: StudySpec,
    data_fingerprint: str,
    points: Sequence[Params] | None = None,
    code: OfferedCode | None = None,
    parent: StudyRecord | None = None,
    info: DatasetInfo | None = None,
) -> tuple[StudyRecord, int]:
    """Create a study, or join it when everything but the grid agrees, and insert the cells that are missing.

    Args:
        spec: With the data source decided and the grid bound to the architecture's types.
        data_fingerprint: Of the data that this machine will train on.
        points: The only points of the grid to make cells of, in the order of claims; None for the whole grid.
        code: What is to train; None where nothing of the user's does.
        parent: The study that it confirms; None for a search.
        info: Of the data; None for that of the built-in source.

    Returns:
        The study as it is now and the number of new cells.

    Raises:
        JoinRefusedError: The study exists and differs in source, model, training, seed, pruner or code.
        MismatchError: It agrees in all of these, but its source gives other data here.
    """
    # Before the locked transaction.
    ordered = ordered_points(spec) if points is None else [make_point(params) for params in points]
    study_id = _create_in_optuna(storage, spec)
    ledger = Ledger(storage, study_id)
    data = _OfferedData(data_fingerprint, info or BUILT_IN[spec.data.source])
    return _seed(ledger, spec, ordered, data, code, parent)


def _create_in_optuna(storage: Storage, spec: StudySpec) -> int:
    import optuna

    from fmnist_optuna.bridge.ids import study_id_of
    from fmnist_optuna.bridge.storage import open_optuna
    from fmnist_optuna.bridge.trials import make_pruner, make_sampler

    trials = open_optuna(storage)
    study = optuna.create_study(
        study_name=spec.name,
        storage=trials,
        direction=VAL_ACCURACY.direction,
        sampler=make_sampler(spec.grid),
        pruner=make_pruner(spec.pruner),
        load_if_exists=True,
    )
    # Trials first: one of ours is created after our row.
    if study.get_trials(deepcopy=False) and find_study_or_none(storage, spec.name) is None:
        raise JoinRefusedError(
            f"study {spec.name}: must be one that fmnist-optuna made, but another program did; "
            "choose another name with --name."
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
    from fmnist_optuna.bridge.ranges import store_ranges

    storage, study_id = ledger.storage, ledger.study_id
    with storage.write() as connection:
        connection.execute(
            insert_or_ignore(storage, studies).values(
                study_id=study_id,
                study_name=spec.name,
                kind=SEARCH if parent is None else CONFIRMING,
                parent_id=None if parent is None else parent.study_id,
                # SQLite gives the id of a deleted study to the next one: a worker of the old one must not fit it.
                generation=secrets.randbelow(N_FIRST_GENERATIONS),
                spec_version=SPEC_VERSION,
                spec=spec.model_dump_json(),
                spec_sha256=spec.digest,
                grids="[]",
                data_source=spec.data.source,
                data_fingerprint=data.fingerprint,
                data_info=None if spec.data.source in BUILT_IN else json.dumps(data.info.to_content()),
                created_at=storage.now,
            )
        )
        is_either = or_(studies.c.study_id == study_id, studies.c.study_name == spec.name)
        row, *others = connection.execute(select(studies).where(is_either).with_for_update(key_share=True)).all()
        if others or row.study_id != study_id or row.study_name != spec.name:
            raise JoinRefusedError(
                f"study {row.study_name}: must be there or be gone, but its deletion broke off; "
                f"finish it: fmnist-optuna delete {row.study_name}"
            )
        _check_join(_record(row), spec, data)
        if code is not None:
            join_code(connection, storage, study_id, spec.name, code)
        grids = json.loads(row.grids)
        grid = {name: list(values) for name, values in spec.grid.items()}
        if grid not in grids:
            grids.append(grid)
            connection.execute(update(studies).where(studies.c.study_id == study_id).values(grids=json.dumps(grids)))
        store_ranges(connection, study_id, grids)
        n_new = ledger.add_cells(connection, ordered)
        record = _record(connection.execute(select(studies).where(studies.c.study_id == study_id)).one())
    return record, n_new


def ordered_points(spec: StudySpec) -> list[Point]:
    """The cells in the order of claims: that of a stock GridSampler, shuffled, so that a pruner soon sees a mixture."""
    from fmnist_optuna.bridge.trials import make_sampler

    sampler = make_sampler(spec.grid)
    return sorted(make_points(spec.grid), key=lambda point: sampler.grid_id(point.params))


@dataclass(frozen=True)
class _OfferedData:
    """What the source of a specification gives on this machine."""

    fingerprint: str
    info: DatasetInfo


def _check_join(record: StudyRecord, spec: StudySpec, data: _OfferedData) -> None:
    lines = differences(record.spec.fixed_part(), spec.fixed_part())
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
    from optuna.distributions import check_distribution_compatibility

    from fmnist_optuna.bridge.trials import make_distributions

    lines = []
    accepted = record.grids or (record.spec.grid,)
    stored, given = make_distributions(accepted), make_distributions([*accepted, spec.grid])
    for name in sorted(given):
        try:
            check_distribution_compatibility(stored[name], given[name])
        except ValueError:
            lines.append(f"grid.{name}: the study has {list(record.spec.grid[name])}, this run {list(spec.grid[name])}")
    return lines


def _record(row: StoredRow) -> StudyRecord:
    """A study from its row.

    Raises:
        UnreadableStudyError: The row is damaged or of another version.
    """
    study = _record_or_unreadable(row)
    if isinstance(study, UnreadableStudy):
        raise UnreadableStudyError(
            f"study {study.name}: must be one that fmnist-optuna {__version__} can read, but {study.reason}; "
            f"use the version that made it, or remove it: fmnist-optuna delete {study.name}"
        )
    return study


def _record_or_unreadable(row: StoredRow) -> StudyRecord | UnreadableStudy:
    try:
        content = upgrade_spec(json.loads(row.spec), row.spec_version)
        spec = restore_spec(content, "its specification")
        # Each grid by the rules of a study file; a study is created with none, an instant before its first.
        specs = [restore_spec({**spec.model_dump(), "grid": grid}, "its grids") for grid in json.loads(row.grids)]
        if any(each.grid.keys() != spec.grid.keys() for each in specs):
            raise ValueError("its grids have other parameters than its specification")
        _check_columns(row, spec)
        return StudyRecord(
            study_id=row.study_id,
            name=row.study_name,
            spec=specs[-1] if specs else spec,
            grids=tuple(each.grid for each in specs),
            data_source=row.data_source,
            data_fingerprint=row.data_fingerprint,
            info=_read_info(row),
            generation=row.generation,
            created_at=row.created_at,
            kind=row.kind,
            parent_id=row.parent_id,
        )
    except json.JSONDecodeError as error:
        reason = f"its specification or its grids are no JSON ({error})"
    except (SpecError, DataError, ValueError, TypeError, RecursionError) as error:  # whatever a damaged row provokes
        reason = " ".join(str(error).split()).rstrip(".")
    return UnreadableStudy(row.study_id, str(row.study_name), reason, row.kind, row.parent_id)


def _read_info(row: StoredRow) -> DatasetInfo:
    """What is stored of the user's own data, or what a built-in source has."""
    if row.data_source in BUILT_IN:
        return BUILT_IN[row.data_source]
    if not isinstance(row.data_info, str):
        raise ValueError(f"its data_info is {row.data_info!r:.80}")
    return DatasetInfo.from_content(json.loads(row.data_info))


def _check_columns(row: StoredRow, spec: StudySpec) -> None:
    """SQLite keeps whatever is written into a column."""
    is_right = {
        "data_source": row.data_source == spec.data.source,
        "data_fingerprint": isinstance(row.data_fingerprint, str),
        "generation": isinstance(row.generation, int),
        "created_at": isinstance(row.created_at, float | int),
    }
    for column, right in is_right.items():
        if not right:
            raise ValueError(f"its {column} is {getattr(row, column)!r:.80}")


@retrying
def find_study_or_none(storage: Storage, name: str) -> StudyRecord | None:
    """The study of this name, or None."""
    with storage.read() as connection:
        row = connection.execute(select(studies).where(studies.c.study_name == name)).one_or_none()
    return None if row is None else _record(row)


@retrying
def find_study(storage: Storage, name: str | None) -> StudyRecord:
    """The study of this name; without a name the only study there, confirmations aside.

    Raises:
        NotFoundError: No such study, or none at all.
        UsageError: No name, and several studies.
        UnreadableStudyError: This version cannot read the study; without a name, the only one there.
    """
    if name is not None:
        record = find_study_or_none(storage, name)
        if record is None:
            raise _no_such_study(storage, name)
        return record
    candidates = [study for study in list_studies(storage) if study.kind == SEARCH]
    readable = [study for study in candidates if isinstance(study, StudyRecord)]
    if not candidates:
        raise NotFoundError(f"There is no study in {storage.name}; `fmnist-optuna run` makes one.")
    if len(readable) == 1:
        return readable[0]
    if len(candidates) == 1:
        return find_study(storage, candidates[0].name)  # which says what is wrong with it
    names = ", ".join(study.name if study in readable else f"{study.name} (unreadable)" for study in candidates)
    raise UsageError(f"STUDY must be named, as there are several in {storage.name}: {names}.")


def find_confirmation_study(storage: Storage, record: StudyRecord) -> StudyRecord | None:
    """The study that confirms this one, or None."""
    return next(map(_record, _confirmations(storage, record.study_id)), None)


def _confirmations(storage: Storage, study_id: int) -> Sequence[StoredRow]:
    """The rows of the studies that confirm this one: at most one, as its name is made of this one's."""
    with storage.read() as connection:
        return connection.execute(select(studies).where(studies.c.parent_id == study_id)).all()


def find_readable_or_not(storage: Storage, name: str) -> StudyRecord | UnreadableStudy:
    """The study of this name, whether or not this version can read it.

    Raises:
        NotFoundError: No such study.
    """
    for study in list_studies(storage):
        if study.name == name:
            return study
    raise _no_such_study(storage, name)


def _no_such_study(storage: Storage, name: str) -> NotFoundError:
    return NotFoundError(f"There is no study {name} in {storage.name}; `fmnist-optuna list` shows what there is.")


def list_studies(storage: Storage) -> list[StudyRecord | UnreadableStudy]:
    """All studies, the oldest first."""
    with storage.read() as connection:
        return [
            _record_or_unreadable(row) for row in connection.execute(select(studies).order_by(studies.c.created_at))
        ]


def raise_generation(storage: Storage, study_id: int) -> None:
    """Let every worker of a study leave at its next look, wherever it runs."""
    with storage.write() as connection:
        connection.execute(
            update(studies).where(studies.c.study_id == study_id).values(generation=studies.c.generation + 1)
        )


def delete_study(storage: Storage, record: StudyRecord | UnreadableStudy) -> None:
    """Remove a study with its trials, curves, openings, weights and confirmation.

    Workers that still run find no cell and leave.
    """
    import optuna

    from fmnist_optuna.bridge.artifacts import remove_artifacts
    from fmnist_optuna.bridge.ids import study_id_of
    from fmnist_optuna.bridge.storage import open_optuna

    for confirmation in _confirmations(storage, record.study_id):
        delete_study(storage, _record_or_unreadable(confirmation))
    trials = open_optuna(storage)
    try:
        attempts = trials.get_all_trials(record.study_id, deepcopy=False)
    except KeyError:  # an earlier delete died halfway
        attempts = []
    for attempt in attempts:
        remove_artifacts(storage.artifacts, trials, attempt)
    with storage.write() as connection:
        opened = select(openings.c.opening_id).where(openings.c.study_id == record.study_id)
        connection.execute(delete(predictions).where(predictions.c.opening_id.in_(opened)))
        for table in (cells, codes, epochs, openings, workers):
            connection.execute(delete(table).where(table.c.study_id == record.study_id))
    for summary in trials.get_all_studies():
        if summary.study_name == record.name:  # by name: after a deletion that broke off, `run` may have made another
            remove_artifacts(storage.artifacts, trials, optuna.load_study(study_name=record.name, storage=trials))
            trials.delete_study(study_id_of(summary))
    with storage.write() as connection:  # last, so that a delete that died can be repeated by name
        connection.execute(delete(studies).where(studies.c.study_id == record.study_id))
