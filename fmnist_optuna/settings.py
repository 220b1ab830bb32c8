"""What the environment says, read once into a frozen `Settings`, and the variables that training processes need.

Owns the names of our environment variables. Knows nothing of studies, models or databases.
"""

import itertools
import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from fmnist_optuna.errors import StorageError, UsageError

DEFAULT_STORAGE = "sqlite:///studies/studies.db"
STORAGE = "FMNIST_OPTUNA_STORAGE"
STORAGE_FILE = "FMNIST_OPTUNA_STORAGE_FILE"
ARTIFACTS = "FMNIST_OPTUNA_ARTIFACTS"
S3_ENDPOINT = "FMNIST_OPTUNA_S3_ENDPOINT"
S3_REGION = "FMNIST_OPTUNA_S3_REGION"
S3_PATH_STYLE = "FMNIST_OPTUNA_S3_PATH_STYLE"
AWS_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # of AWS' own programs; the first counts
DATA = "FMNIST_OPTUNA_DATA"
WORKERS = "FMNIST_OPTUNA_WORKERS"
ALLOW_MODULE = "FMNIST_OPTUNA_ALLOW_MODULE"
LEASE_SECONDS = "FMNIST_OPTUNA_LEASE_SECONDS"
KERAS_BACKEND = "KERAS_BACKEND"  # read by Keras when it is imported; wins over its own configuration file
TENSORFLOW = "tensorflow"
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"  # read by TensorFlow when it is imported: whether it may take oneDNN's kernels
DASHBOARD_TOKEN_FILE = "FMNIST_OPTUNA_DASHBOARD_TOKEN_FILE"
TOKEN_PATTERN = re.compile(r"[A-Za-z0-9._~-]{24,200}", re.ASCII)  # what a URL, a header and a cookie take as it is
MIN_TOKEN_CHARACTERS = 8  # different ones: a key that was held down is no token, random hexadecimal digits are
HASH_SEED = "PYTHONHASHSEED"  # read by Python when it starts; without one, strings are hashed by chance
SAFE_PATH, SET_BY_US = "PYTHONSAFEPATH", "fmnist-optuna"  # Python's variable, and its value where we set it
SERVER_OUTPUT = "FMNIST_OPTUNA_SERVER_OUTPUT"  # set by us: the file that the server of all children writes to
DEFAULT_LEASE_SECONDS = 60.0  # seconds; long enough for a database restart, short enough to wait for


@dataclass(frozen=True)
class Settings:
    """What the environment variables say; an option of the command line wins over each.

    Args:
        storage: SQLAlchemy URL of the storage, possibly with a password: never print it.
        lease_seconds: How long a worker's right to a cell lasts without renewal, in seconds, > 0.
    """

    storage: str
    lease_seconds: float

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the environment.

        Raises:
            StorageError: `FMNIST_OPTUNA_STORAGE_FILE` names no file, or one without one readable line.
            UsageError: A variable holds a value of the wrong kind.
        """
        return cls(storage=_read_storage(environ), lease_seconds=read_lease_seconds(environ))


def _read_storage(environ: Mapping[str, str]) -> str:
    if url := environ.get(STORAGE):
        return url
    if name := environ.get(STORAGE_FILE):
        if "://" in name:  # not repeated: it may hold a password
            raise StorageError(f"{STORAGE_FILE} must name a file, but holds a URL itself; put it into {STORAGE}.")
        try:
            url = Path(name).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(
                f"{STORAGE_FILE} must name a readable file with the storage URL, but {error}."
            ) from error
        if not url:
            raise StorageError(f"{STORAGE_FILE} must name a file with the storage URL, but {name} is empty.")
        if (n_lines := len(url.splitlines())) > 1:  # the second would be taken for a part of the first, and shown
            raise StorageError(f"{STORAGE_FILE} must name a file with one line, the URL, but {name} has {n_lines}.")
        return url
    return DEFAULT_STORAGE


def read_artifacts(environ: Mapping[str, str] = os.environ) -> str | None:
    """URL of the bucket in which the environment wants artifacts; None for none."""
    return environ.get(ARTIFACTS) or None


def read_lease_seconds(environ: Mapping[str, str] = os.environ) -> float:
    """The lease that the environment asks for, in seconds, or the default.

    Raises:
        UsageError: Not a number from 1 to 86400.
    """
    text = environ.get(LEASE_SECONDS) or str(DEFAULT_LEASE_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1.0 <= seconds <= 86_400.0:
        raise UsageError(f"{LEASE_SECONDS} must be a number of seconds from 1 to 86400, but got {text!r}.")
    return seconds


@dataclass(frozen=True)
class Here:
    """How S3 is reached from this machine, where a study does not say it or another name of it holds here.

    Args:
        endpoint: URL of the server, in place of what a study names; None for that.
        region: Likewise.
        is_path_style: Likewise: whether buckets stand in the path of a URL, not in its host.
        aws_endpoint: URL of the server where neither names one; None for AWS.
    """

    endpoint: str | None = None
    region: str | None = None
    is_path_style: bool | None = None
    aws_endpoint: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Here":
        """Read the environment.

        Raises:
            UsageError: The style is neither true nor false.
        """
        style = environ.get(S3_PATH_STYLE) or None
        if style not in (None, "true", "false"):
            raise UsageError(f"{S3_PATH_STYLE} must be true or false, but got {style!r}.")
        return cls(
            endpoint=environ.get(S3_ENDPOINT) or None,
            region=environ.get(S3_REGION) or None,
            is_path_style=None if style is None else style == "true",
            aws_endpoint=next((environ[name] for name in AWS_ENDPOINTS if environ.get(name)), None),
        )


def read_dashboard_token(environ: Mapping[str, str] = os.environ) -> str | None:
    """The token that a dashboard shall ask for, or None where the environment names no file with one.

    Raises:
        UsageError: There is no such file, or what it holds is no token that nobody guesses; neither is repeated.
    """
    name = environ.get(DASHBOARD_TOKEN_FILE)
    if not name:
        return None
    try:
        token = Path(name).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"{DASHBOARD_TOKEN_FILE} must name a readable file with a token, but: {cause}.") from None
    if not TOKEN_PATTERN.fullmatch(token) or len(set(token)) < MIN_TOKEN_CHARACTERS:
        raise UsageError(
            f"{DASHBOARD_TOKEN_FILE} must name a file with one token of 24 to 200 letters, digits or . _ ~ -, at "
            f"least {MIN_TOKEN_CHARACTERS} of them different, but the file holds something else; "
            "python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes one."
        )
    return token


def prepare_training_environment(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what TensorFlow reads at import, unless the user has set it: quiet C++ log, GPU memory on demand.

    Whether oneDNN's kernels are taken is left to TensorFlow, which does so where a processor has AVX-512 VNNI or later.
    With AVX2 alone they are faster than its own, too, but those for convolutions of one pixel with a stride, over fewer
    than eight channels, write beyond their memory in TensorFlow 2.21: crashes, and wrong gradients
    (https://github.com/uxlfoundation/oneDNN/issues/6035).

    Called before the server that workers are forked from starts, so that all of them inherit it.

    Raises:
        UsageError: The environment asks Keras for another backend, in which nothing here would run.
    """
    backend = environ.get(KERAS_BACKEND) or TENSORFLOW
    if backend != TENSORFLOW:
        raise UsageError(f"{KERAS_BACKEND} must be {TENSORFLOW}, with which everything here runs, but is {backend!r}.")
    environ[KERAS_BACKEND] = backend
    environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def set_hash_seed(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let a process that starts with this environment hash strings as all others do, unless the user has set it.

    The order of a set of strings follows their hashes, and a model may be built in that order.
    """
    environ[HASH_SEED] = environ.get(HASH_SEED) or "0"


def choose_gpu(slot: int, environ: MutableMapping[str, str] = os.environ, device_files: Path = Path("/dev")) -> None:
    """Leave one visible GPU to the worker in this slot, round robin; without a GPU nothing changes.

    CUDA counts the devices that a process may open from 0, whatever their files are called: a container that was given
    /dev/nvidia3 alone has the device 0. What comes after a -1 it does not see.

    Args:
        slot: 0-based place of the worker among the workers of its supervisor; 0 of a worker without one.
    """
    if (listed := environ.get("CUDA_VISIBLE_DEVICES")) is None:
        devices = [str(number) for number, _ in enumerate(device_files.glob("nvidia[0-9]*"))]
    else:
        devices = list(itertools.takewhile(lambda device: device not in ("", "-1"), map(str.strip, listed.split(","))))
    if devices:
        environ["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
