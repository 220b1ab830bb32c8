"""The same tests on the package with one protection taken away: each must fail, or it would prove nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import MUTATIONS, VARIABLE

pytestmark = pytest.mark.chaos

STATEMENTS = Path(__file__).with_name("test_statements.py")
CAUGHT_BY = {
    "without-token-check": "test_a_worker_may_pause_while_its_cell_is_trained_anew[sqlite]",
    "with-deferred-transactions": "test_a_worker_may_pause_at_every_statement[sqlite]",
    "with-bind-after-tell": "test_a_worker_may_die_before_every_statement[sqlite-complete]",
}


def run_mutated(mutation: str, test: str) -> subprocess.CompletedProcess[str]:
    """One test of the statements, in a process in which a protection is missing."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", f"{STATEMENTS}::{test}"]
    return subprocess.run(
        command, env={**os.environ, VARIABLE: mutation}, capture_output=True, text=True, timeout=120, check=False
    )


def test_every_mutation_is_caught_by_a_test() -> None:
    """Each protection that can be taken away has its test."""
    assert CAUGHT_BY.keys() == MUTATIONS.keys()


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_missing_protection_is_noticed(mutation: str) -> None:
    """The test that is named for it fails on a broken promise, not on an error of its own."""
    answer = run_mutated(mutation, CAUGHT_BY[mutation])
    assert answer.returncode == pytest.ExitCode.TESTS_FAILED, answer.stdout[-2000:]
    assert "AssertionError" in answer.stdout
    assert "1 failed" in answer.stdout
