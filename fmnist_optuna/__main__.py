"""`python -m fmnist_optuna`: the same as the command `fmnist-optuna`."""

import sys

if not sys.flags.safe_path:  # Python put the current folder first, where a user's random.py would be taken for its own
    del sys.path[0]

from fmnist_optuna.cli.main import main

if __name__ == "__main__":
    main()
