"""Whether a study that is there agrees with what a run wants of it; only grids, spaces and numbers of trials grow."""

from dataclasses import dataclass

from optuna.distributions import check_distribution_compatibility

from fmnist_optuna.artifacts.place import Place
from fmnist_optuna.bridge.trials import make_distributions
from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.source import with_source
from fmnist_optuna.errors import JoinRefusedError, MismatchError
from fmnist_optuna.json_value import Json
from fmnist_optuna.spec.differences import differences
from fmnist_optuna.spec.growth import find_obstacles, is_known
from fmnist_optuna.spec.study_names import searched_study
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.records import StudyRecord
from fmnist_optuna.study.teacher import Teacher


@dataclass(frozen=True)
class OfferedData:
    """What the source of a specification gives on this machine, and what comes with it to a new study.

    Args:
        teacher: Whose answers it learns from.
        place: Of its artifacts.
    """

    fingerprint: str
    info: DatasetInfo
    teacher: Teacher | None
    place: Place | None


def check_join(record: StudyRecord, spec: StudySpec, data: OfferedData) -> None:
    """Refuse what a run wants of a study if more differs than may grow.

    Raises:
        JoinRefusedError: The study differs in source, model, training, seed or pruner, or has what is not wanted.
        MismatchError: It agrees in all of these, but its source gives other data here.
    """
    lines = differences(_compared_part(record.spec), _compared_part(spec))
    lines += _differences_of_search(record, spec)
    if lines:
        another = "Choose another name (--name NEW), or"
        if searched_study(spec.name) != spec.name:  # its name is fixed
            another = "Keep its report, as its openings of the test set go with it, then"
        raise JoinRefusedError(
            f"study {spec.name}: exists with another specification.\n"
            + "".join(f"  {line}\n" for line in lines)
            + f"{another} remove it: fmnist-optuna delete {spec.name}"
        )
    if record.data_fingerprint != data.fingerprint:
        raise MismatchError(_describe_other_data(record, data))


def _differences_of_search(record: StudyRecord, spec: StudySpec) -> list[str]:
    """What a grid or another search lacks to be a larger one of the study's."""
    if record.spec.search.sampler != spec.search.sampler:
        return []  # of which other lines tell
    if record.spec.axes.keys() != spec.axes.keys():
        names = f"the study has {sorted(record.spec.axes)}, this run {sorted(spec.axes)}"
        return [f"{spec.searched} names: {names}"]
    if spec.search.is_grid:
        return _new_choices(record, spec)
    is_first = not record.accepted or is_known(record.accepted, spec)
    return [] if is_first else find_obstacles(record.accepted[-1], spec)


def _compared_part(spec: StudySpec) -> dict[str, Json]:
    """What must agree. Some studies have the number of images that was asked for, where fewer are held out."""
    fixed = spec.model_copy(update={"data": with_source(spec.data, spec.data.source)}).fixed_part()
    return {**fixed, "objective": spec.objective.model_dump(mode="json")}


def _describe_other_data(record: StudyRecord, data: OfferedData) -> str:
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
