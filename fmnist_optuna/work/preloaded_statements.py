"""What the server of all children compiles once where studies are in Postgres, after it has imported all else.

It is frozen as that is: no child looks at it when it collects garbage.
"""

import gc

from fmnist_optuna.work.environment import read_versions
from fmnist_optuna.work.first_statements import compile_first_statements

read_versions()
compile_first_statements()
gc.freeze()
