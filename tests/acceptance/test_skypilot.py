"""deploy/skypilot/worker.yaml: its command by our own parser, its restarts by the one table of exit statuses."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import ROOT, own_arguments, parse_command, simple_commands
from packaging.specifiers import SpecifierSet

from fmnist_optuna.settings import STORAGE
from fmnist_optuna.statuses import Status

FILE = ROOT / "deploy" / "skypilot" / "worker.yaml"
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


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


def test_the_environment_has_a_python_that_we_support(task: dict[str, Any]) -> None:
    """Asked of uv by its version, as the machine's own may be too old; all that follows is of that environment."""
    commands = [words for line in task["setup"].splitlines() if line[0] != "#" for words in simple_commands(line)]
    (made,) = [words for words in commands if words[1:2] == ["venv"]]
    assert made[0] == "~/.local/bin/uv"  # where SkyPilot itself looks for it
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert made[made.index("--python") + 1] in SpecifierSet(supported)
    assert {"--seed", "--allow-existing"} <= set(made)  # pip, and a second setup of the same machine
    others = [words[0] for words in commands if words is not made]
    assert others == [f"{made[-1]}/bin/{name}" for name in ("pip", "fmnist-optuna")]


@pytest.mark.parametrize("part", ["setup", "run"])
def test_its_scripts_are_well_written(task: dict[str, Any], part: str) -> None:
    """By shellcheck, as what SkyPilot's bash runs."""
    done = subprocess.run(
        [SHELLCHECK, "--shell=bash", "-"], input=task[part], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
