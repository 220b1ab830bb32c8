"""Which modules of the user's a worker may import, whatever the stored specification of a study names."""

from fmnist_optuna.errors import UsageError
from fmnist_optuna.study.records import StudyRecord

OPTION = "--allow-module"


def check_modules(record: StudyRecord, allowed: frozenset[str] | None) -> None:
    """Refuse a study that names a function of a module that is not allowed; nothing of the user's is imported before.

    Args:
        allowed: Names of modules and packages; what is in an allowed package is allowed as well. None allows all.

    Raises:
        UsageError: It names one, which may run any command with the rights of this process.
    """
    if allowed is None:
        return
    for key, function in record.spec.named_functions():
        module = function.partition(":")[0]
        if not any(f"{module}.".startswith(f"{name}.") for name in allowed):
            raise UsageError(
                f"study {record.name}: {key} must be in a module that this worker may import ({OPTION} "
                f"{', '.join(sorted(allowed))}), but is {function}; where you trust it, add {OPTION} {module}."
            )
