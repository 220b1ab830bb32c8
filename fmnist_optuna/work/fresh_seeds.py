"""What a model's function does under another seed, and how long its modules take: asked of a child with TensorFlow."""

from collections.abc import Sequence

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.processes.children import Call
from fmnist_optuna.search.cell import Params
from fmnist_optuna.spec.study_spec import StudySpec

DOING = "building models under two seeds"


def find_warnings_in_child(spec: StudySpec, info: DatasetInfo) -> Call[dict[str, str]] | None:
    """A child that builds the smallest cell's model under two seeds; none for a built-in one.

    Its result is a dictionary of warnings by the name of their event: what the seed does not decide or does not change
    ("seeds_fixed"), and modules that take long to execute for every trial ("slow_import").

    Args:
        info: Of the study's data.
    """
    if not spec.model.is_own:  # it draws all that it draws from the seed
        return None
    return Call(_find_warnings, spec, info, doing=DOING)


def _find_warnings(spec: StudySpec, info: DatasetInfo) -> dict[str, str]:
    # These load TensorFlow.
    from fmnist_optuna.training.initial_values import compare_seeds, describe_unseeded
    from fmnist_optuna.training.rehearsal import smallest_cell
    from fmnist_optuna.training.user_code import UserCode

    code = UserCode(spec, info)
    bound = code.bind()
    seed, params = bound.training.seed, smallest_cell(bound).params
    fixed = compare_seeds(code, [(params, seed, seed ^ 1)])
    warnings = {
        "seeds_fixed": describe_unseeded(code, params, seed) if fixed is None else fixed.describe(),
        "slow_import": code.describe_slow_import(),
    }
    return {event: reason for event, reason in warnings.items() if reason is not None}


def check_seeds_in_child(
    spec: StudySpec, info: DatasetInfo, cells: Sequence[tuple[Params, int, int]]
) -> Call[str | None]:
    """A child that refuses cells which start from equal weights under two seeds, or whose result is a warning or None.

    Args:
        info: Of the study's data.
        cells: Parameters and two seeds, each.
    """
    return Call(_check_seeds, spec, info, cells, doing=DOING)


def _check_seeds(spec: StudySpec, info: DatasetInfo, cells: Sequence[tuple[Params, int, int]]) -> str | None:
    # These load TensorFlow.
    from fmnist_optuna.training.initial_values import refuse_fixed_weights
    from fmnist_optuna.training.user_code import UserCode

    warning = refuse_fixed_weights(UserCode(spec, info), cells)
    return warning if spec.model.is_own else None  # a built-in one begins some convolutions as the identity
