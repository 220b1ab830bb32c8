"""`python -m fmnist_optuna`, the same as the command `fmnist-optuna`."""

import os
import sys

# Python puts the current folder first: a file there, as `queue.py` or `rich.py`, would stand in for the module that we
# or our dependencies mean. A console script does not have it there; where it belongs, `main` says.
if sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109  (pathlib would be imported from the current folder)
    del sys.path[0]

from fmnist_optuna.cli.main import main

if __name__ == "__main__":
    main()
