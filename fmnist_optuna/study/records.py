"""What a study is: its record, read from its row and checked, or why this version cannot read it."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from fmnist_optuna import __version__
from fmnist_optuna.artifacts.place import Place, read_place
from fmnist_optuna.data.built_in import BUILT_IN
from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.errors import DataError, UnreadableStudyError, UsageError
from fmnist_optuna.ledger.tables import StoredRow
from fmnist_optuna.search.cell import Params, ParamValue
from fmnist_optuna.search.metric import Metric
from fmnist_optuna.spec.growth import read_drawn_by, tables_of
from fmnist_optuna.spec.reading import restore_spec
from fmnist_optuna.spec.stored import upgrade_spec
from fmnist_optuna.spec.study_names import ALL_DATA_SUFFIX, CONFIRMATION_SUFFIX
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.teacher import Teacher
from fmnist_optuna.wording import reason_of

SEARCH, CONFIRMATION, ALL_DATA = "search", "confirmation", "all-data"  # kinds of a study
KINDS = {CONFIRMATION_SUFFIX: CONFIRMATION, ALL_DATA_SUFFIX: ALL_DATA}  # of those that follow from another


@dataclass(frozen=True)
class StudyRecord:
    """A study as its row in `fmnist_studies` has it.

    Args:
        spec: The specification that made the study; its grid, or its search and space, are the newest accepted ones.
        accepted: The same with each grid, or stage of another search, that was accepted, the newest last.
        data_source: "fashion-mnist", "synthetic" or "package.module:function".
        data_fingerprint: SHA-256 over images, labels and split.
        info: What the images and labels of its data are.
        generation: How often the study was told to stop.
        created_at: Seconds since 1970 UTC.
        kind: "search"; "confirmation" of another study, or "all-data": what that chose, trained on all of its data.
        parent_id: The study that it follows from; None for a search.
        teacher: Whose answers it learns from; None for nobody's. Which of its cells do, `teacher_of` says.
        place: Of its artifacts; None for the folder beside the storage.
        drawn_by: Of each stage in `accepted`, the version of SciPy that drew its points; "" where that is not known, or
            drew none.
    """

    study_id: int
    name: str
    spec: StudySpec
    accepted: tuple[StudySpec, ...]
    data_source: str
    data_fingerprint: str
    info: DatasetInfo
    generation: int
    created_at: float
    kind: str = SEARCH
    parent_id: int | None = None
    teacher: Teacher | None = None
    place: Place | None = None
    drawn_by: tuple[str, ...] = ()

    @property
    def grids(self) -> tuple[Mapping[str, tuple[ParamValue, ...]], ...]:
        """Every accepted grid, the newest last; of a search that is none they are empty."""
        return tuple(each.grid for each in self.accepted)

    def teacher_of(self, params: Params) -> Teacher | None:
        """Whose answers a cell with these parameters learns from; None where they have no share in its loss."""
        return self.teacher if params.get("teacher_weight", self.spec.training.teacher_weight) else None

    @property
    def is_search(self) -> bool:
        """Whether it searches, and does not follow from another study."""
        return self.kind == SEARCH

    @property
    def described_kind(self) -> str:
        """What it is, in words."""
        return {SEARCH: "a search", CONFIRMATION: "a confirmation"}.get(self.kind, "a training on all data")

    @property
    def is_on_all_data(self) -> bool:
        """Whether the validation images are trained on too, so that no val_accuracy of it says what a model can do."""
        return self.kind == ALL_DATA

    @property
    def is_cross_validated(self) -> bool:
        """Whether its points have folds, so that its winner is a point, and no trial of it is tested or exported."""
        return self.spec.repeats.n_folds > 0

    @property
    def metric(self) -> Metric:
        """What its cells are compared by."""
        return self.spec.metric

    @property
    def value_name(self) -> str:
        """What its metric is called at the head of a column."""
        return f"{'seen' if self.is_on_all_data else 'val'} {self.metric.short_name}"

    @property
    def value_in_full(self) -> str:
        """The same within a sentence."""
        return self.accuracy_in_full if self.metric.is_accuracy else self.value_name

    @property
    def accuracy_name(self) -> str:
        """What the accuracy on validation images is called at the head of a column."""
        return "seen acc" if self.is_on_all_data else "val acc"

    @property
    def accuracy_in_full(self) -> str:
        """The same within a sentence."""
        return "seen accuracy" if self.is_on_all_data else "val accuracy"


@dataclass(frozen=True)
class UnreadableStudy:
    """A study that this version cannot read, so that all but `list` and `delete` refuse it.

    Args:
        reason: What is wrong with its row, in one line.
        kind: "search"; "confirmation" of another study, or "all-data": what that chose, trained on all of its data.
        parent_id: The study that it follows from; None for a search.
        place: Of its artifacts; None for the folder beside the storage, and where its row does not say it any more.
    """

    study_id: int
    name: str
    reason: str
    kind: str = SEARCH
    parent_id: int | None = None
    place: Place | None = None

    @property
    def is_on_all_data(self) -> bool:
        """Whether the validation images are trained on too."""
        return self.kind == ALL_DATA


def read_record(row: StoredRow) -> StudyRecord:
    """A study from its row.

    Raises:
        UnreadableStudyError: The row is damaged or of another version.
    """
    study = read_record_or_reason(row)
    if isinstance(study, UnreadableStudy):
        raise UnreadableStudyError(
            f"study {study.name}: must be one that fmnist-optuna {__version__} can read, but {study.reason}; "
            f"use the version that made it, or remove it: fmnist-optuna delete {study.name}"
        )
    return study


def read_record_or_reason(row: StoredRow) -> StudyRecord | UnreadableStudy:
    """A study from its row, or why this version cannot read it."""
    try:
        content = upgrade_spec(json.loads(row.spec), row.spec_version)
        spec = restore_spec(content, "its specification")
        # Each grid by the rules of a study file; a study is created with none, an instant before its first.
        stages = json.loads(row.grids)
        specs = [restore_spec(_with_stage(spec, stage), "its grids") for stage in stages]
        if any(each.axes.keys() != spec.axes.keys() for each in specs):
            raise ValueError("its grids have other parameters than its specification")
        _check_columns(row, spec)
        return StudyRecord(
            study_id=row.study_id,
            name=row.study_name,
            spec=specs[-1] if specs else spec,
            accepted=tuple(specs),
            data_source=row.data_source,
            data_fingerprint=row.data_fingerprint,
            info=_read_info(row),
            generation=row.generation,
            created_at=row.created_at,
            kind=row.kind,
            parent_id=row.parent_id,
            teacher=_read_teacher(row, spec),
            place=_read_place(row),
            drawn_by=() if spec.search.is_grid else tuple(map(read_drawn_by, stages)),
        )
    except json.JSONDecodeError as error:
        reason = f"its specification or its grids are no JSON ({error})"
    except (UsageError, DataError, ValueError, TypeError, RecursionError) as error:  # whatever a damaged row provokes
        reason = reason_of(error)
    place = None
    with contextlib.suppress(UsageError):
        place = _read_place(row)
    return UnreadableStudy(row.study_id, str(row.study_name), reason, row.kind, row.parent_id, place)


def _with_stage(spec: StudySpec, stage: Mapping[str, object]) -> dict[str, object]:
    """The content of a specification with a grid, or a stage of another search, that was accepted."""
    if not spec.search.is_grid:
        return {**spec.model_dump(), **tables_of(stage)}
    if spec.repeats.n_cells > 1 and isinstance(stage, Mapping):  # a damaged row has anything
        stage = {name: values for name, values in stage.items() if name not in spec.repeats.axes}
    return {**spec.model_dump(), "grid": stage}


def _read_info(row: StoredRow) -> DatasetInfo:
    """What is stored of the user's own data, or what a built-in source has."""
    if row.data_source in BUILT_IN:
        return BUILT_IN[row.data_source]
    if not isinstance(row.data_info, str):
        raise ValueError(f"its data_info is {row.data_info!r:.80}")
    return DatasetInfo.from_content(json.loads(row.data_info))


def _read_teacher(row: StoredRow, spec: StudySpec) -> Teacher | None:
    """What is stored of the teacher that the specification names."""
    if not spec.training.teacher:
        return None
    if not isinstance(row.teacher, str):
        raise ValueError(f"its teacher is {row.teacher!r:.80}")
    return Teacher.model_validate_json(row.teacher)


def _read_place(row: StoredRow) -> Place | None:
    return None if row.artifacts is None else read_place(str(row.artifacts))


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
