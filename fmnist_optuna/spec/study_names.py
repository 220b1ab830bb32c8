"""Names of studies: what they may be, which study one follows from, and the command that goes on with it."""

# Of the names of studies that follow from another, whose name comes before; names that users give have no slash.
CONFIRMATION_SUFFIX, ALL_DATA_SUFFIX = "/confirm", "/all-data"
NAME_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,99}}({CONFIRMATION_SUFFIX}|{ALL_DATA_SUFFIX})?$"


def searched_study(name: str) -> str:
    """The name of the study of a grid that a study follows from: its own, where it follows from none."""
    return name.partition("/")[0]


def command_of(name: str, n_folds: int = 0) -> str:
    """The command that makes a study of this name and goes on with it: `confirm small --all-data`; of a grid `run`.

    Args:
        n_folds: Of its data; 0 where it has none. With folds `run` trains on all data too, and nothing is confirmed.
    """
    search = searched_study(name)
    if name == search or n_folds:
        return "run"
    return f"confirm {search}{' --all-data' if name.endswith(ALL_DATA_SUFFIX) else ''}"


def name_command_of(name: str, n_folds: int = 0) -> str:
    """The same within a sentence: without the study's file, `run` would begin the default study."""
    command = command_of(name, n_folds)
    return f"`fmnist-optuna {command}`" + (", with the study's file if it has one," if command == "run" else "")
