"""Every command says what it does, every option is there, and asking costs no TensorFlow."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from shell import Answer, FinishedStudy, Shell, two_at_a_time

from fmnist_optuna import __version__
from fmnist_optuna.cli.main import app

COMMON = {
    "--storage",
    "--storage-patience",
    "--log-format",
    "--debug",
    "--verbose",
    "-v",
    "--quiet",
    "-q",
    "-h",
    "--help",
}


def find_commands() -> dict[str, Any]:
    """Every command of the program by its name, groups and the program itself included."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for last, child in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {last}".strip(), child)

    return dict(walk("", typer.main.get_command(app)))


COMMANDS = find_commands()
LEAVES = [name for name, command in COMMANDS.items() if not hasattr(command, "commands")]


@pytest.fixture(scope="module")
def helps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """The help of every command, in an empty folder."""
    shell = Shell(tmp_path_factory.mktemp("help"))
    given = two_at_a_time({name: partial(shell, *name.split(), "-h") for name in COMMANDS})
    assert shell.files() == set()
    return given


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_text(helps: dict[str, Answer], name: str) -> None:
    """`-h` prints usage and what the command is for, at most 80 columns wide, and exits 0."""
    answer, purpose = helps[name], COMMANDS[name].help
    assert (answer.code, answer.stderr) == (0, "")
    lines = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    assert lines[0].startswith(f"Usage: fmnist-optuna {name}".rstrip())
    assert purpose.endswith(".")
    assert not any("\n" in paragraph for paragraph in purpose.split("\n\n")), "it would be broken in two places"
    assert " ".join(purpose.split()[:5]) in " ".join(lines[1:])
    assert max(map(len, answer.stdout.splitlines())) <= 80


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_is_in_the_help(helps: dict[str, Answer], name: str) -> None:
    """Each with a text and the variable that stands for it; those that all commands have are there."""
    text, options = helps[name].stdout, [each for each in COMMANDS[name].params if each.param_type_name == "option"]
    assert [each.name for each in options if not each.help] == []
    names = {name for each in options for name in each.opts} | {"-h", "--help"}
    variables = {str(each.envvar) for each in options if each.envvar}
    assert names >= COMMON
    assert [word for word in names | variables if word not in text] == []


def test_the_first_help_lists_every_command(helps: dict[str, Answer]) -> None:
    """What is there can be found from `fmnist-optuna -h`."""
    words = {word for line in helps[""].stdout.splitlines() for word in line.strip("│ ").split()[:1]}
    assert {name.split()[0] for name in LEAVES} <= words
    assert len(LEAVES) > 20


def test_version_is_that_of_the_package(shell: Shell) -> None:
    """`--version` prints one line."""
    assert shell("--version") == Answer(0, f"fmnist-optuna {__version__}\n", "")


READING = ["-h", "run -h", "status", "trials", "best", "verify", "dashboard --port 70000", "list", "show 0"]
# One interpreter imports what all have in common; each command is a fork of it, and says what it has imported then.
EACH = """
import os, sys
from fmnist_optuna.cli.main import main
for typed in sys.argv[1:]:
    if os.fork() == 0:
        sys.argv[1:] = typed.split()
        try:
            main()
        except SystemExit as end:
            heavy = {'tensorflow', 'keras', 'torch', 'pandas', 'matplotlib'} & set(sys.modules)
            print('ended', end.code or 0, sorted(heavy), file=sys.stderr)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def imported(smoke: FinishedStudy) -> dict[str, str]:
    """Exit status and heavy imports of every command, by what was typed."""
    done = subprocess.run(
        [sys.executable, "-c", EACH, *READING], cwd=smoke.shell.folder, env=smoke.shell.environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    ended = [line for line in done.stderr.splitlines() if line.startswith("ended ")]
    return dict(zip(READING, ended, strict=True))


@pytest.mark.parametrize("typed", READING)
def test_reading_imports_neither_tensorflow_nor_keras(imported: dict[str, str], typed: str) -> None:
    """Three and a half seconds of import are for training only."""
    assert imported[typed] == f"ended {2 if typed.startswith('dashboard') else 0} []"  # its port is none


def test_the_package_may_be_run_as_a_module(tmp_path: Path) -> None:
    """`python -m fmnist_optuna` is the command."""
    module = [sys.executable, "-m", "fmnist_optuna", "--version"]
    done = subprocess.run(module, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fmnist-optuna {__version__}\n", "")
