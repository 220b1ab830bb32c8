"""What a process that trains or scores must do first: one TensorFlow thread, and an end with its parent."""

from fmnist_optuna.processes.parent import become_child
from fmnist_optuna.training.engine import use_threads


def become_training_process() -> None:
    """Prepare a fresh child for TensorFlow."""
    become_child()
    use_threads()
