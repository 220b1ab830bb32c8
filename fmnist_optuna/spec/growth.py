"""How a search that is no grid grows: what a study accepts of a later study file, and what then holds."""

from collections.abc import Mapping, Sequence

from fmnist_optuna.json_value import Json
from fmnist_optuna.search.cell import canonical_json
from fmnist_optuna.search.space import Space, describe_dimension
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.wording import count

OF_STAGE = ("search", "space", "enqueue")  # tables of a study file that a stage of a search has
DRAWN_BY = "drawn_by"  # stands beside them: the version of SciPy that drew the points of the stage


def stage_of(spec: StudySpec) -> dict[str, Json]:
    """What a study keeps of each stage of its search."""
    content: dict[str, Json] = spec.model_dump(mode="json", include=set(OF_STAGE))
    return content


def tables_of(stage: Mapping[str, object]) -> dict[str, object]:
    """What `stage_of` gave, of a stage as a study keeps it."""
    tables = {**stage}
    tables.pop(DRAWN_BY, None)
    return tables


def read_drawn_by(stage: Mapping[str, object]) -> str:
    """Which version of SciPy drew the points of a stage; "" where that is not known, or drew none."""
    return str(stage.get(DRAWN_BY, ""))


def read_space(stage: Mapping[str, object]) -> Space:
    """The space of a stage."""
    return StudySpec.model_validate(tables_of(stage)).dimensions


def find_obstacles(newest: StudySpec, given: StudySpec) -> list[str]:
    """Why a study cannot accept a search, a line each; none where it can.

    Args:
        newest: The last stage that it has accepted.
        given: Of the same names.
    """
    old, new = newest.dimensions, given.dimensions
    lines = [
        f"space.{name}: the study has {describe_dimension(old[name])}, this run {describe_dimension(new[name])}; "
        "a range may become wider, and all else must stay"
        for name in sorted(old)
        if not new[name].holds(old[name])
    ]
    n_old, n_new = len(newest.enqueue), len(given.enqueue)
    if canonical_json(given.enqueue[:n_old]) != canonical_json(newest.enqueue):
        lines.append(f"enqueue: the study has {count(n_old, 'point')}, with which those of this run must begin")
    elif n_new - n_old > max(0, given.n_points - newest.n_points):
        n_cells = count(max(0, given.n_points - newest.n_points), "further cell")
        lines.append(
            f"enqueue: each further point must have a cell of its own, but there are {n_new - n_old} for {n_cells}; "
            f"set search.n_trials to at least {newest.n_points + n_new - n_old}"
        )
    return lines


def is_known(accepted: Sequence[StudySpec], given: StudySpec) -> bool:
    """Whether a search asks for nothing that a study has not accepted, as the same study file of an earlier time."""
    if not accepted or given.n_points > accepted[-1].n_points:
        return False
    return any(_asks_for(stage) == _asks_for(given) for stage in accepted)


def _asks_for(spec: StudySpec) -> str:
    return canonical_json(spec.model_dump(mode="json", include={"space", "enqueue"}))


def grow(accepted: Sequence[StudySpec], given: StudySpec) -> StudySpec:
    """A search with all that a study has accepted: no fewer trials than before."""
    if not accepted:
        return given
    if is_known(accepted, given):
        return accepted[-1]
    n_trials = max(given.n_points, accepted[-1].n_points)
    return given.model_copy(update={"search": given.search.model_copy(update={"n_trials": n_trials})})
