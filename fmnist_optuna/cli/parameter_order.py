"""Which parameters of a study keep their columns longest: those that set its best cells apart."""

import math
from functools import partial

from fmnist_optuna.bridge.importance import find_importances
from fmnist_optuna.cli.parameter_columns import ParameterOrder
from fmnist_optuna.study.session import Session

MOST_CELLS = 1000  # of which importances are asked: half a second; of 5,000 with 20 parameters eight (2026-11-29)


def make_parameter_order(session: Session, is_wide: bool) -> ParameterOrder:
    """The order of a study's parameters by importance, as far as it is known; else that of the study file.

    Args:
        is_wide: Whether all have a column, however wide the table becomes.
    """
    return ParameterOrder(list(session.record.spec.axes), partial(_find_importances, session), is_wide)


def _find_importances(session: Session) -> dict[str, float]:
    points = session.history.points()
    step = math.ceil(len(points) / MOST_CELLS) or 1
    return find_importances(points[::step], session.record.metric)
