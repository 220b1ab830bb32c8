"""Artifacts in a bucket of a real server: whole or not at all, outages waited for, what was altered refused."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.artifacts import upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from s3_server import BUCKET, HalfRelay, Relay, S3Server, files_below, running_s3
from small_study import FINGERPRINT, begin_trial, claim_cell, make_spec, read_cell
from sqlalchemy import update

from fmnist_optuna.artifacts.bucket import Bucket, check_place
from fmnist_optuna.artifacts.folder import DurableStore
from fmnist_optuna.artifacts.place import parse_place
from fmnist_optuna.artifacts.store import BucketStore
from fmnist_optuna.bridge.artifacts import WEIGHTS_FILE, discard_artifacts, store_weights
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.bridge.stores import SharedStore, list_places
from fmnist_optuna.errors import (
    ArtifactsAwayError,
    ArtifactsError,
    JoinRefusedError,
    StorageError,
    UnreadableStudyError,
)
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.records import TrialAttributes
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import studies
from fmnist_optuna.study.deletion import delete_study
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.records import UnreadableStudy, read_record_or_reason
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study
from fmnist_optuna.work.loop import LeaveRequest
from fmnist_optuna.work.order import WorkerOrder
from fmnist_optuna.work.worker import run_worker

pytestmark = pytest.mark.more

PATIENCE_SECONDS = 20.0
N_LARGE = 2**25  # more than what the buffers of two sockets take
UPLOAD = f"""
import sys
from fmnist_optuna.artifacts.bucket import Bucket
from fmnist_optuna.artifacts.place import parse_place

Bucket(parse_place(sys.argv[1])).put("one", b"x" * {N_LARGE})
"""


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with running_s3() as running:
        yield running


@pytest.fixture(autouse=True)
def _known_here(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The credentials; and the bucket is empty again afterwards."""
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    yield
    server.empty()


def make_storage(folder: Path, url: str | None, patience: float = PATIENCE_SECONDS) -> Storage:
    place = None if url is None else parse_place(url)
    return create_storage(StorageOptions(f"sqlite:///{folder}/studies.db", patience, artifacts=place))


def make_session(storage: Storage, name: str = "small") -> Session:
    session = Session(storage, create_or_join(storage, make_spec(name=name), FINGERPRINT)[0], "worker-1")
    session.presence.register("worker-1", fresh_seconds=60.0)
    return session


def begin(session: Session) -> optuna.Trial:
    """A trial under way."""
    return optuna.Trial(session.optuna_study, begin_trial(session, claim_cell(session)))


def weights_in(folder: Path) -> Path:
    (folder / WEIGHTS_FILE).write_bytes(b"weights")
    return folder / WEIGHTS_FILE


def test_a_check_leaves_nothing(server: S3Server) -> None:
    """Neither where it succeeds nor where there is no bucket."""
    Bucket(parse_place(server.url)).check()
    with pytest.raises(ArtifactsError, match=r"s3://nobody/garments at http://.*NoSuchBucket \(404\); make the bucket"):
        Bucket(parse_place(server.url.replace(BUCKET, "nobody"))).check()
    assert server.list_keys() == []


def test_a_place_is_checked_once(server: S3Server, tmp_path: Path) -> None:
    """That of a study is asked again only where it is another than the one that was named, or reached otherwise."""
    relay = Relay(server)
    named = parse_place(relay.url)
    kept = make_session(make_storage(tmp_path, relay.url)).record.place
    assert kept is not None
    assert kept != named  # it has the study's mark
    check_place(named)
    n_asked = relay.n_asked
    assert n_asked > 0
    check_place(kept, checked=named)
    assert relay.n_asked == n_asked
    for other in (None, parse_place(server.url), parse_place(f"{relay.url}&region=eu-central-1")):
        before = relay.n_asked
        check_place(kept, checked=other)
        assert relay.n_asked == before + n_asked


def test_a_killed_upload_leaves_nothing(server: S3Server) -> None:
    """A writer that is killed halfway: the object of before is whole, or there is none."""
    bucket = Bucket(parse_place(server.url))
    for before in (None, b"before"):
        if before is not None:
            bucket.put("one", before)
        with HalfRelay(server, n_bytes=N_LARGE // 8) as half:
            with subprocess.Popen([sys.executable, "-c", UPLOAD, half.url]) as process:
                assert half.is_half.wait(30)
                os.kill(process.pid, signal.SIGKILL)
            assert process.returncode == -signal.SIGKILL
        time.sleep(0.3)  # until the server sees the end of the connection
        assert bucket.holds("one") is (before is not None)
        assert before is None or bucket.get("one") == before
        assert server.list_keys() == ([] if before is None else ["garments/one"])


def test_a_list_goes_over_all_pages(server: S3Server) -> None:
    """Every object below a beginning once, and no other."""
    bucket = Bucket(parse_place(server.url))
    for name in ("a/1", "a/2", "a/3", "a/4", "a/5", "b/6"):
        bucket.put(name, name.encode())
    assert list(bucket.keys("a/", n_most=2)) == [(f"a/{number}", 3) for number in range(1, 6)]


@pytest.mark.parametrize("outage", ["slow", "refused"])
def test_an_outage_is_waited_for(
    server: S3Server, tmp_path: Path, outage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights are stored once the bucket is back, one warning says so, and the trial names them."""
    relay = Relay(server)
    session = make_session(make_storage(tmp_path, relay.url))
    trial = begin(session)
    if outage == "slow":
        relay.n_slow = 3  # each question is asked twice at once
    else:
        relay.refuse()
        signal.signal(signal.SIGALRM, lambda *_: relay.accept())
        signal.setitimer(signal.ITIMER_REAL, 1.5)
    artifact = store_weights(session.storage, session.store, trial, weights_in(tmp_path))
    assert server.client.get_object(Bucket=BUCKET, Key=f"garments/{artifact}")["Body"].read() == b"weights"
    events = [vars(record)["event"] for record in caplog.records if record.levelname == "WARNING"]
    assert (events, session.storage.n_outages) == (["storage_outage"], 1)
    relay.refuse()


def test_a_cell_waits_before_the_bucket_is_asked(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker that leaves has stored is removed behind its cell: a bucket that hangs keeps no cell."""
    session = make_session(make_storage(tmp_path, server.url))
    store_weights(session.storage, session.store, begin(session), weights_in(tmp_path))
    (cell,) = session.ledger.held_cells()
    states: list[object] = []
    remove = BucketStore.remove

    def slow_remove(store: BucketStore, artifact_id: str) -> None:
        states.append(read_cell(session.storage, cell.cell_id).state)
        remove(store, artifact_id)

    monkeypatch.setattr(BucketStore, "remove", slow_remove)
    assert session.recovery.let_go("worker-1", TrialAttributes(reason="stopped")) == [cell.cell_id]
    assert (states, server.list_keys()) == (["waiting"], [])


def test_a_worker_on_a_node_tries_the_bucket_first(server: S3Server, tmp_path: Path) -> None:
    """One that an actor of Ray starts, as nobody has tried it from there: nothing is claimed where it refuses."""
    storage = make_storage(tmp_path, server.url)
    session = make_session(storage)
    with storage.write() as connection:
        connection.execute(
            update(studies).values(artifacts=server.url.replace("studies", "nobody") + "#0123456789abcdef")
        )
    options = StorageOptions(f"sqlite:///{tmp_path}/studies.db", PATIENCE_SECONDS)
    order = WorkerOrder(options, "small", "elsewhere", session.record.generation, None, checks_bucket=True)
    with pytest.raises(ArtifactsError, match=r"Every node must be able to use .* NoSuchBucket") as error:
        run_worker(order, LeaveRequest())
    assert (error.value.exit_status, session.ledger.held_cells()) == (5, [])


def test_an_outage_is_not_waited_for_beyond_the_patience(server: S3Server, tmp_path: Path) -> None:
    """Then it is an error of the storage, which ends a worker and counts against no cell; healing goes on without."""
    relay = Relay(server)
    session = make_session(make_storage(tmp_path, relay.url, patience=1.0))
    trial = begin(session)
    relay.refuse()
    with pytest.raises(StorageError, match=r"store_weights failed for .*no connection comes about") as error:
        store_weights(session.storage, session.store, trial, weights_in(tmp_path))
    assert error.value.exit_status == 5
    frozen = session.optuna_storage.get_trial(trial_id_of(trial))
    discard_artifacts(session.store, session.optuna_storage, frozen)
    with pytest.raises(StorageError, match="remove_artifact failed for"):
        delete_study(session.storage, session.record)
    assert find_study(session.storage, "small") == session.record


def test_a_study_keeps_its_place(server: S3Server, tmp_path: Path) -> None:
    """Whoever opens it elsewhere finds it, what follows from it goes there too, and another place is refused."""
    session = make_session(make_storage(tmp_path, server.url))
    elsewhere = make_storage(tmp_path, None)
    record = find_study(elsewhere, "small")
    assert record.place is not None
    assert (str(record.place), record.place.endpoint) == ("s3://studies/garments", server.endpoint)
    assert make_session(elsewhere).record.place == record.place
    other = make_storage(tmp_path, server.url.replace("garments", "shirts"))
    with pytest.raises(
        JoinRefusedError, match=r"keeps its artifacts in s3://studies/garments at .* names s3://studies/s"
    ):
        make_session(other)
    beside = make_session(elsewhere, "beside")
    with pytest.raises(JoinRefusedError, match=r"study beside: keeps its artifacts in the folder beside the st"):
        make_session(session.storage, "beside")
    assert beside.record.place is None
    assert [place and str(place) for place in list_places(elsewhere)] == ["s3://studies/garments", None]


def test_a_deleted_study_leaves_no_object(server: S3Server, tmp_path: Path) -> None:
    """Weights and checkpoints of its own go, those of another study at the same place stay; no file lies here."""
    storage = make_storage(tmp_path, server.url)
    sessions = [make_session(storage, name) for name in ("first", "second")]
    for session in sessions:
        store_weights(storage, session.store, begin(session), weights_in(tmp_path))
        with session.checkpoints.written("cell") as file:
            file.write_bytes(b"checkpoint")
    assert len(server.list_keys()) == 4
    before = set(server.list_keys())
    delete_study(storage, sessions[0].record)
    gone = before - set(server.list_keys())
    assert {key.split("/")[1] for key in gone if "checkpoints" in key} == {"checkpoints"}
    assert len(gone) == 2
    assert sessions[1].checkpoints.disk_use() is not None
    delete_study(storage, sessions[1].record)
    assert server.list_keys() == []
    assert not storage.artifacts.exists()


def test_a_damaged_place_is_not_read(server: S3Server, tmp_path: Path) -> None:
    """Such a study is refused in one line, and can be deleted still."""
    storage = make_storage(tmp_path, server.url)
    make_session(storage)
    with storage.write() as connection:
        connection.execute(update(studies).values(artifacts="s3://me:hunter2@studies/x"))
        row = connection.execute(studies.select()).one()
    with pytest.raises(UnreadableStudyError, match="its place of artifacts must be s3://") as error:
        find_study(storage, "small")
    assert "hunter2" not in str(error.value)
    unreadable = read_record_or_reason(row)
    assert isinstance(unreadable, UnreadableStudy)
    delete_study(storage, unreadable)


def test_a_dashboard_finds_artifacts_wherever_they_are(server: S3Server, tmp_path: Path) -> None:
    """Of studies in the folder and in the bucket; what is uploaded must have one place to go to."""
    in_bucket, in_folder = make_storage(tmp_path, server.url), make_storage(tmp_path, None)
    ids = []
    for storage, name in ((in_bucket, "first"), (in_folder, "second")):
        session = make_session(storage, name)
        ids.append(
            upload_artifact(
                artifact_store=session.store, file_path=str(weights_in(tmp_path)), study_or_trial=session.optuna_study
            )
        )
        if storage is in_bucket:
            SharedStore(in_folder).write("uploaded", io.BytesIO(b"picture"))
            assert server.list_keys()[-1] == "garments/uploaded"
    shared = SharedStore(in_folder)
    assert [shared.open_reader(each).read() for each in (*ids, "uploaded")] == [b"weights", b"weights", b"picture"]
    with pytest.raises(ArtifactsError, match="An upload must have one place to go to"):
        shared.write("another", io.BytesIO(b""))
    for artifact in (*ids, "uploaded"):
        shared.remove(artifact)
        with pytest.raises(ArtifactNotFound):
            shared.open_reader(artifact)
    assert (server.list_keys(), files_below(in_folder.artifacts)) == ([], [])
    assert isinstance(make_session(in_folder, "second").store, DurableStore)


def test_credentials_are_in_no_record(server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not in what boto3 logs either when all records are asked for, nor in the database."""
    caplog.set_level("DEBUG")
    session = make_session(make_storage(tmp_path, server.url))
    store_weights(session.storage, session.store, begin(session), weights_in(tmp_path))
    assert isinstance(session.store, BucketStore)
    said = json.dumps([record.getMessage() for record in caplog.records]) + repr(session) + repr(session.record)
    written = said.encode() + (tmp_path / "studies.db").read_bytes()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert server.variables[name].encode() not in written
    assert b"Authorization" not in written


def test_nothing_answers_a_check(server: S3Server) -> None:
    """It is said at once."""
    relay = Relay(server)
    relay.refuse()
    began = time.monotonic()
    with pytest.raises(ArtifactsAwayError, match="no connection comes about; check endpoint and network"):
        Bucket(parse_place(relay.url)).check()
    assert time.monotonic() - began < 10
