"""StudySpec: what a study searches, table by table, each value checked.

Owns the tables of a study file and their rules. Knows no Keras, no Optuna, no database.
"""

import hashlib
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictInt,
    StrictStr,
    field_validator,
    model_serializer,
    model_validator,
)

from fmnist_optuna.json_value import Json
from fmnist_optuna.search.cell import Grid, Params, canonical_json
from fmnist_optuna.search.ladder import LadderRule
from fmnist_optuna.search.metric import Metric
from fmnist_optuna.search.repeats import Repeats
from fmnist_optuna.search.space import Space
from fmnist_optuna.spec.data_spec import SOURCE_PATTERN, DataSpec
from fmnist_optuna.spec.objective import METRIC_PATTERN, METRIC_RULE, ObjectiveSpec, describe_objective
from fmnist_optuna.spec.options import AugmentSpec, Options, Table, read_options
from fmnist_optuna.spec.pruning import PrunerSpec, check_repeats, default_pruner, describe_pruner
from fmnist_optuna.spec.space import Enqueued, SearchSpec, SpaceSpec, check_search, check_space, to_space
from fmnist_optuna.spec.study_names import ALL_DATA_SUFFIX, NAME_PATTERN
from fmnist_optuna.spec.training import CALLBACK_PATTERN, TEACHER_PATTERN, TrainingSpec
from fmnist_optuna.spec.values import Value, check_arguments, check_values

MAX_CELLS = 1_000_000  # a grid beyond it is a typing error, and would fill the memory before anything is said
ARCHITECTURE_PATTERN = r"^(dense|conv|resnet|[\w.]+:\w+)$"
PATTERN_RULES = {
    NAME_PATTERN: "must be letters, digits, dots, dashes and underscores, at most 100, the first a letter or digit",
    TEACHER_PATTERN: "must be the name of a study, or empty",
    ARCHITECTURE_PATTERN: 'must be "dense", "conv", "resnet" or "package.module:function"',
    CALLBACK_PATTERN: 'must be "package.module:function"',
    SOURCE_PATTERN: 'must be "auto", "fashion-mnist", "synthetic", "idx:DIR", "folder:DIR", "npz:FILE", "keras:NAME" '
    'or "package.module:function"',
    METRIC_PATTERN: METRIC_RULE,
}


class ModelSpec(BaseModel):
    """The architecture, a built-in one or "package.module:function", and its fixed arguments as further keys."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Value] = Field(init=False)
    architecture: StrictStr = Field(default="dense", pattern=ARCHITECTURE_PATTERN)

    @property
    def is_own(self) -> bool:
        """Whether the architecture is a function of the user's own."""
        return ":" in self.architecture

    @property
    def arguments(self) -> Params:
        """Fixed arguments of the architecture's function, by name."""
        return dict(self.__pydantic_extra__ or {})


class ConfirmSpec(Table):
    """How many of the best cells are confirmed, over how many fresh seeds, and how the winner answers."""

    top: StrictInt = Field(default=3, ge=1, le=1000)
    seeds: StrictInt = Field(default=5, ge=2, le=1000)
    flip: StrictBool = False


def _default_grid(given: Mapping[str, object]) -> dict[str, tuple[Value, ...]]:
    """The default of a grid; none where another sampler takes [space]."""
    search = given.get("search")
    if isinstance(search, SearchSpec) and not search.is_grid:
        return {}
    return {"hidden_size": (64, 128, 256), "dropout_rate": (0.2, 0.3, 0.5), "learning_rate": (0.01, 0.001, 0.0001)}


class StudySpec(Table):
    """A whole study file. Every table is optional; the defaults are the 27-cell dense grid on Fashion-MNIST."""

    name: StrictStr = Field(default="fashion-mnist", pattern=NAME_PATTERN)
    data: DataSpec = DataSpec()
    model: ModelSpec = ModelSpec()
    search: SearchSpec = SearchSpec()
    space: SpaceSpec = Field(default_factory=dict)
    enqueue: Enqueued = ()
    grid: dict[str, tuple[Value, ...]] = Field(default_factory=_default_grid)
    training: TrainingSpec = TrainingSpec()
    augment: AugmentSpec = AugmentSpec()
    objective: ObjectiveSpec = ObjectiveSpec()
    pruner: PrunerSpec = Field(default_factory=default_pruner)
    confirm: ConfirmSpec = ConfirmSpec()

    @field_validator("grid")
    @classmethod
    def _check_grid(cls, grid: dict[str, tuple[Value, ...]]) -> dict[str, tuple[Value, ...]]:
        if not grid:
            raise ValueError("must name at least one parameter, but is empty")
        for name, values in grid.items():
            check_values(name, values)
        n_cells = math.prod(len(values) for values in grid.values())
        if n_cells > MAX_CELLS:
            raise ValueError(f"must have at most {MAX_CELLS:,} cells, but has {n_cells:,}")
        return grid

    @field_validator("space")
    @classmethod
    def _check_space(cls, space: SpaceSpec) -> SpaceSpec:
        check_space(space)
        return space

    @model_validator(mode="after")
    def _searches_one_of_both(self) -> "StudySpec":
        check_search(self.search, self.grid, self.space, self.enqueue)
        check_repeats(self.repeats, self.axes, self.pruner)
        if self.n_cells > MAX_CELLS:
            key = "search.repeats" if self.repeats.n_seeds > 1 else "data.folds"
            raise ValueError(f"{key} must give at most {MAX_CELLS:,} cells, but gives {self.n_cells:,}")
        return self

    @model_validator(mode="after")
    def _check_arguments(self) -> "StudySpec":
        if both := next((name for name in self.model.arguments if name in self.axes), None):
            why = "" if self.searched in self.model_fields_set else ", as it is in the default grid; give a [grid]"
            raise ValueError(f"{both} must be in [{self.searched}] or in [model], but is in both{why}")
        check_arguments(self.model.architecture, self.model.arguments, self.searched, self.axes)
        return self

    @model_validator(mode="after")
    def _learns_from_another(self) -> "StudySpec":
        if self.training.teacher == self.name:
            raise ValueError(f"training.teacher must be another study, but {self.name} is this one")
        if self.training.teacher and self.data.folds:
            raise ValueError(
                f"training.teacher must go without data.folds, as a teacher was validated by other images, but "
                f"data.folds is {self.data.folds}; remove one of both"
            )
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_says_nothing(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        """A study of a grid, or of the accuracy, is what it was before there was a choice."""
        left_out = {"space", "enqueue"} if self.search.is_grid else {"grid"}
        left_out |= {"search"} if self.search.is_grid and self.search.repeats == 1 else set()
        left_out |= set() if self.enqueue else {"enqueue"}
        left_out |= {"objective"} if self.objective.is_default else set()
        return {name: value for name, value in serialize(self).items() if name not in left_out}

    @property
    def searched(self) -> Literal["grid", "space"]:
        """The table with the parameters that are searched."""
        return "grid" if self.search.is_grid else "space"

    @property
    def axes(self) -> Mapping[str, Sequence[Value]]:
        """The parameters that are searched, with all values of a grid or choice, or both ends of a range."""
        if self.search.is_grid:
            return self.grid
        return {name: dimension.ends for name, dimension in self.dimensions.items()}

    @property
    def cell_axes(self) -> tuple[str, ...]:
        """The names of all parameters that set cells apart: those that are searched, seeds and folds."""
        return (*self.axes, *self.repeats.axes)

    @property
    def dimensions(self) -> Space:
        """The space as numbers; empty of a grid."""
        return to_space(self.space)

    @property
    def n_points(self) -> int:
        """Number of points: all of the grid, or as many as there are to be trials."""
        if self.search.n_trials is not None:
            return self.search.n_trials
        return math.prod(len(values) for values in self.grid.values())

    @property
    def repeats(self) -> Repeats:
        """How often each point is trained; what follows from a study with folds is trained on all of them."""
        return Repeats(self.search.repeats, 0 if self.name.endswith(ALL_DATA_SUFFIX) else self.data.folds)

    @property
    def n_cells(self) -> int:
        """Number of cells: of each point as many as it is trained often."""
        return self.n_points * self.repeats.n_cells

    @property
    def cell_grid(self) -> Grid:
        """The grid of all cells, of which repeats are further axes; empty where another sampler takes [space]."""
        if self.repeats.n_cells == 1 or not self.search.is_grid:
            return self.grid
        return {**self.grid, **self.repeats.axes}

    @property
    def has_own_code(self) -> bool:
        """Whether any code is the user's own; a built-in architecture without callbacks is ours."""
        return self.model.is_own or bool(self.training.callbacks)

    def named_functions(self) -> Iterator[tuple[str, str]]:
        """Key and "package.module:function" of everything that a training imports of the user's."""
        if self.model.is_own:
            yield "model.architecture", self.model.architecture
        if self.data.is_function:
            yield "data.source", self.data.source
        for name in self.training.callbacks:
            yield "training.callbacks", name

    @property
    def pruner_note(self) -> str | None:
        """What is to be known of the pruner where there are folds, or the rate has a schedule; None elsewhere."""
        if self.repeats.n_folds:
            return "no cell is cut, as the mean of a point needs all its folds"
        return describe_pruner(self.pruner, self.training, self.axes)

    @property
    def metric(self) -> Metric:
        """What its cells are compared by."""
        return self.objective.to_metric()

    @property
    def objective_note(self) -> str | None:
        """What is to be known where cells are compared by another metric than the accuracy; None for that."""
        return describe_objective(self.metric, self.pruner.name)

    def fixed_part(self) -> dict[str, Json]:
        """What every run of a study must agree on: all but the name, what may grow, and the confirmation."""
        growing = dict.fromkeys(("grid", "space", "enqueue"), True)
        return self.model_dump(
            mode="json",
            exclude={
                **growing,
                "name": True,
                "confirm": True,
                "search": {"n_trials"},
                "training": {"checkpoint_seconds"},
            },
        )

    def trained_part(self) -> dict[str, Json]:
        """What the training of a cell depends on beside the cell and the data: no pruner changes an epoch."""
        return {name: value for name, value in self.fixed_part().items() if name not in ("pruner", "search")}

    def options_of(self, params: Params, taken: Container[str]) -> Options:
        """The options of a cell's training.

        Args:
            taken: Names of the architecture's parameters, which are not the training's.
        """
        return read_options(self.training, self.augment, params, taken)

    def ladder_rule(self) -> LadderRule:
        """The rule by which the ladder compares cells of this study, whatever its pruner is."""
        return LadderRule(
            first_rung=self.pruner.first_rung,
            kappa=self.pruner.kappa,
            margin=self.pruner.margin,
            n_validation=self.data.n_validation,
            max_epochs=self.training.max_epochs,
            keep=self.pruner.keep * self.repeats.n_cells,
            is_share=self.metric.is_share,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the whole specification."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()
