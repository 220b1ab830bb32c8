"""What is asked of boto3, and what its errors mean. The only module that imports it, as most people do without.

Of a server's answer to what went wrong only its code is shown: whatever else stands there may be a secret.
"""

import contextlib
import functools
import logging
import os
import re
from collections.abc import Iterator, Sequence
from typing import Protocol, TypedDict

import boto3
from botocore import exceptions as boto
from botocore.config import Config

from fmnist_optuna.artifacts.place import Place
from fmnist_optuna.errors import ArtifactsAwayError, ArtifactsError

CONNECT_SECONDS, READ_SECONDS = 10, 30
N_TRIES = 2  # an idle connection may have been closed meanwhile; whoever waits longer does so with a patience
AWAY_STATUSES = frozenset({408, 429, *range(500, 600)})
AWAY_CODES = frozenset({"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling", "503"})
MISSING_CODES = frozenset({"404", "NoSuchKey", "NotFound"})
CODE = re.compile(r"[0-9A-Za-z._-]{1,60}")
TALKS = ("boto3", "botocore", "urllib3")  # loggers that tell signatures and tokens to whoever asks for all records

CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
CHECK_CREDENTIALS = f"check the credentials of this machine ({CREDENTIALS})"
CHECK_REGION = "name the region of the bucket (?region=NAME behind the URL, or AWS_REGION)"
ADVICE = {
    "NoSuchBucket": "make the bucket, or name another",
    "InvalidAccessKeyId": CHECK_CREDENTIALS,
    "SignatureDoesNotMatch": CHECK_CREDENTIALS,
    "ExpiredToken": "renew the credentials of this machine",
    "InvalidToken": "renew the credentials of this machine",
    "RequestTimeTooSkewed": "set the clock of this machine",
    "PermanentRedirect": CHECK_REGION,
    "AuthorizationHeaderMalformed": CHECK_REGION,
    "IllegalLocationConstraintException": CHECK_REGION,
}
# What to do about errors that come without an answer, the special ones first.
WITHOUT_ANSWER: tuple[tuple[type[Exception], str, str, bool], ...] = (
    (boto.NoCredentialsError, "no credentials were found", CHECK_CREDENTIALS, False),
    (boto.PartialCredentialsError, "a part of the credentials is missing", CHECK_CREDENTIALS, False),
    (boto.ProfileNotFound, "there is no such profile", CHECK_CREDENTIALS, False),
    (boto.SSLError, "its certificate is refused", "name the authority's file in AWS_CA_BUNDLE", False),
    (boto.CredentialRetrievalError, "the credentials cannot be had", CHECK_CREDENTIALS, True),
    (boto.ConnectTimeoutError, f"nothing answers within {CONNECT_SECONDS} s", "check endpoint and network", True),
    (boto.ReadTimeoutError, f"nothing answers within {READ_SECONDS} s", "check endpoint and network", True),
    (boto.ConnectionError, "no connection comes about", "check endpoint and network", True),
    (boto.HTTPClientError, "the connection broke", "check endpoint and network", True),
    (boto.IncompleteReadError, "the connection broke", "check endpoint and network", True),
)


class Body(Protocol):
    """Content on its way here."""

    def read(self) -> bytes:
        """All of it."""


class Got(TypedDict):
    """The answer to `get_object`."""

    Body: Body


class Listed(TypedDict):
    """One object of a list."""

    Key: str
    Size: int


class Page(TypedDict, total=False):
    """The answer to `list_objects_v2`."""

    Contents: Sequence[Listed]
    IsTruncated: bool
    NextContinuationToken: str


class S3Client(Protocol):
    """The part of boto3's client that is used; arguments as in its documentation."""

    def put_object(self, **arguments: object) -> object:
        """Write one object, whole or not at all."""

    def get_object(self, **arguments: object) -> Got:
        """Read one."""

    def head_object(self, **arguments: object) -> object:
        """Fail unless it is there."""

    def delete_object(self, **arguments: object) -> object:
        """Remove one; one that is not there is no error."""

    def list_objects_v2(self, **arguments: object) -> Page:
        """A page of those whose keys begin alike."""


def connect(place: Place) -> S3Client:
    """A client for a place as it is seen from this machine; nothing is asked of the server yet.

    Raises:
        ArtifactsError: There is no such profile or region.
    """
    said = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    return _make_client(place.without_mark(), said)


@functools.lru_cache(maxsize=8)
def _make_client(place: Place, _said: tuple[tuple[str, str], ...]) -> S3Client:
    """A client, made once a place and environment: it takes 0.15 s (measured 2026-11).

    Checksums that only some servers know are left out: ours is the hash of each content.
    """
    for name in TALKS:
        logging.getLogger(name).setLevel(logging.WARNING)
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": N_TRIES},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if place.is_path_style else "auto"},
    )
    with in_our_words(place, "be reached", ""):
        client: S3Client = boto3.session.Session().client(
            "s3", endpoint_url=place.endpoint, region_name=place.region, config=config
        )
    return client


@contextlib.contextmanager
def in_our_words(place: Place, must: str, permission: str) -> Iterator[None]:
    """Errors of boto3 as ours.

    Args:
        must: What the place must do in this block, as in "let this machine write".
        permission: That is needed for it.

    Raises:
        FileNotFoundError: There is no such object.
        ArtifactsAwayError: Waiting may mend it.
        ArtifactsError: It does not.
    """
    try:
        yield
    except boto.ClientError as error:
        answer = error.response
        code, status = str(answer.get("Error", {}).get("Code", "")), answer.get("ResponseMetadata", {})
        raise _of_answer(place, must, permission, code, status.get("HTTPStatusCode", 0)) from error
    except boto.BotoCoreError as error:
        raise _without_answer(place, must, error) from error


def _of_answer(place: Place, must: str, permission: str, code: str, status: int) -> Exception:
    if code in MISSING_CODES:
        return FileNotFoundError(code)
    shown = f"it answers {code if CODE.fullmatch(code) else 'an error'} ({status})"
    if code in AWAY_CODES or status in AWAY_STATUSES:
        return ArtifactsAwayError(_say(place, must, shown, "try again later"))
    advice = ADVICE.get(code, f"allow {permission} to the credentials of this machine")
    return ArtifactsError(_say(place, must, shown, advice))


def _without_answer(place: Place, must: str, error: Exception) -> ArtifactsError:
    for kind, shown, advice, may_mend in WITHOUT_ANSWER:
        if isinstance(error, kind):
            return (ArtifactsAwayError if may_mend else ArtifactsError)(_say(place, must, shown, advice))
    return ArtifactsError(_say(place, must, f"{type(error).__name__} came", "check URL, endpoint and credentials"))


def _say(place: Place, must: str, but: str, advice: str) -> str:
    return f"The artifacts' place {place.described} must {must}, but {but}; {advice}."
