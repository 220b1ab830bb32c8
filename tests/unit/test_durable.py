"""Files and folders that are whole or not there."""

import os
import time
from pathlib import Path

import pytest

from fmnist_optuna.durable import remove_left_folders, remove_parts, whole_file, whole_folder


class BrokenOffError(Exception):
    """Ends a block in which something is written."""


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def break_off_a_file(path: Path) -> None:
    with whole_file(path) as file:
        file.write(b"ne")
        raise BrokenOffError


def break_off_a_folder(path: Path) -> None:
    with whole_folder(path) as part:
        (part / "file").touch()
        raise BrokenOffError


def write_after_another(path: Path) -> None:
    with whole_folder(path) as part:
        (part / "ours").touch()
        path.mkdir()
        (path / "theirs").touch()


def test_a_folder_goes_elsewhere_where_its_name_is_taken(tmp_path: Path) -> None:
    """To the first of the names that are given for this which is free; what others wrote stays as it is."""
    taken = tmp_path / "1"
    names = iter([tmp_path / "1", tmp_path / "2"])
    with whole_folder(taken, lambda: next(names)) as part:
        (part / "ours").touch()
        taken.mkdir()
        (taken / "theirs").touch()
    assert {name: names_in(tmp_path / name) for name in names_in(tmp_path)} == {"1": ["theirs"], "2": ["ours"]}


def test_folders_that_dead_writers_left_are_removed(tmp_path: Path) -> None:
    """A day after they were touched last; those of writers who may live, and what is whole, stay."""
    parts = {name: tmp_path / f".{name}.part" for name in ("old", "new")}
    for folder in (*parts.values(), tmp_path / "1"):
        (folder / "variables").mkdir(parents=True)
    for folder, age in ((parts["old"], 90_000), (parts["new"], 80_000), (tmp_path / "1", 90_000)):
        os.utime(folder, (time.time() - age,) * 2)
    remove_left_folders(tmp_path)
    assert names_in(tmp_path) == [".new.part", "1"]


def test_a_file_is_there_only_when_it_is_whole(tmp_path: Path) -> None:
    """Until then its name has what it had before, and afterwards nothing else is left in the folder."""
    path = tmp_path / "page.html"
    path.write_bytes(b"old")
    with whole_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names_in(tmp_path) == ["page.html"]


def test_a_failure_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """The exception is passed on, the old content stays, and the part that was written is gone."""
    path = tmp_path / "page.html"
    path.write_bytes(b"old")
    with pytest.raises(BrokenOffError):
        break_off_a_file(path)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["page.html"]


def test_a_part_of_a_fixed_name_is_written_over(tmp_path: Path) -> None:
    """What a process that died left under it neither disturbs nor stays."""
    path, part = tmp_path / "images.gz", tmp_path / "images.gz.part"
    part.write_bytes(b"half of a longer one")
    with whole_file(path, part) as file:
        file.write(b"all")
    assert path.read_bytes() == b"all"
    assert names_in(tmp_path) == ["images.gz"]


def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    """A folder or a pipe stays what it is, as /dev/null must for whoever may replace it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(OSError, match="not a regular file"), whole_file(path) as file:
            file.write(b"new")
    assert pipe.is_fifo()
    assert names_in(tmp_path) == ["pipe"]


def test_parts_of_one_file_are_removed(tmp_path: Path) -> None:
    """Those of a process that died, and of no other file."""
    mine, other = tmp_path / ".one.0123.part", tmp_path / ".two.0123.part"
    mine.touch()
    other.touch()
    remove_parts(tmp_path / "one")
    assert names_in(tmp_path) == [other.name]


def test_a_folder_is_there_only_when_it_is_whole(tmp_path: Path) -> None:
    """Folders above it are made, and all that was written into it comes with it."""
    path = tmp_path / "models" / "study" / "1"
    with whole_folder(path) as part:
        (part / "variables").mkdir()
        (part / "variables" / "data").write_bytes(b"weights")
        assert not path.exists()
    assert (path / "variables" / "data").read_bytes() == b"weights"
    assert names_in(path.parent) == ["1"]


def test_a_failure_leaves_no_folder_that_was_made(tmp_path: Path) -> None:
    """Neither the folder nor those above it; what was there before stays."""
    (tmp_path / "models").mkdir()
    with pytest.raises(BrokenOffError):
        break_off_a_folder(tmp_path / "models" / "study" / "1")
    assert names_in(tmp_path) == ["models"]
    assert names_in(tmp_path / "models") == []


def test_a_folder_with_something_in_it_is_not_replaced(tmp_path: Path) -> None:
    """Somebody else has written it meanwhile: that one stays, and ours goes."""
    path = tmp_path / "1"
    with pytest.raises(OSError, match="not empty"):
        write_after_another(path)
    assert names_in(path) == ["theirs"]
    assert names_in(tmp_path) == ["1"]
