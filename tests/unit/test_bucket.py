"""Objects of a bucket: what is asked of a server, in which order, and what is said of its errors."""

import base64
import hashlib
import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions as boto
from optuna.artifacts.exceptions import ArtifactNotFound

from fmnist_optuna.artifacts.bucket import Bucket
from fmnist_optuna.artifacts.bucket_checkpoints import BucketCheckpoints
from fmnist_optuna.artifacts.checkpoints import DiskUse
from fmnist_optuna.artifacts.place import Place
from fmnist_optuna.artifacts.s3_client import in_our_words
from fmnist_optuna.artifacts.store import BucketStore
from fmnist_optuna.errors import ArtifactsAwayError, ArtifactsError, MismatchError, UsageError
from fmnist_optuna.ledger.outages import is_outage, is_permanent

PLACE = Place("studies", "a", "http://minio:9000", mark="0123456789abcdef")
SECRET = "hunter2"


def refused(code: str, status: int) -> boto.ClientError:
    """An answer that repeats what it was asked with."""
    error = {"Code": code, "Message": f"no {SECRET}", "StringToSign": SECRET}
    return boto.ClientError({"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


class Memory:
    """A server in memory: `objects` by their keys, `asked` in the order of the requests; `failing` raises for one.

    `given_back` is what every read gives, whatever was written; with `tells_missing` it answers to the removal of what
    is not there as Google's does.
    """

    def __init__(
        self,
        failing: Mapping[str, Exception] | None = None,
        given_back: bytes | None = None,
        tells_missing: bool = False,
    ) -> None:
        self.tells_missing = tells_missing
        self.given_back = given_back
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.failing = dict(failing or {})

    def _ask(self, name: str) -> None:
        self.asked.append(name)
        if name in self.failing:
            raise self.failing[name]

    def put_object(self, **arguments: Any) -> object:
        self._ask("put")
        content: bytes = arguments["Body"]
        digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        assert (arguments["Bucket"], arguments["ContentMD5"]) == ("studies", digest)
        self.objects[arguments["Key"]] = content
        return {}

    def get_object(self, **arguments: Any) -> Any:
        self._ask("get")
        if arguments["Key"] not in self.objects:
            raise refused("NoSuchKey", 404)
        return {"Body": io.BytesIO(self.given_back or self.objects[arguments["Key"]])}

    def head_object(self, **arguments: Any) -> object:
        self._ask("head")
        if arguments["Key"] not in self.objects:
            raise refused("404", 404)
        return {}

    def delete_object(self, **arguments: Any) -> object:
        self._ask("delete")
        if self.objects.pop(arguments["Key"], None) is None and self.tells_missing:
            raise refused("NoSuchKey", 404)
        return {}

    def list_objects_v2(self, **arguments: Any) -> Any:
        """Two keys a page at most."""
        self._ask("list")
        begin = int(arguments.get("ContinuationToken", 0))
        keys = sorted(key for key in self.objects if key.startswith(arguments["Prefix"]))
        listed = [{"Key": key, "Size": len(self.objects[key])} for key in keys[begin : begin + 2]]
        page = {"Contents": listed, "IsTruncated": begin + 2 < len(keys)}
        return {**page, "NextContinuationToken": str(begin + 2)} if page["IsTruncated"] else page


def bucket_of(server: Memory) -> Bucket:
    return Bucket(PLACE, lambda _place: server)


def test_a_check_tries_all_and_leaves_nothing() -> None:
    """Removing comes before writing, so that who may not remove has written nothing."""
    server = Memory()
    bucket_of(server).check()
    assert (server.asked, server.objects) == (["list", "delete", "put", "get", "delete"], {})


@pytest.mark.parametrize(
    ("request_name", "what", "permission"),
    [
        ("list", "let this machine list it", "s3:ListBucket"),
        ("delete", "let this machine remove", "s3:DeleteObject"),
        ("put", "let this machine write", "s3:PutObject"),
    ],
)
def test_a_check_says_what_is_not_allowed(request_name: str, what: str, permission: str) -> None:
    """One line: what was tried, which error, what to do; nothing is left."""
    server = Memory({request_name: refused("AccessDenied", 403)})
    with pytest.raises(ArtifactsError) as error:
        bucket_of(server).check()
    assert str(error.value) == (
        f"The artifacts' place s3://studies/a at http://minio:9000 must {what}, but it answers AccessDenied (403); "
        f"allow {permission} to the credentials of this machine."
    )
    assert (error.value.exit_status, server.objects) == (5, {})


def test_what_is_not_there_is_removed() -> None:
    """Servers that say so and servers that do not are the same."""
    server = Memory(tells_missing=True)
    bucket_of(server).check()
    bucket_of(server).remove("nothing")
    assert (server.objects, server.asked[-1]) == ({}, "delete")


def test_a_bucket_that_alters_is_refused() -> None:
    """What comes back must be what was written."""
    server = Memory(given_back=b"other")
    with pytest.raises(ArtifactsError, match="must give back what was written, but of 16 bytes come 5 others"):
        bucket_of(server).check()


ERRORS: dict[str, tuple[Exception, bool, str]] = {
    "slow down": (refused("SlowDown", 503), True, "SlowDown (503); try again later"),
    "broken": (refused("InternalError", 500), True, "InternalError (500); try again later"),
    "too many": (refused("TooManyRequests", 429), True, "TooManyRequests (429); try again later"),
    "no bucket": (refused("NoSuchBucket", 404), False, "NoSuchBucket (404); make the bucket, or name another"),
    "key": (refused("SignatureDoesNotMatch", 403), False, "SignatureDoesNotMatch (403); check the credentials"),
    "region": (refused("PermanentRedirect", 301), False, "PermanentRedirect (301); name the region"),
    "strange": (refused(f"<b>{SECRET}", 400), False, "it answers an error (400); allow s3:PutObject"),
    "refused": (boto.EndpointConnectionError(endpoint_url=SECRET), True, "no connection comes about; check endpoint"),
    "silent": (boto.ReadTimeoutError(endpoint_url=SECRET), True, "nothing answers within 30 s; check endpoint"),
    "closed": (boto.ConnectionClosedError(endpoint_url=SECRET), True, "the connection broke; check endpoint"),
    "certificate": (boto.SSLError(endpoint_url="", error=SECRET), False, "its certificate is refused; name the"),
    "nobody": (boto.NoCredentialsError(), False, "no credentials were found; check the credentials"),
    "profile": (boto.ProfileNotFound(profile=SECRET), False, "there is no such profile; check the credentials"),
    "other": (boto.InvalidRegionError(region_name=SECRET), False, "InvalidRegionError came; check URL, endpoint"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_said_plainly_and_waited_for_or_not(name: str) -> None:
    """Nothing that the server or the library repeats is shown; what passes by itself is an outage, all else is not."""
    error, is_away, text = ERRORS[name]
    with pytest.raises(ArtifactsError) as raised, in_our_words(PLACE, "let this machine write", "s3:PutObject"):
        raise error
    assert text in str(raised.value)
    assert SECRET not in str(raised.value)
    assert isinstance(raised.value, ArtifactsAwayError) is is_outage(raised.value) is is_away
    assert not is_permanent(raised.value)


def test_without_boto3_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """As most people do without it."""
    for name in [name for name in sys.modules if name.startswith("fmnist_optuna.artifacts.s3_client")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UsageError, match=r"need boto3, but it is not installed; pip install 'fmnist-optuna\[s3\]'"):
        Bucket(PLACE).check()


def test_an_artifact_goes_to_the_prefix_and_comes_back(tmp_path: Path) -> None:
    """The copy is made once; what is not there is Optuna's error."""
    server = Memory()
    store = BucketStore(bucket_of(server))
    store.write("one", io.BytesIO(b"weights"))
    assert server.objects == {"a/one": b"weights"}
    assert (store.holds("one"), store.holds("two"), store.describe("one")) == (True, False, "s3://studies/a/one")
    assert store.open_reader("one").read() == store.bring("one", tmp_path).read_bytes() == b"weights"
    n_asked = len(server.asked)
    assert store.bring("one", tmp_path) == tmp_path / "one"
    assert len(server.asked) == n_asked
    for read in (store.open_reader, lambda each: store.bring(each, tmp_path)):
        with pytest.raises(ArtifactNotFound):
            read("two")
    store.remove("one")
    store.remove("one")
    assert server.objects == {}


@pytest.mark.parametrize("artifact", ["../b", "checkpoints/x/y", "", "a b", "a\0"])
def test_an_artifact_stays_below_its_prefix(artifact: str, tmp_path: Path) -> None:
    """A database may say anything: nothing else of the bucket is read, written or removed."""
    server = Memory()
    store = BucketStore(bucket_of(server))
    uses: tuple[Callable[[], object], ...] = (
        lambda: store.open_reader(artifact),
        lambda: store.write(artifact, io.BytesIO(b"yours")),
        lambda: store.remove(artifact),
        lambda: store.holds(artifact),
        lambda: store.bring(artifact, tmp_path),
    )
    for use in uses:
        with pytest.raises(MismatchError, match="An artifact must be an object of s3://studies/a itself, but "):
            use()
    assert server.asked == []


def test_checkpoints_are_kept_below_the_mark_of_their_study(tmp_path: Path) -> None:
    """One a cell, replaced by the next; those of another study, and artifacts, are left."""
    server = Memory()
    server.objects = {"a/one": b"", "a/checkpoints/another/c1": b"", "ab/checkpoints/0123456789abcdef/c1": b""}
    others = dict(server.objects)
    checkpoints = BucketCheckpoints(bucket_of(server))
    assert not checkpoints.bring("c1", tmp_path).exists()
    for content in (b"first", b"second"):
        with checkpoints.written("c1") as file:
            file.write_bytes(content)
    for cell in ("c2", "c3", "c4"):
        with checkpoints.written(cell) as file:
            file.write_bytes(b"12345")
    assert server.objects["a/checkpoints/0123456789abcdef/c1"] == b"second"
    assert checkpoints.bring("c1", tmp_path).read_bytes() == b"second"
    assert checkpoints.disk_use() == DiskUse(4, 6 + 3 * 5)
    checkpoints.remove("c2")
    checkpoints.remove("c2")
    assert checkpoints.disk_use() == DiskUse(3, 16)
    checkpoints.remove_all()
    assert server.objects == others


def test_a_checkpoint_that_was_not_finished_is_not_kept() -> None:
    """The one before it stays."""
    server = Memory()
    checkpoints = BucketCheckpoints(bucket_of(server))

    def fail(file: Path) -> None:
        file.write_bytes(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError), checkpoints.written("c1") as file:
        fail(file)
    assert server.objects == {}


def test_a_bucket_that_is_away_keeps_nobody_waiting() -> None:
    """`status` does without their size, and who removes them here and there goes on; with the study they must go."""
    away = refused("SlowDown", 503)
    checkpoints = BucketCheckpoints(bucket_of(Memory({"list": away, "delete": away})))
    assert checkpoints.disk_use() is None
    checkpoints.remove("c1")
    checkpoints.remove_all()
    with pytest.raises(ArtifactsAwayError):
        checkpoints.clear()
