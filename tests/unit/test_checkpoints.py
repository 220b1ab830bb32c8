"""Where checkpoints are: what counts, and what is removed."""

from pathlib import Path

from fmnist_optuna.artifacts.checkpoints import Checkpoints, DiskUse


def write_three(checkpoints: Checkpoints) -> None:
    """The checkpoint of one cell, what a process that died left of writing it, and the same of another cell."""
    checkpoints.folder.mkdir(parents=True)
    for name in ("one", ".one.0123.part", ".two.0123.part"):
        (checkpoints.folder / name).write_bytes(b"12345")


def names_in(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_what_is_being_written_is_no_checkpoint_yet(tmp_path: Path) -> None:
    """It is not counted, in files or in bytes."""
    checkpoints = Checkpoints(tmp_path, 1)
    assert checkpoints.disk_use() == DiskUse(0, 0)
    write_three(checkpoints)
    assert checkpoints.disk_use() == DiskUse(1, 5)


def test_what_the_dead_left_goes_with_its_cell(tmp_path: Path) -> None:
    """Before its next attempt, and with its checkpoint; that of other cells stays."""
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.remove_parts("one")  # there is no folder
    write_three(checkpoints)
    checkpoints.remove_parts("one")
    assert names_in(checkpoints) == [".two.0123.part", "one"]
    checkpoints.remove("one")
    checkpoints.remove("two")
    assert names_in(checkpoints) == []
