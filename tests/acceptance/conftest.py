"""Commands as a person types them: the console script, an empty folder, a clean environment, no network, no terminal.

A study costs seconds, because TensorFlow is imported anew: the tests of a file share what they can, and cases that do
not depend on one another run two at a time.

Environment:
    FMNIST_OPTUNA_DATA: A folder with the four published files; without it the tests that need them are skipped.
    CI: A missing folder fails those tests instead.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from needed import do_without
from shell import SMOKE, Answer, FinishedStudy, Shell

if TYPE_CHECKING:
    from sqlalchemy import URL


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """An empty folder."""
    return Shell(tmp_path)


@pytest.fixture(scope="session")
def _smoke(tmp_path_factory: pytest.TempPathFactory) -> FinishedStudy:
    """Trained once for all processes of the test run; each of them reads a copy of its own."""
    own = tmp_path_factory.getbasetemp()
    common = own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own
    trained, temporary, answer = common / "trained", common / "temporary", common / "trained.json"
    with (common / "trained.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not answer.exists():
            for folder in (trained, temporary):
                shutil.rmtree(folder, ignore_errors=True)  # of another process, whose run took too long
                folder.mkdir()
            shell = Shell(trained, {"TMPDIR": str(temporary)})
            shell.write("smoke.toml", SMOKE)
            answer.write_text(json.dumps(asdict(shell.cold("run", "smoke.toml", "--workers", "2"))))
    shutil.copytree(trained, own / "smoke")
    return FinishedStudy(Shell(own / "smoke", {"TMPDIR": str(temporary)}), Answer(**json.loads(answer.read_text())))


@pytest.fixture(scope="session")
def smoke(_smoke: FinishedStudy) -> FinishedStudy:
    """The finished smoke study; to be read only."""
    assert _smoke.run.code == 0, _smoke.run.stderr
    return _smoke


@pytest.fixture
def smoke_copy(smoke: FinishedStudy, tmp_path: Path) -> Shell:
    """A folder of the test's own with the finished smoke study."""
    shutil.copytree(smoke.shell.folder, tmp_path / "copy")
    return Shell(tmp_path / "copy")


@pytest.fixture(scope="module")
def awkward_url(postgres_server: str) -> Iterator[URL]:
    """URL of a database of its own whose owner has the awkward password."""
    from awkward_password import awkward_database

    with awkward_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder with the published files."""
    folder = os.environ.get("FMNIST_OPTUNA_DATA")
    if not folder:
        do_without("FMNIST_OPTUNA_DATA must name a folder with the four published files.")
    return Path(folder).absolute()
