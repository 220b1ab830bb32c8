"""Searches that are no grid, of a small study: their cells by number, and what their points rest on."""

import pytest

from fmnist_optuna.ledger.records import Claim
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.known import Known, KnownTexts
from fmnist_optuna.search.sampling import number_id
from fmnist_optuna.study.claiming import Claiming
from fmnist_optuna.study.session import Session

SAMPLERS = pytest.mark.parametrize("sampler", ["random", pytest.param("qmc", marks=pytest.mark.more), "tpe"])
N_TRIALS = 12  # TPE draws the first ten at random
FIRST = number_id(0)


def points(session: Session) -> list[Params]:
    """Those of all cells, by their numbers."""
    return [cell.params for cell in sorted(session.history.cells(), key=lambda cell: cell.number or 0)]


def claim(session: Session) -> Claim:
    """The next cell, with whatever point it takes."""
    found = Claiming(session).claim(session.ledger.generation() or 0)
    assert found is not None
    return found


def fixed(session: Session, number: int) -> Known:
    """What the point of a cell was suggested by."""
    return KnownTexts(session.points.read_fixed()).read(number)
