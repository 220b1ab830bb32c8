"""The temporary folder of a process: gone with it, and with the next one when it was killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MAKE = """\
import os, sys, tempfile
from fmnist_optuna.processes.temporary import temporary_folder, use_short_sockets, hold_temporary_folder
print(temporary_folder(), flush=True)
{then}
"""
KILLED = "os.kill(os.getpid(), 9)"
SOCKETS = "use_short_sockets(); import multiprocessing.util; print(multiprocessing.util.get_temp_dir())"
FORKED = """\
if os.fork() == 0:
    os.read(0, 1)
    os._exit(0)
os.kill(os.getpid(), 9)
"""


def make(root: Path, then: str = "", **variables: str) -> list[str]:
    """What a process with a temporary folder of its own prints, line by line."""
    script = MAKE.format(then=then)
    environment = {**os.environ, "TMPDIR": str(root), **variables}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert "Error" not in done.stderr, done.stderr
    return done.stdout.splitlines()


def test_the_folder_goes_when_its_process_ends(tmp_path: Path) -> None:
    """It was where temporary files belong."""
    (folder,) = make(tmp_path, "assert temporary_folder().is_dir()")
    assert Path(folder).parent == tmp_path
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    """And nothing else: neither folders of others, nor links, nor files of that name."""
    (left,) = make(tmp_path, KILLED)
    assert Path(left).is_dir()
    kept = {tmp_path / name for name in ("fmnist-optuna-1-other", "fmnist-optuna-1-link", "fmnist-optuna-1-file")}
    other, link, file = sorted(kept, key=lambda path: -ord(path.name[-1]))
    other.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/.lock").touch()
    link.symlink_to(tmp_path / "outside")
    file.touch()
    make(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in kept} | {"outside"}


def test_a_folder_that_a_child_still_uses_stays(tmp_path: Path) -> None:
    """The workers of a killed run finish their epoch and write its weights there."""
    script = MAKE.format(then=FORKED)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        process.wait()
        make(tmp_path)
        assert folder.is_dir()
        process.stdin.close()
        assert process.stdout.read() == ""  # the child has ended too
    make(tmp_path)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["t", "t" * 80, "ä" * 60, "a b:c"])
def test_sockets_find_a_path_short_enough(tmp_path: Path, name: str) -> None:
    """In the folder itself where it is short, else in one of the system's; nothing is left of either."""
    root = tmp_path / name
    root.mkdir()
    folder, sockets = make(root, SOCKETS)
    assert len(os.fsencode(sockets)) <= 103 - len("/listener-xxxxxxxx")
    assert Path(folder).parent == root
    assert not Path(sockets).exists()
    assert not list(root.iterdir())


def test_a_folder_that_cannot_be_used_is_replaced(tmp_path: Path) -> None:
    """As everywhere in Python: a missing one, a file, a relative path."""
    (tmp_path / "file").touch()
    for name in (tmp_path / "missing", tmp_path / "file", Path("relative")):
        (folder,) = make(name)
        assert Path(folder).is_absolute()
        assert not Path(folder).is_relative_to(tmp_path)
