"""Every bad input: one clear line, the right exit status, nothing lost, nothing half-written, no password shown."""

import gzip
import sqlite3
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from shell import SMALL, Answer, FinishedStudy, Shell, two_at_a_time

PASSWORD = "s3cret"
UNREACHABLE = f"postgresql://u:{PASSWORD}@127.0.0.1:1/x"  # nobody listens on port 1
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


@dataclass(frozen=True)
class Case:
    """A command that must be refused.

    Args:
        typed: The command.
        code: Its exit status.
        words: What its one line of error must contain.
        files: Files that are there before, by name.
        variables: Environment variables.
    """

    typed: tuple[str, ...]
    code: int
    words: tuple[str, ...]
    files: dict[str, bytes | str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


def spec(old: str, new: str, *words: str) -> Case:
    """A run of the small study with one line of its file replaced."""
    text = SMALL.replace(old, new)
    assert text != SMALL
    return Case(("run", "small.toml"), 2, words, {"small.toml": text})


def storage(url: str, code: int, *words: str, command: str = "run", **more: object) -> Case:
    """A command on a storage that is wrong."""
    return Case((command, "--storage", url, "--storage-patience", "1s"), code, words, **more)  # type: ignore[arg-type]


SPECS = {
    "no study file": Case(("run", "none.toml"), 2, ("none.toml", "no such file", "spec example")),
    "no TOML": Case(("run", "small.toml"), 2, ("small.toml", "must be TOML", "line 1"), {"small.toml": "name = smoke"}),
    "misspelt key": spec("max_epochs", "max_epoch", "small.toml", "unknown key training.max_epoch", "max_epochs"),
    "negative learning rate": spec("[0.01, 0.001]", "[-0.01]", "learning_rate", "-0.01"),
    "rate that never falls": spec(
        "max_epochs = 2",
        'max_epochs = 2\nschedule = "cosine"\nwarmup_epochs = 2.0',
        *("study small", "training.warmup_epochs must be less than training.max_epochs, 2", "got 2"),
    ),
    "range in a grid": spec("[0.2]", "{low = 0.0, high = 0.5}", "small.toml", "dropout_rate"),
}
OPTIONS = {
    "no workers": Case(("run", "--workers", "0"), 2, ("--workers", "greater than or equal to 1")),
    "no workers by environment": Case(("run",), 2, ("WORKERS", "1"), variables={"FMNIST_OPTUNA_WORKERS": "0"}),
    "unknown pruner": Case(("run", "--pruner", "best"), 2, ("--pruner", "best", "ladder", "median", "none")),
    "unknown data": Case(("run", "--data", "mnist"), 2, ("--data", "mnist", "fashion-mnist")),
    "timeout without a unit that exists": Case(("run", "--timeout", "3 weeks"), 2, ("--timeout", "90s", "3 weeks")),
    "memory limit without a unit": Case(("run", "--memory-limit", "12"), 2, ("--memory-limit", "4g", "12")),
    "unknown option": Case(("run", "--worker", "2"), 2, ("--worker", "--workers")),
    "unknown command": Case(("train",), 2, ("train", "fmnist-optuna -h")),
    "missing argument": Case(("show",), 2, ("TRIAL", "fmnist-optuna show -h")),
    "negative trial": Case(("show", "--", "-1"), 2, ("TRIAL", "0")),
    "another backend": Case(("run",), 2, ("KERAS_BACKEND must be tensorflow", "'jax'"), variables={
        "KERAS_BACKEND": "jax"}),
    "place that is empty": Case(("init", "--artifacts", ""), 2, ("--artifacts", "must have a value", "empty")),
    "option that is empty": Case(("run", "--ray="), 2, ("--ray", "must have a value", "empty")),
    "name that is empty": Case(("status", ""), 2, ("an argument", "must have a value", "empty")),
    "no module by environment": Case(("worker",), 2, ("FMNIST_OPTUNA_ALLOW_MODULE must name", "empty"), variables={
        "FMNIST_OPTUNA_ALLOW_MODULE": " "}),
    "metrics at no port": Case(("worker", "--metrics-host", "::"), 2, ("--metrics-host", "--metrics-port", "::")),
    "lease of no time": Case(("status",), 2, ("FMNIST_OPTUNA_LEASE_SECONDS", "0"), variables={
        "FMNIST_OPTUNA_LEASE_SECONDS": "0"}),
}  # fmt: skip
STORAGES = {
    "not a URL": storage("studies.db", 2, "--storage", "sqlite:///FILE", "studies.db", command="status"),
    "unknown database": storage(f"mysql://u:{PASSWORD}@h/x", 2, "postgresql://", "u:***@h", command="status"),
    "in memory": storage("sqlite://", 2, "--storage", "workers can share", command="status"),
    "unreachable": storage(UNREACHABLE, 5, "u:***@127.0.0.1:1/x", "refused", command="status"),
    "read-only file": storage("sqlite:////sys/x.db", 5, "writable", "/sys/x.db"),
    "no SQLite file": storage("sqlite:///x.db", 5, "x.db", "SQLite", files={"x.db": "Dear diary"}),
    "no SQLite file to read": storage("sqlite:///x.db", 5, "SQLite", command="list", files={"x.db": "Dear diary"}),
    "a folder": storage("sqlite:///.", 5, "must be a", command="status"),
    "storage file that is missing": Case(("status",), 5, ("FMNIST_OPTUNA_STORAGE_FILE", "url.txt"), variables={
        "FMNIST_OPTUNA_STORAGE_FILE": "url.txt"}),
}  # fmt: skip


def idx(magic: int, n_items: int, n_bytes: int) -> bytes:
    """A packed IDX file of zeros."""
    sizes = [n_items, 28, 28] if magic == 2051 else [n_items]
    header = b"".join(number.to_bytes(4, "big") for number in (magic, *sizes))
    return gzip.compress(header + bytes(n_bytes), compresslevel=1, mtime=0)


def data(fault: str, *words: str, **files: bytes | None) -> Case:
    """A run on a folder whose first file has a fault; the others are as long as they should be."""
    names = {"images": IMAGES, "labels": LABELS, "test_images": TEST_IMAGES, "test_labels": TEST_LABELS}
    good = {IMAGES: GOOD_IMAGES, LABELS: GOOD_LABELS, TEST_IMAGES: b"", TEST_LABELS: b""}
    content = {**good, **{names[key]: value for key, value in files.items()}}
    there: dict[str, bytes | str] = {f"data/{name}": value for name, value in content.items() if value is not None}
    return Case(("run", "small.toml", "--data", "fashion-mnist", "--data-dir", "data"), 4, (fault, *words), {
        **there, "small.toml": SMALL})  # fmt: skip


GOOD_IMAGES, GOOD_LABELS = idx(2051, 60_000, 60_000 * 784), idx(2049, 60_000, 60_000)
DATA = {
    "three of four": data("lacks 1", TEST_LABELS, "data fetch", test_labels=None),
    "swapped": data("swapped", IMAGES, "2051", "2049", images=GOOD_LABELS, labels=GOOD_IMAGES),
}
TRAINING_IS_NEAR = {  # TensorFlow is on its way already: seconds each
    "no data folder": Case(("run", "--data-dir", "none"), 4, ("none does not", "data fetch")),
    "a file for a data folder": Case(("run", "--data-dir", "a"), 4, ("a is a file", "--data-dir"), {"a": ""}),
    "truncated": data("cut off", IMAGES, "delete this file", images=GOOD_IMAGES[:1000]),
    "damaged": data("damaged", IMAGES, images=GOOD_IMAGES[:-8] + bytes(8)),
    "other pixels": data("SHA-256", IMAGES, "c59f468a2f672dc8"),
    "too few images": data("must hold 60,000 x 28 x 28", IMAGES, images=idx(2051, 10, 7840)),
    "no gzip": data("must be a gzip file", IMAGES, images=b"<html>404</html>"),
    "unreachable for run": storage(UNREACHABLE, 5, "u:***@127.0.0.1:1/x", "refused"),
    "read-only folder": storage("sqlite:////proc/nowhere/x.db", 5, "writable", "/proc/nowhere"),
}
QUICK = {**SPECS, **OPTIONS, **STORAGES, **DATA}


def refuse(case: Case, folder: Path) -> tuple[Answer, set[str], bool]:
    """The answer, the files that appeared, and whether the given files are as they were."""
    for name, content in case.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    shell = Shell(folder, case.variables)
    before = shell.files()
    answer = shell(*case.typed)
    is_kept = all(
        (folder / name).read_bytes() == (content.encode() if isinstance(content, str) else content)
        for name, content in case.files.items()
    )
    return answer, shell.files() - before, is_kept


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Answer, set[str], bool]]:
    """What each bad input met, two at a time."""
    calls = {name: lambda case=case: refuse(case, tmp_path_factory.mktemp("bad")) for name, case in QUICK.items()}
    return two_at_a_time(calls)


@pytest.mark.parametrize("name", list(QUICK))
def test_a_bad_input_ends_with_its_status_and_one_line(
    refusals: dict[str, tuple[Answer, set[str], bool]], name: str
) -> None:
    """One line names the object, the rule and what came; nothing was made, nothing was changed."""
    check_refusal(QUICK[name], *refusals[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TRAINING_IS_NEAR))
def test_a_bad_input_of_run_ends_with_its_status_and_one_line(tmp_path: Path, name: str) -> None:
    """One line names the object, the rule and what came; nothing was made, nothing was changed."""
    check_refusal(TRAINING_IS_NEAR[name], *refuse(TRAINING_IS_NEAR[name], tmp_path))


def check_refusal(case: Case, answer: Answer, appeared: set[str], is_kept: bool) -> None:
    """What every refusal must be."""
    assert (answer.code, answer.stdout) == (case.code, ""), answer
    assert len(answer.errors) == 1, answer.stderr
    assert "Traceback" not in answer.stderr
    assert [word for word in case.words if word not in answer.errors[0]] == [], answer.errors[0]
    assert (appeared, is_kept) == (set(), True)


@pytest.mark.parametrize("name", [name for name, case in STORAGES.items() if PASSWORD in " ".join(case.typed)])
def test_no_password_is_ever_shown(refusals: dict[str, tuple[Answer, set[str], bool]], name: str) -> None:
    """A password in a URL is masked in every line."""
    answer = refusals[name][0]
    assert PASSWORD not in answer.stdout + answer.stderr


def test_a_password_in_the_option_draws_one_warning(
    refusals: dict[str, tuple[Answer, set[str], bool]],
) -> None:
    """What stands in the process list is said once, with the two ways that keep it out."""
    warnings = [line for line in refusals["unreachable"][0].stderr.splitlines() if line.startswith("Warning: ")]
    assert len(warnings) == 1
    assert "FMNIST_OPTUNA_STORAGE or FMNIST_OPTUNA_STORAGE_FILE" in warnings[0]


def test_a_password_in_the_environment_draws_no_warning(shell: Shell) -> None:
    """The variable is the way that was recommended: nothing but the error, with the password masked."""
    answer = shell.with_variables(FMNIST_OPTUNA_STORAGE=UNREACHABLE)("status", "--storage-patience", "1s")
    assert (answer.code, answer.errors) == (5, answer.stderr.splitlines())
    assert "***" in answer.stderr
    assert PASSWORD not in answer.stderr


def test_a_database_of_another_program_has_no_studies(shell: Shell) -> None:
    """An SQLite file without our tables exits 3 on a reading command and stays as it was."""
    path = shell.folder / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE diary (day TEXT)")
    connection.commit()
    connection.close()
    answer = shell("list", "--storage", "sqlite:///other.db")
    assert (answer.code, len(answer.errors)) == (3, 1)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("diary",)]
    connection.close()


READING = {
    "trials": ("trials",), "show": ("show", "0"), "best": ("best",), "verify": ("verify",), "list": ("list",),
    "stop": ("stop",), "retry": ("retry",), "delete": ("delete", "smoke", "--yes"),
}  # fmt: skip


@pytest.fixture(scope="module")
def nothing_there(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Answer, set[str], bool]]:
    """Every command that needs a study, in an empty folder."""
    return two_at_a_time(
        {name: partial(refuse, Case(typed, 3, ()), tmp_path_factory.mktemp("empty")) for name, typed in READING.items()}
    )


@pytest.mark.parametrize("name", list(READING))
def test_a_command_without_a_study_exits_3_and_creates_nothing(
    nothing_there: dict[str, tuple[Answer, set[str], bool]], name: str
) -> None:
    """A missing database is never made by a command that only reads or manages."""
    answer, appeared, _ = nothing_there[name]
    assert (answer.code, answer.stdout, appeared) == (3, "", set())
    assert answer.errors == answer.stderr.splitlines()
    assert "studies/studies.db" in answer.errors[0]


MODELS = """\
import keras


def raises(hidden_size: int, learning_rate: float):
    raise ValueError("no such layer\\nand a second line")


def not_compiled(hidden_size: int, learning_rate: float):
    return keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10)])


def no_model(hidden_size: int, learning_rate: float):
    return "a model"


class BatchHook(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass


def batch_hook():
    return BatchHook()
"""


def model(name: str, *words: str) -> Case:
    """A run of a model function of the user's."""
    text = SMALL.replace("dropout_rate = [0.2]\n", "").replace("[grid]", f'[model]\narchitecture = "{name}"\n[grid]')
    return Case(("run", "small.toml"), 2, words, {"small.toml": text, "models.py": MODELS})


OWN_MODELS = {
    "no module": model("nowhere:build", "model.architecture", "nowhere", "there is no module nowhere in"),
    "no function": model("models:build", "model.architecture", "models", "no function build"),
    "raises": model("models:raises", "models:raises(hidden_size=16", "ValueError: no such layer"),
    "not compiled": model("models:not_compiled", "compiled", "models:not_compiled"),
    "no model": model("models:no_model", "keras.Model", "returned str"),
    "unknown parameter": spec("hidden_size", "hiden_size", "grid.hiden_size", "accepts", "hidden_size"),
    "batch hook": spec("max_epochs = 2", 'max_epochs = 2\ncallbacks = ["models:batch_hook"]', "on_train_batch_end"),
}


SECOND_BEST = {
    "no module",
    "no function",
    "no model",
    "unknown parameter",
    "batch hook",
}  # also told by the tests of the architecture


def refuse_model(case: Case, folder: Path) -> tuple[Answer, list[object]]:
    """What a bad model met, and the studies that are there afterwards."""
    answer, _, _ = refuse(Case(case.typed, 2, (), {"models.py": MODELS, **case.files}), folder)
    return answer, Shell(folder).query("SELECT study_name FROM fmnist_studies UNION SELECT study_name FROM studies")


@pytest.fixture(scope="module")
def model_refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Answer, list[object]]]:
    """What each bad model met, two at a time."""
    cases = {name: case for name, case in OWN_MODELS.items() if name not in SECOND_BEST}
    calls = {
        name: lambda case=case: refuse_model(case, tmp_path_factory.mktemp("model")) for name, case in cases.items()
    }
    return two_at_a_time(calls)


@pytest.mark.parametrize("name", [name for name in OWN_MODELS if name not in SECOND_BEST])
def test_a_model_that_cannot_be_built_stops_before_any_worker(
    model_refusals: dict[str, tuple[Answer, list[object]]], name: str
) -> None:
    """The error of the user's function is told in one line with exit 2, and no study is made."""
    check_model_refusal(OWN_MODELS[name], *model_refusals[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SECOND_BEST))
def test_whatever_else_is_wrong_with_a_model_is_refused_too(tmp_path: Path, name: str) -> None:
    """What does not exist, returns no model or has a batch hook is told in one line with exit 2."""
    check_model_refusal(OWN_MODELS[name], *refuse_model(OWN_MODELS[name], tmp_path))


def check_model_refusal(case: Case, answer: Answer, studies: list[object]) -> None:
    """What every refusal of a model must be."""
    assert (answer.code, answer.stdout, len(answer.errors)) == (2, "", 1), answer
    assert "Traceback" not in answer.stderr
    assert [word for word in case.words if word not in answer.errors[0]] == [], answer.errors[0]
    assert studies == []


def test_a_cut_database_is_an_error_and_stays_as_it_was(smoke_copy: Shell, smoke: FinishedStudy) -> None:
    """Half an SQLite file exits 5 with one line; a reading command does not touch it."""
    half = smoke_copy.database.read_bytes()[:20_000]
    for path in smoke_copy.database.parent.glob("studies.db*"):
        path.unlink()
    smoke_copy.database.write_bytes(half)
    answer = smoke_copy("trials")
    assert (answer.code, answer.stdout, len(answer.errors)) == (5, "", 1), answer
    assert "studies/studies.db" in answer.errors[0]
    assert smoke_copy.database.read_bytes() == half
