"""What is said of weights that were opened before a study asked for the answers to mirror images."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fmnist_optuna.cli.winner_tables import print_unmeasured
from fmnist_optuna.ledger.openings import Opening, Scores
from fmnist_optuna.results.evaluation import summarize
from fmnist_optuna.results.seeds import OpenedSeeds

ANSWERS, LABELS = np.eye(2, dtype=np.float32), np.array([0, 1])
PLAIN = Opening(1, "", "winner", 1.0, 0.0, Scores(ANSWERS, LABELS))
BOTH = Opening(1, "", "winner", 1.0, 0.0, Scores(ANSWERS, LABELS, ANSWERS))


def said(capsys: pytest.CaptureFixture[str], winner: Opening | None, seeds: Opening | None, flip: bool = True) -> str:
    """The note on a winner, whose confirmed seeds, and an ensemble of them, were opened so."""
    record: Any = SimpleNamespace(spec=SimpleNamespace(confirm=SimpleNamespace(flip=flip)))
    opened: Any = SimpleNamespace(
        evaluation=None if winner is None else summarize(winner, ("a", "b")),
        confirmation=OpenedSeeds().with_openings([seeds, seeds]),
        all_data=None,
        ensembles=[] if seeds is None else [SimpleNamespace(evaluation=summarize(seeds, ("a", "b")))],
    )
    print_unmeasured(record, opened)
    return capsys.readouterr().out


def test_what_was_opened_before_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line: the winner, its seeds, an ensemble of them, or those of them that were."""
    why = "not measured with flips, as these weights were opened before\n"
    assert said(capsys, PLAIN, None) == f"  stored weights: {why}"
    assert said(capsys, BOTH, PLAIN) == f"  confirmed seeds, an ensemble: {why}"
    assert said(capsys, PLAIN, PLAIN) == f"  stored weights, confirmed seeds, an ensemble: {why}"


def test_nothing_is_said_where_nothing_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    """All was measured, or is not opened yet, or the study does not ask for mirror images."""
    assert said(capsys, BOTH, BOTH) == said(capsys, None, None) == said(capsys, PLAIN, PLAIN, flip=False) == ""
