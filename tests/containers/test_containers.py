"""The image for real: built from the Dockerfile and run by podman, with every service of the compose file.

The base is a minimal Debian made on the spot, and Postgres is Debian's, so that no registry is needed. The first
run makes that base and fetches TensorFlow, eight minutes on a busy machine; later ones use the same layers again.

Environment:
    FMNIST_TEST_IMAGE_NEEDED: Where containers cannot be run the tests fail instead of being skipped.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import Engine, NoEngineError, running_engine
from project import POSTGRES, ROOT, VERSION, Project, kill_from_outside, open_to_others, running_project

from fmnist_optuna import __version__

pytestmark = pytest.mark.slow

NEEDED = "FMNIST_TEST_IMAGE_NEEDED"
IMAGE = f"localhost/fmnist-optuna:{VERSION}"
LOCKED_DOWN = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none", "--tmpfs=/tmp")
AS_MODULE = ("-m", "fmnist_optuna", "spec", "example")
LOOK = (
    "import importlib.metadata as m, importlib.util as u, os; "
    "print(os.getuid(), m.version('fmnist-optuna'), u.find_spec('pip'))"
)
CLAIMED = "SELECT cell_id FROM fmnist_cells WHERE state = 'running' AND trial_id IS NOT NULL"
DONE = "SELECT cell_id FROM fmnist_cells WHERE state = 'done'"
PACED_SECONDS = 2.0  # of sleep after each epoch: a worker is in the middle of a cell whenever it is killed

# A person's own folder: an architecture and a callback that no image contains.
MY_MODELS = f"""\
import time

import keras


def build(units, learning_rate):
    model = keras.Sequential(
        [
            keras.layers.Input((28, 28), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Pace(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        time.sleep({PACED_SECONDS})


def make_pace():
    return Pace()
"""
MY_STUDY = """\
name = "mine"
[data]
source = "synthetic"
[model]
architecture = "my_models:build"
[grid]
units = [8, 16]
learning_rate = [0.01, 0.001]
[training]
max_epochs = 4
callbacks = ["my_models:make_pace"]
[pruner]
name = "none"
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Podman with the two images."""
    try:
        with running_engine() as engine:
            engine.make_base()
            engine.build(IMAGE, ROOT / "Dockerfile", ROOT)
            engine.build(POSTGRES, Path(__file__).with_name("postgres.Dockerfile"), Path(__file__).parent)
            yield engine
    except NoEngineError as error:
        message = f"Containers cannot be run here: {error}."
        if os.environ.get(NEEDED):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)


def write_my_study(folder: Path) -> None:
    """A folder as a person brings it."""
    folder.mkdir(exist_ok=True)
    (folder / "my_models.py").write_text(MY_MODELS)
    (folder / "mine.toml").write_text(MY_STUDY)


def test_the_image_starts_without_any_right(engine: Engine) -> None:
    """By its own ENTRYPOINT and CMD, as nobody in particular, without network and with nothing to write on but /tmp."""

    def run(*arguments: str) -> str:
        return engine.podman("run", "--rm", "--init", *LOCKED_DOWN, *arguments)

    assert run(IMAGE, "--version").strip() == f"fmnist-optuna {__version__}"
    assert "Usage: fmnist-optuna" in run(IMAGE)
    assert run(IMAGE, "spec", "example") == run("--entrypoint=python", IMAGE, *AS_MODULE)
    assert run("--entrypoint=python", IMAGE, "-c", LOOK).split() == ["10001", __version__, "None"]
    assert json.loads(run(IMAGE, "spec", "check", "/study/smoke.toml", "--json"))["cells"] == 4


def test_the_services_do_the_smoke_study(engine: Engine, tmp_path: Path) -> None:
    """Postgres, init, two workers, dashboard; the winner is tested, and the reader's role cannot write."""
    with running_project(engine, tmp_path, STUDY_FILE="/study/smoke.toml") as project:
        project.wait_for(DONE, 4)
        assert [engine.podman("wait", worker).strip() for worker in project.containers("worker")] == ["0", "0"]
        ran = project.ask("run", "/study/smoke.toml", "--workers", "1")
        assert ran["test_accuracy"] > 0.8
        assert project.ask("verify")["ok"] is True
        look_at_the_dashboard(project)
        write_as_reader(project)


def look_at_the_dashboard(project: Project) -> None:
    """Healthy, and with the study's trials for whom knows the token."""
    (dashboard,) = project.containers("dashboard")
    project.engine.podman("healthcheck", "run", dashboard)
    token = (project.folder / "secrets" / "dashboard_token").read_text().strip()
    assert project.get("/api/studies/1")[0] == project.get("/api/studies/1", "guessed")[0] == 401
    status, study = project.get("/api/studies/1", token)
    assert status == 200, study
    assert [trial["state"] for trial in json.loads(study)["trials"]] == ["Complete"] * 4
    assert project.get("/dashboard", token)[0] == 200


def write_as_reader(project: Project) -> None:
    """With the dashboard's own secret, from its own container; refused even when it says that it wants to write."""
    (dashboard,) = project.containers("dashboard")
    write = (
        "import psycopg; c = psycopg.connect(open('/run/secrets/reader_url').read(), autocommit=True); "
        "print(c.execute('SELECT count(*) FROM fmnist_cells').fetchone()[0]); "
        "c.execute('SET default_transaction_read_only = off'); c.execute('DELETE FROM fmnist_cells')"
    )
    done = project.engine.run_inside("podman", "exec", dashboard, "python", "-c", write)
    assert (done.returncode, done.stdout) == (1, "4\n"), done.stderr
    assert "InsufficientPrivilege" in done.stderr
    listed = project.engine.podman("exec", dashboard, "ls", "/run/secrets")
    assert listed.split() == ["dashboard_token", "reader_url"]


def test_one_container_is_enough_without_postgres(engine: Engine, tmp_path: Path) -> None:
    """A study from a mounted folder; SQLite and weights on a volume; the next container knows them."""
    write_my_study(tmp_path)
    open_to_others(tmp_path)
    on_disk = ("--rm", "--init", *LOCKED_DOWN, "--volume", f"{tmp_path}:/study:ro", "--volume", "work:/data", IMAGE)
    ran = json.loads(engine.podman("run", *on_disk, "run", "/study/mine.toml", "--workers", "2", "--json"))
    assert ran["test_accuracy"] > 0.5
    assert json.loads(engine.podman("run", *on_disk, "verify", "--json"))["ok"] is True


def test_killed_and_stopped_workers_lose_nothing(engine: Engine, tmp_path: Path) -> None:
    """A study of the user's own from a mounted folder: one worker is killed, another stopped, both in mid-cell."""
    write_my_study(tmp_path / "mine")
    with running_project(engine, tmp_path, STUDY_FOLDER="./mine", STUDY_FILE="/study/mine.toml") as project:
        project.wait_for(CLAIMED, 2)
        killed, stopped = project.containers("worker")
        kill_from_outside(engine, killed)
        done = project.compose("stop", "worker")  # both: the killed one has been started again
        assert done.returncode == 0, done.stderr
        assert engine.inspect(stopped)["State"]["ExitCode"] == 75  # not 137: it was given the time that it needs
        engine.podman("start", killed, stopped)
        project.wait_for(DONE, 4)
        assert project.ask("verify")["ok"] is True
        assert project.query("SELECT sum(lost), sum(failures) FROM fmnist_cells") == [
            ["1", "0"]
        ]  # the stopped one gave back
        assert project.ask("run", "/study/mine.toml", "--workers", "1")["test_accuracy"] > 0.5
