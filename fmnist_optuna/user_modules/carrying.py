"""Which files of the user's modules must be carried to another machine, and a folder that holds them as they lie.

What is installed is not carried: a machine that works on a study has the same packages installed, and a worker compares
the code that it finds with that of the study. Nothing is imported here.
"""

import fnmatch
import shutil
from collections.abc import Iterable
from pathlib import Path

from fmnist_optuna.errors import UsageError
from fmnist_optuna.origins import is_users
from fmnist_optuna.user_modules.sources import find_files

MOST_BYTES = 100 * 2**20  # of all files; more is data, or a folder of other things with a package in it
NOT_CARRIED = ("__pycache__", ".*", "*.pyc")


def carry_modules(names: Iterable[str], folder: Path) -> list[Path]:
    """Copy the user's modules of these names, and those that they import, to where Python finds them below a folder.

    Of a package all files go, as it may read some of them.

    Args:
        names: As a study file has them: "package.module".
        folder: Exists, and is empty.

    Returns:
        What was copied: files, and folders of whole packages.

    Raises:
        UsageError: They are larger than anybody's code is.
    """
    files = {name: file for name, file in find_files(names).items() if is_users(file)}
    packages = {name: file.parent for name, file in files.items() if file.name == "__init__.py"}
    whole = {name: place for name, place in packages.items() if name.rpartition(".")[0] not in packages}
    single = {name: file for name, file in files.items() if not any(f"{name}.".startswith(f"{top}.") for top in whole)}
    _check_size([*whole.values(), *single.values()])
    copied = []
    for name, place in whole.items():
        copied.append(folder.joinpath(*name.split(".")))
        ignored = shutil.ignore_patterns(*NOT_CARRIED)
        shutil.copytree(place, copied[-1], ignore=ignored, ignore_dangling_symlinks=True)
    for name, file in single.items():
        copied.append(folder.joinpath(*name.split(".")).with_name(file.name))
        copied[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copied[-1])
    return copied


def _check_size(places: Iterable[Path]) -> None:
    n_bytes = 0
    for place in places:
        files = place.rglob("*") if place.is_dir() else (place,)
        n_bytes += sum(file.stat().st_size for file in files if file.is_file() and _is_carried(file, place))
        if n_bytes > MOST_BYTES:
            raise UsageError(
                f"The user's modules must have at most {MOST_BYTES // 2**20} MiB to be carried to other machines, but "
                f"{place} has more; keep data elsewhere, or install the package on each of them."
            )


def _is_carried(file: Path, place: Path) -> bool:
    parts = file.relative_to(place).parts
    return not any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in NOT_CARRIED)
