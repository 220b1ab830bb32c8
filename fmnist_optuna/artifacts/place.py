"""Where the artifacts of a study are if not in the folder beside its storage: a bucket of S3 or of what speaks it.

A study keeps its place as a URL, so that a worker on another machine finds it: `s3://BUCKET/PREFIX?endpoint=URL`.
"""

import re
import secrets
from dataclasses import dataclass, fields, replace
from typing import Self
from urllib.parse import parse_qsl

from fmnist_optuna.errors import UsageError
from fmnist_optuna.settings import ARTIFACTS, S3_ENDPOINT, Here

BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
PREFIX = re.compile(r"((?!\.{1,2}(/|$))[0-9A-Za-z._=+-]{1,100}(/(?!$)|$)){0,8}")  # what no server takes amiss
ENDPOINT = re.compile(r"https?://([0-9A-Za-z.-]+|\[[0-9A-Fa-f:]+\])(:\d{1,5})?/?")
REGION = re.compile(r"[0-9a-z-]{1,40}")
MARK = re.compile(r"[0-9a-f]{16}")
URL = re.compile(r"s3://(?P<bucket>[^/?#]*)/?(?P<prefix>[^?#]*)(\?(?P<query>[^#]*))?(#(?P<mark>.*))?", re.DOTALL)
FORM = "s3://BUCKET/PREFIX, with ?endpoint=URL, region=NAME or path_style=true behind it, & between two of them"
SWITCH = {"true": True, "false": False}


@dataclass(frozen=True)
class Place:
    """A bucket, the prefix of all that is kept in it, and how it is reached.

    Args:
        bucket: Its name.
        prefix: Parts with slashes between them; empty for none.
        endpoint: URL of a server that speaks S3; None for what the environment says, else AWS.
        region: None for what the environment says.
        is_path_style: Whether the bucket stands in the path of a URL, not in its host; None for yes with an endpoint.
        mark: Of one study: two databases may share a prefix, and each has a study 1. Empty before a study is made.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    is_path_style: bool | None = None
    mark: str = ""

    def __str__(self) -> str:
        """For people: `s3://bucket/prefix`."""
        return f"s3://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    @property
    def described(self) -> str:
        """The same with the server, for errors."""
        return f"{self} at {self.endpoint}" if self.endpoint else str(self)

    def key(self, *parts: str) -> str:
        """The key of an object below the prefix."""
        return "/".join([self.prefix, *parts] if self.prefix else parts)

    def to_url(self) -> str:
        """As a study keeps it; `read_place` reads it."""
        style = None if self.is_path_style is None else str(self.is_path_style).lower()
        given = {"endpoint": self.endpoint, "region": self.region, "path_style": style}
        query = "&".join(f"{name}={value}" for name, value in given.items() if value is not None)
        return str(self) + (f"?{query}" if query else "") + (f"#{self.mark}" if self.mark else "")

    def for_study(self, here: Here) -> Self:
        """The same for a new study, with what this machine knows of how to reach it where the URL leaves that open."""
        seen = self.seen_from(here)
        endpoint, region = self.endpoint or seen.endpoint, self.region or seen.region
        return replace(self, endpoint=endpoint, region=region, mark=secrets.token_hex(8))

    def without_mark(self) -> Self:
        """The same of no study: where the artifacts of several may be."""
        return replace(self, mark="")

    def seen_from(self, here: Here) -> Self:
        """As it is reached from this machine, whose own names of endpoint, region and style come first."""
        endpoint = here.endpoint or self.endpoint or here.aws_endpoint
        check_endpoint(endpoint, S3_ENDPOINT if here.endpoint else "AWS_ENDPOINT_URL")
        style = self.is_path_style if here.is_path_style is None else here.is_path_style
        return replace(
            self,
            endpoint=endpoint,
            region=here.region or self.region,
            is_path_style=bool(endpoint) if style is None else style,
        )

    def is_met_by(self, other: "Place") -> bool:
        """Whether another place has all that this one names; what this one leaves open may be anything."""
        named = [(getattr(self, each.name), getattr(other, each.name)) for each in fields(self) if each.name != "mark"]
        return all(mine == theirs for mine, theirs in named if mine is not None)


def parse_place(text: str) -> Place:
    """A place that a person gives.

    Raises:
        UsageError: It has another form; what may be a secret is not repeated.
    """
    place = _read(text, f"artifacts (--artifacts, {ARTIFACTS})")
    if place.mark:
        raise UsageError(f"artifacts (--artifacts, {ARTIFACTS}) must be {FORM}, but has a # too.")
    return place


def read_place(text: str) -> Place:
    """A place that a study keeps.

    Raises:
        UsageError: A database may say anything.
    """
    return _read(text, "its place of artifacts")


def check_endpoint(endpoint: str | None, named_by: str) -> None:
    """Refuse an endpoint of another form, a password in it above all.

    Raises:
        UsageError: It is none.
    """
    if endpoint is not None and not ENDPOINT.fullmatch(endpoint):
        shown = "a user name in it" if "@" in endpoint else repr(endpoint[:80])
        raise UsageError(
            f"The endpoint ({named_by}) must be http://HOST:PORT or https://HOST without anything behind it, but got "
            f"{shown}; credentials are given by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile."
        )


def _read(text: str, named: str) -> Place:
    if "@" in text:  # not repeated: before it there may be a secret
        raise UsageError(f"{named} must be {FORM}, without credentials, but has an @ in it.")
    match = URL.fullmatch(text)
    if match is None:
        raise UsageError(f"{named} must be {FORM}, but got {text[:80]!r}.")
    prefix, query = match["prefix"].removesuffix("/"), parse_qsl(match["query"] or "", keep_blank_values=True)
    options = dict(query)
    style, region, mark = options.get("path_style"), options.get("region"), match["mark"] or ""
    if len(options) < len(query) or not options.keys() <= {"endpoint", "region", "path_style"}:
        raise UsageError(f"{named} must be {FORM}, but got {', '.join(sorted(name for name, _ in query))[:80]}.")
    is_right = {
        "a bucket of 3 to 63 small letters, digits, dots and dashes": BUCKET.fullmatch(match["bucket"]),
        "a prefix of letters, digits and . _ = + - between slashes": PREFIX.fullmatch(prefix),
        "a region such as eu-central-1": region is None or REGION.fullmatch(region),
        "path_style=true or path_style=false": style is None or style in SWITCH,
        "a mark of 16 digits": not mark or MARK.fullmatch(mark),
    }
    for rule, right in is_right.items():
        if not right:
            raise UsageError(f"{named} must be {FORM}, with {rule}, but got {text[:80]!r}.")
    check_endpoint(options.get("endpoint"), named)
    endpoint = options["endpoint"].rstrip("/") if "endpoint" in options else None
    return Place(match["bucket"], prefix, endpoint, region, None if style is None else SWITCH[style], mark)
