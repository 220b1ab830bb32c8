"""deploy/skypilot/worker.yaml: its command by our own parser, its restarts by the one table of exit statuses."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import own_arguments, parse_command, simple_commands

from fmnist_optuna.settings import STORAGE
from fmnist_optuna.statuses import Status

FILE = Path(__file__).parents[2] / "deploy" / "skypilot" / "worker.yaml"


@pytest.fixture
def task() -> dict[str, Any]:
    """The task file."""
    content: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return content


def test_a_job_goes_on_after_75_alone(task: dict[str, Any]) -> None:
    """What asks for another start gets one, and what never heals ends the job at once."""
    recovery = task["resources"]["job_recovery"]
    assert recovery == {"max_restarts_on_errors": 0, "recover_on_exit_codes": [Status.HANDED_BACK]}
    assert all(Status(status).is_healed_by_restart for status in recovery["recover_on_exit_codes"])


def test_the_command_is_one_of_ours_and_has_no_url(task: dict[str, Any]) -> None:
    """Parsed by the command line itself; the URL is given at the launch, and the script's status is the worker's."""
    words = [command for line in task["run"].splitlines() for command in simple_commands(line)]
    (ours,) = [["fmnist-optuna", *command[2:]] for command in words if command[0] == "exec"]
    arguments = own_arguments(ours)
    assert arguments is not None
    assert parse_command(arguments)["storage"] is None
    assert task["secrets"] == {STORAGE: None}
    assert parse_command(["data", "fetch"])["storage"] is None
    assert "fmnist-optuna data fetch" in task["setup"]
    assert words[-1][0] == "exec"
