"""Whether the seed of a trial, and it alone, decides its model's initial weights: asked of a child with TensorFlow."""

from collections.abc import Sequence

from fmnist_optuna.processes.children import Call
from fmnist_optuna.search.cell import Params
from fmnist_optuna.spec.study_spec import StudySpec

DOING = "building models under two seeds"


def compare_seeds_in_child(spec: StudySpec) -> Call | None:
    """A child that looks at the smallest cell's model; none for "dense".

    Its result is a warning of what the seed does not decide or does not change, or None.
    """
    if spec.model.architecture == "dense":  # it draws all that it draws from the seed
        return None
    return Call(_compare_seeds, spec, doing=DOING)


def _compare_seeds(spec: StudySpec) -> str | None:
    from fmnist_optuna.training.initial_values import compare_seeds, describe_unseeded
    from fmnist_optuna.training.rehearsal import smallest_cell
    from fmnist_optuna.training.user_code import UserCode

    code = UserCode(spec)
    bound = code.bind()
    seed, params = bound.training.seed, smallest_cell(bound).params
    fixed = compare_seeds(code, [(params, seed, seed ^ 1)])
    return describe_unseeded(code, params, seed) if fixed is None else fixed.describe()


def check_seeds_in_child(spec: StudySpec, cells: Sequence[tuple[Params, int, int]]) -> Call:
    """A child that refuses cells which start from equal weights under two seeds, or whose result is a warning or None.

    Args:
        cells: Parameters and two seeds, each.
    """
    return Call(_check_seeds, spec, cells, doing=DOING)


def _check_seeds(spec: StudySpec, cells: Sequence[tuple[Params, int, int]]) -> str | None:
    from fmnist_optuna.training.initial_values import refuse_fixed_weights
    from fmnist_optuna.training.user_code import UserCode

    return refuse_fixed_weights(UserCode(spec), cells)
