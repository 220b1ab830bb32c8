"""What the server of all children imports once. Imports only: TensorFlow's runtime must start in each child.

The garbage collector rests meanwhile, as an import makes only what stays: 0.8 of 4.1 seconds (measured 2026-11).
Freezing puts everything imported beyond its reach: a collection in a child, one a trial, would write to every object
and so copy every page that the child shares with the server: 60 MB a worker (measured 2026-11). There is nothing to
collect before: two thousand objects, for which it would look at a million for 0.3 s (measured 2026-11).
"""

import gc

gc.disable()

import fmnist_optuna.processes.serving  # noqa: E402
from fmnist_optuna.work.quick_import import loading_libraries  # noqa: E402

with loading_libraries():
    import fmnist_optuna.work.loop
import fmnist_optuna.work.training_process  # noqa: E402
import fmnist_optuna.work.worker  # noqa: E402, F401

gc.freeze()
gc.enable()
