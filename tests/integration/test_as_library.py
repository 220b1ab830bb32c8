"""The package in a program of somebody else: it works on studies and leaves everything else alone."""

import subprocess
import sys
from pathlib import Path

import pytest
from warm_starter import WARM_CHILDREN, clean_environment, warm_starter

pytestmark = pytest.mark.more

GLOBALS = """
import logging, os, signal, sys, warnings
import optuna, optuna.artifacts  # imports boto3 where that is installed, which adds warning filters
sys.path[1:1] = sys.argv[3:]  # the folders of the tests
from warm_children import fork_forkserver_from
fork_forkserver_from(sys.argv[2])  # or children would import TensorFlow anew
optuna.logging.set_verbosity(optuna.logging.DEBUG)

def look():
    names = (None, "optuna", "optuna.study", "optuna.storages", "tensorflow", "fmnist_optuna")
    loggers = [(each.level, each.propagate, len(each.handlers)) for each in map(logging.getLogger, names)]
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return dict(os.environ), loggers, signals, list(warnings.filters), warnings.showwarning

before = look()
import small_study
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.processes.children import Call
from fmnist_optuna.study.session import Session
storage = create_storage(StorageOptions(sys.argv[1]))
session = Session(storage, small_study.create_study(storage), "tester")
small_study.finish_everything(session)
assert Call(os.getenv, "TF_CPP_MIN_LOG_LEVEL", doing="looking").result() == "3"
assert len(session.optuna_study.trials) == small_study.N_CELLS
names = ("environment", "loggers", "signals", "filters", "showwarning")
print([name for name, then, now in zip(names, before, look()) if then != now])
"""


def test_a_study_changes_nothing_of_its_program(tmp_path: Path) -> None:
    """Creating, opening and finishing one as a library leaves levels, environment, signals and warnings."""
    folders = (str(Path(__file__).parents[1]), str(WARM_CHILDREN.parent))
    command = [
        sys.executable,
        "-c",
        GLOBALS,
        f"sqlite:///{tmp_path}/studies.db",
        str(warm_starter().children()),
        *folders,
    ]
    environment = clean_environment(tmp_path)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert "A new study created" in done.stderr  # Optuna talks as loudly as the program wants
