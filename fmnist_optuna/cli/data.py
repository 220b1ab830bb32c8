"""`data fetch` and `data verify`: the data set on disk."""

from fmnist_optuna.cli.answers import print_json
from fmnist_optuna.cli.commands import command, make_group
from fmnist_optuna.cli.options import Common, DataDir, JsonFlag, Mirrors
from fmnist_optuna.cli.streams import say
from fmnist_optuna.errors import DataError

group = make_group("The data set on disk, with checksums.")


@command(group, "fetch")
def fetch(common: Common, data_dir: DataDir = None, mirror: Mirrors = None) -> None:
    """Download Fashion-MNIST, checked by SHA-256, unless it is there."""
    from fmnist_optuna.data.download import fetch as fetch_files  # loads NumPy, urllib, hashlib and uuid

    folder = fetch_files(data_dir, tuple(mirror or ()))
    print(folder)
    say(f"Next: fmnist-optuna data verify --data-dir {folder}")


@command(group, "verify")
def verify(common: Common, data_dir: DataDir = None, as_json: JsonFlag = False) -> None:
    """Check the four files against their SHA-256; exit 4 when one is missing or corrupt."""
    from fmnist_optuna.data.fashion_mnist import find_data_dir, verify_files  # loads NumPy and hashlib

    is_given = data_dir is not None and data_dir.is_dir()  # then a missing file is one of the lines
    folder = data_dir if is_given else find_data_dir(data_dir)
    if folder is None:
        raise DataError("Fashion-MNIST must be on disk, but is in no cache; get it with `fmnist-optuna data fetch`.")
    checks = verify_files(folder)
    if as_json:
        files = [
            {
                "name": check.name,
                "path": None if check.path is None else str(check.path),
                "ok": check.ok,
                "items": check.n_items,
                "sha256": check.sha256,
                "message": check.message,
            }
            for check in checks
        ]
        print_json({"folder": str(folder), "ok": all(check.ok for check in checks), "files": files})
    else:
        for check in checks:
            print(f"{'ok ' if check.ok else 'BAD'} {check.name}  {check.message}")
    bad = [check.name for check in checks if not check.ok]
    if bad:
        raise DataError(f"All four files in {folder} must be right, but {', '.join(bad)} must be replaced.")
