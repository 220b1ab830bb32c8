"""The objects of a bucket below one prefix: each is there whole or not at all.

Knows neither Optuna nor whose the objects are. boto3 is imported with the first question.

An object is written in one request, so that of a writer who was killed nothing is left; Optuna's own store sends large
files in parts, of which a bucket keeps those of the dead. The server compares what came with its MD5.
"""

import base64
import hashlib
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING

from fmnist_optuna.artifacts.place import Place
from fmnist_optuna.errors import ArtifactsError, UsageError
from fmnist_optuna.settings import Here

if TYPE_CHECKING:
    from fmnist_optuna.artifacts.s3_client import S3Client

PROBE = "fmnist-optuna-probe"  # how the keys begin of what a check writes, and removes


def connect_here(place: Place) -> "S3Client":
    """A client of boto3.

    Raises:
        UsageError: It is not installed.
        ArtifactsError: There is no such profile or region.
    """
    try:
        from fmnist_optuna.artifacts.s3_client import connect  # loads boto3
    except ModuleNotFoundError as error:
        raise UsageError(
            f"Artifacts in {place} need boto3, but it is not installed; pip install 'fmnist-optuna[s3]'."
        ) from error
    return connect(place)


class Bucket:
    """The objects of one place.

    Args:
        place: As the study keeps it; this machine's environment may reach it by other names.
        connect: Makes a client.

    Raises:
        ArtifactsError: In each of its methods: the place does not let this machine do it.
        ArtifactsAwayError: Likewise: it does not answer.
        UsageError: Likewise: boto3 is not installed, or the environment names an endpoint of another form.
    """

    def __init__(self, place: Place, connect: Callable[[Place], "S3Client"] = connect_here) -> None:
        self.place = place
        self._connect = connect

    @cached_property
    def _here(self) -> Place:
        return self.place.seen_from(Here.from_environment())

    @cached_property
    def _client(self) -> "S3Client":
        return self._connect(self._here)

    def put(self, key: str, content: bytes) -> None:
        """Write one object, or replace it."""
        digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        with self._asking("let this machine write", "s3:PutObject") as client:
            client.put_object(**self._of(key), Body=content, ContentMD5=digest)

    def get(self, key: str) -> bytes:
        """The content of one.

        Raises:
            FileNotFoundError: There is no such object.
        """
        with self._asking("let this machine read", "s3:GetObject") as client:
            return client.get_object(**self._of(key))["Body"].read()

    def holds(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            with self._asking("let this machine read", "s3:GetObject") as client:
                client.head_object(**self._of(key))
        except FileNotFoundError:
            return False
        return True

    def remove(self, key: str) -> None:
        """Remove one, if it is there."""
        # That it is not there is said by some servers, and passed over by others.
        with suppress(FileNotFoundError), self._asking("let this machine remove", "s3:DeleteObject") as client:
            client.delete_object(**self._of(key))

    def keys(self, begin: str, n_most: int = 1000) -> Iterator[tuple[str, int]]:
        """Keys that begin alike, below the place's prefix, with the sizes of their objects.

        Args:
            n_most: Objects that are asked for at once.
        """
        where: dict[str, object] = {"Bucket": self.place.bucket, "Prefix": self.place.key(begin), "MaxKeys": n_most}
        n_above = len(self.place.key(""))
        while True:
            with self._asking("let this machine list it", "s3:ListBucket") as client:
                page = client.list_objects_v2(**where)
            yield from ((each["Key"][n_above:], each["Size"]) for each in page.get("Contents", ()))
            if not page.get("IsTruncated"):
                return
            where["ContinuationToken"] = page["NextContinuationToken"]

    def check(self) -> None:
        """Try all that a worker will do here, on an object of this call alone, of which nothing is left.

        Removing comes before writing: who may not remove leaves nothing either.

        Raises:
            ArtifactsError: One of them fails; the text says which, why, and what to do.
        """
        key, content = f"{PROBE}-{uuid.uuid4().hex}", uuid.uuid4().bytes
        try:
            next(self.keys(key, n_most=1), None)
            self.remove(key)
            self.put(key, content)
            if (found := self.get(key)) != content:
                raise ArtifactsError(
                    f"The artifacts' place {self._here.described} must give back what was written, but of "
                    f"{len(content)} bytes come {len(found)} others; something between here and the bucket alters them."
                )
            self.remove(key)
        except FileNotFoundError as error:
            raise ArtifactsError(
                f"The artifacts' place {self._here.described} must give back what was written, but it is not there; "
                "make the bucket, or look for what removes its objects."
            ) from error

    def _of(self, key: str) -> dict[str, object]:
        return {"Bucket": self.place.bucket, "Key": self.place.key(key)}

    @contextmanager
    def _asking(self, must: str, permission: str) -> Iterator["S3Client"]:
        """The client, whose errors within the block are ours."""
        client = self._client  # first, as it says so where boto3 is missing
        from fmnist_optuna.artifacts.s3_client import in_our_words  # loads boto3

        with in_our_words(self._here, must, permission):
            yield client


def check_place(place: Place | None, checked: Place | None = None) -> None:
    """Check that this machine can keep artifacts at a place, and make nothing; None is the folder.

    Args:
        checked: What was checked before: where it is the same place, reached in the same way, nothing is asked again.

    Raises:
        ArtifactsError: It cannot.
        UsageError: boto3 is not installed.
    """
    here = Here.from_environment()
    ways = [None if each is None else each.without_mark().seen_from(here) for each in (place, checked)]
    if place is not None and ways[0] != ways[1]:
        Bucket(place).check()
