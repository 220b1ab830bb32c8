"""Names in the database never lead out of a folder: ids of artifacts, names of studies."""

import io
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_study import ON_SQLITE, begin_trial, claim_cell, make_spec, open_session
from sqlalchemy import text, update
from stored_files import weights_path

from fmnist_optuna.artifacts.folder import DurableStore
from fmnist_optuna.bridge.artifacts import WEIGHTS_FILE, discard_artifacts, store_weights
from fmnist_optuna.errors import MismatchError, SpecError
from fmnist_optuna.ledger.tables import studies
from fmnist_optuna.running.options import RunOptions
from fmnist_optuna.running.training import log_folder_of
from fmnist_optuna.study.deletion import delete_study
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.launchers import local
from fmnist_optuna.work.limits import Limits
from fmnist_optuna.work.order import WorkerOrder
from fmnist_optuna.work.supervisor import Supervisor

OUTSIDE = {  # ids of artifacts, where FOLDER is the one beside which the victim stands
    "one up": "../victim",
    "down and up": "sub/../../victim",
    "absolute": "FOLDER/victim",
    "a link": "link",
    "a link to a folder": "folder-link/victim",
    "the folder above": "..",
    "the folder itself": ".",
    "no name": "",
    "NUL": "a\0b",
    "a name of 5000 letters": "a" * 5000,
    "a new line": "5f0c\n",
    "a number": 7.5,
}


@pytest.fixture
def trial_with(session: Session) -> Callable[..., Any]:
    """Makes a trial whose artifacts have given ids, beside a file that is none of ours."""
    folder = session.storage.artifacts
    folder.mkdir()
    victim = folder.parent / "victim"
    victim.write_text("mine")
    (folder / "link").symlink_to(victim)
    (folder / "folder-link").symlink_to(folder.parent)
    (folder / "sub").mkdir()

    def make(*ids: Any) -> Any:
        trial_id = begin_trial(session, claim_cell(session))
        for artifact_id in ids:
            meta = {"artifact_id": artifact_id, "filename": WEIGHTS_FILE, "mimetype": "", "encoding": None}
            session.optuna_storage.set_trial_system_attr(trial_id, f"artifacts:{artifact_id!r:.50}", json.dumps(meta))
        return session.optuna_storage.get_trial(trial_id)

    return make


def hostile_id(name: str, folder: Path) -> Any:
    artifact_id = OUTSIDE[name]
    return artifact_id.replace("FOLDER", str(folder)) if isinstance(artifact_id, str) else artifact_id


@ON_SQLITE
@pytest.mark.parametrize("name", list(OUTSIDE))
def test_an_artifact_is_never_read_outside_its_folder(
    name: str, session: Session, trial_with: Callable[..., Any]
) -> None:
    """`MismatchError` that names the folder, whatever leads out of it."""
    folder = session.storage.artifacts
    trial = trial_with(hostile_id(name, folder.parent))
    with pytest.raises(MismatchError, match=f"An artifact must be a file of {folder} itself, but "):
        weights_path(session, trial)


@ON_SQLITE
@pytest.mark.parametrize("name", list(OUTSIDE))
def test_an_artifact_is_never_written_outside_its_folder(
    name: str, session: Session, trial_with: Callable[..., Any]
) -> None:
    """`MismatchError`, and every file is as it was."""
    folder = session.storage.artifacts
    before = snapshot(folder.parent)
    with pytest.raises(MismatchError, match="An artifact must be a file of "):
        DurableStore(folder).write(hostile_id(name, folder.parent), io.BytesIO(b"yours"))
    assert snapshot(folder.parent) == before


@ON_SQLITE
@pytest.mark.parametrize("name", list(OUTSIDE))
def test_an_artifact_is_never_removed_outside_its_folder(
    name: str, session: Session, trial_with: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """One warning says which trial; nothing but the trial's own file is removed."""
    folder = session.storage.artifacts
    trial = trial_with(hostile_id(name, folder.parent), "0a1b")
    (folder / "0a1b").touch()
    before = snapshot(folder.parent)
    with caplog.at_level(logging.WARNING, logger="fmnist_optuna"):
        discard_artifacts(session.store, session.optuna_storage, trial)
    (warning,) = caplog.records
    assert warning.getMessage().startswith(f"artifact_not_removed file={WEIGHTS_FILE} error=")
    assert before - snapshot(folder.parent) == {("artifacts/0a1b", b"")}


@ON_SQLITE
def test_a_study_with_a_hostile_artifact_can_be_deleted(session: Session, trial_with: Callable[..., Any]) -> None:
    """The study is gone, the file outside is not."""
    trial_with("../victim", "link")
    delete_study(session.storage, session.record)
    assert session.optuna_storage.get_all_studies() == []
    assert (session.storage.artifacts.parent / "victim").read_text() == "mine"


def snapshot(folder: Path) -> set[tuple[str, bytes]]:
    """Every file and link below a folder with its content, the database aside."""
    paths = [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return {
        (str(path.relative_to(folder)), bytes(path.readlink()) if path.is_symlink() else path.read_bytes())
        for path in paths
        if not path.name.startswith("studies.db")
    }


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", "..", ".hidden", "a\\b", "a\nb", "a\0b", ""])
def test_a_study_is_never_called_by_a_path(name: str) -> None:
    """A name is letters, digits, dots, dashes and underscores, and begins with a letter or digit."""
    with pytest.raises(SpecError, match="name must be letters, digits"):
        make_spec(name=name)


@ON_SQLITE
@pytest.mark.parametrize("name", ["../../evil", "/evil"])
def test_a_path_for_a_name_makes_no_file_elsewhere(
    name: str, session: Session, storage_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs and weights are called by worker and by chance, whatever somebody wrote into the database."""
    with session.storage.write() as connection:
        connection.execute(update(studies).values(study_name=name))
        connection.execute(text("UPDATE studies SET study_name = :name"), {"name": name})
    evil = open_session(storage_url, "worker", name)
    trial_id = begin_trial(evil, claim_cell(evil))
    (tmp_path / WEIGHTS_FILE).write_bytes(b"weights")
    import optuna

    stored = store_weights(evil.storage, evil.store, optuna.Trial(evil.optuna_study, trial_id), tmp_path / WEIGHTS_FILE)
    path = weights_path(evil, evil.optuna_storage.get_trial(trial_id))
    assert path == tmp_path / "artifacts" / stored

    orders: list[WorkerOrder] = []

    def take(_target: object, arguments: Sequence[WorkerOrder], name: str) -> Unstarted:
        orders.extend(arguments)
        return Unstarted()

    monkeypatch.setattr(local, "start", take)
    order = WorkerOrder(evil.storage.options, evil.record.name, "", evil.record.generation, None)
    logs = log_folder_of(evil, RunOptions(evil.storage.options))
    Supervisor(evil, order, 1, Limits(), logs, local.launch_process)._start_worker(0)
    assert orders[0].log_file is not None
    assert orders[0].log_file.resolve().parent == tmp_path / "logs"
    assert {name for name, _ in snapshot(tmp_path)} == {WEIGHTS_FILE, f"artifacts/{stored}"}
    evil.storage.close()


class Unstarted:
    """A worker that never began."""

    pid = None
