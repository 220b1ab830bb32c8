"""What the server of all children imports once. Imports only: TensorFlow's runtime must start in each child.

Freezing puts everything imported beyond the reach of the garbage collector: a collection in a child, one a trial, would
write to every object and so copy every page that the child shares with the server: 60 MB a worker (measured 2026-11).
"""

import gc

import fmnist_optuna.work.training_process
import fmnist_optuna.work.worker  # noqa: F401

gc.collect()
gc.freeze()
