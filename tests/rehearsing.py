"""A study tried out as `spec check` does it, in this process. Imports TensorFlow."""

from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.training.rehearsal import few_garments, rehearse
from fmnist_optuna.training.user_code import UserCode


def prepare_spec(spec: StudySpec) -> StudySpec:
    """Bind a specification to its architecture and rehearse a training of the smallest cell."""
    code = UserCode(spec, FASHION_MNIST)
    bound = code.bind()
    rehearse(code, *few_garments())
    return bound
