"""Every command says what it does, every option is there, and asking costs no TensorFlow."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from shell import Answer, FinishedStudy, Shell, two_at_a_time

from fmnist_optuna import __version__

COMMON = (
    "--storage",
    "--storage-patience",
    "--log-format",
    "--debug",
    "--verbose",
    "-v",
    "--quiet",
    "-q",
    "--help",
    "-h",
)
OPTIONS: dict[str, tuple[str, ...]] = {
    "run": ("--workers", "--data", "--data-dir", "--mirror", "--pruner", "--name", "--timeout", "--trial-timeout",
            "--memory-limit", "--accept-code", "--dashboard", "--dashboard-port", "--json"),
    "init": ("--data", "--data-dir", "--pruner", "--name", "--accept-code", "--json"),
    "worker": ("--data-dir", "--memory-limit"),
    "status": ("--watch", "--json"),
    "trials": ("--csv", "--json"),
    "show": ("--json",),
    "best": ("--json",),
    "verify": ("--json",),
    "list": ("--json",),
    "confirm": ("--top", "--seeds", "--workers", "--data-dir", "--mirror", "--timeout", "--accept-code", "--json"),
    "reproduce": ("--data-dir", "--json"),
    "export": ("--trial", "--format", "--out", "--version", "--data-dir", "--json"),
    "predict": ("--top", "--json"),
    "stop": (),
    "retry": (),
    "delete": ("--yes",),
    "data fetch": ("--data-dir", "--mirror"),
    "data verify": ("--data-dir", "--json"),
    "spec example": (),
    "spec check": ("--json",),
}  # fmt: skip
TWINS = {"run": ("FMNIST_OPTUNA_WORKERS", "FMNIST_OPTUNA_DATA", "FMNIST_OPTUNA_STORAGE")}


@pytest.fixture(scope="module")
def helps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """The help of every command, in an empty folder."""
    shell = Shell(tmp_path_factory.mktemp("help"))
    names = ["", "data", "spec", *OPTIONS]
    given = two_at_a_time({name: partial(shell, *name.split(), "-h") for name in names})
    assert shell.files() == set()
    return given


@pytest.mark.parametrize("name", ["", "data", "spec", *OPTIONS])
def test_every_command_has_a_help_text(helps: dict[str, Answer], name: str) -> None:
    """`-h` prints usage and a sentence on stdout, at most 80 columns wide, and exits 0."""
    answer = helps[name]
    assert (answer.code, answer.stderr) == (0, "")
    lines = [line.rstrip() for line in answer.stdout.splitlines() if line.strip()]
    assert lines[0].strip().startswith(f"Usage: fmnist-optuna {name}".rstrip())
    assert (
        lines[1].rstrip().endswith((".", "and", "test", "name", "once,", "nothing", "winner"))
        or lines[1].strip()[0].isupper()
    )
    assert max(len(line) for line in lines) <= 80


@pytest.mark.parametrize("name", list(OPTIONS))
def test_every_option_is_in_the_help(helps: dict[str, Answer], name: str) -> None:
    """The options of the command, the common ones and the environment twins are named."""
    text = helps[name].stdout
    wanted = (*OPTIONS[name], *COMMON, *TWINS.get(name, ()))
    assert [option for option in wanted if option not in text] == []


def test_the_first_help_lists_every_command(helps: dict[str, Answer]) -> None:
    """What is there can be found from `fmnist-optuna -h`."""
    words = {word for line in helps[""].stdout.splitlines() for word in line.strip("│ ").split()[:1]}
    assert {name.split()[0] for name in OPTIONS} <= words


def test_version_is_that_of_the_package(shell: Shell) -> None:
    """`--version` prints one line."""
    assert shell("--version") == Answer(0, f"fmnist-optuna {__version__}\n", "")


READING = ["-h", "run -h", "status", "trials", "best", "verify"]
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
            print(end.code or 0, sorted(heavy), file=sys.stderr)
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
    return dict(zip(READING, done.stderr.splitlines(), strict=True))


@pytest.mark.parametrize("typed", READING)
def test_reading_imports_neither_tensorflow_nor_keras(imported: dict[str, str], typed: str) -> None:
    """Three and a half seconds of import are for training only."""
    assert imported[typed] == "0 []"


def test_the_package_may_be_run_as_a_module(tmp_path: Path) -> None:
    """`python -m fmnist_optuna` is the command."""
    module = [sys.executable, "-m", "fmnist_optuna", "--version"]
    done = subprocess.run(module, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fmnist-optuna {__version__}\n", "")
