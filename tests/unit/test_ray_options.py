"""`run --ray`: what is refused before anything is asked of a cluster."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fmnist_optuna.cli.options import Common, parse_ray
from fmnist_optuna.errors import UsageError
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.running.options import RunOptions
from fmnist_optuna.work.launchers.ray_options import RayOptions

POSTGRES = StorageOptions("postgresql://me:secret@db/studies")


@pytest.mark.parametrize(("cpus", "gpus"), [(0.0, 0.0), (-1.0, 0.0), (1.0, -0.5), (1.0, 1.5)])
def test_what_no_node_can_give_is_refused(cpus: float, gpus: float) -> None:
    """The text names the option and what came."""
    named, value = ("cpus (--cpus)", cpus) if cpus <= 0 else ("gpus (--gpus)", gpus)
    with pytest.raises(UsageError) as error:
        RayOptions("auto", cpus, gpus)
    assert str(error.value).startswith(f"{named} must be a ")
    assert f"is {value:g}" in str(error.value)


@pytest.mark.parametrize(("gpus", "text"), [(0.0, "1 CPU"), (0.25, "1 CPU and 0.25 GPU"), (2.0, "1 CPU and 2 GPU")])
def test_what_a_worker_needs_is_said(gpus: float, text: str) -> None:
    """A share of a GPU, or whole ones."""
    assert str(RayOptions("auto", gpus=gpus).for_study(1)) == text


@pytest.mark.parametrize(("cpus", "threads", "asked"), [(None, 1, 1.0), (None, 4, 4.0), (1.5, 4, 1.5), (8.0, 1, 8.0)])
def test_a_worker_asks_for_a_cpu_for_each_thread(cpus: float | None, threads: int, asked: float) -> None:
    """Unless the option says otherwise: with fewer, workers on a node would take each other's cores."""
    common = Common(storage_option=None, patience_seconds=1.0, log_format="text", log_level=20)
    options = parse_ray("auto", cpus, None, common)
    assert options is not None
    assert options.for_study(threads).cpus == asked


def test_an_empty_address_is_refused() -> None:
    """It would be taken for the cluster that Ray finds."""
    with pytest.raises(UsageError, match=r"^ray \(--ray\) must be auto, local, HOST:PORT or ray://HOST:PORT, but"):
        RayOptions(" ")


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "ray://10.0.0.1:10001"])
@pytest.mark.parametrize("url", ["sqlite:///studies/studies.db", "SQLite+pysqlite:///x.db"])
def test_sqlite_is_for_a_cluster_of_this_machine(address: str, url: str) -> None:
    """Elsewhere its file is another one; the text names what would do."""
    with pytest.raises(UsageError) as error:
        RunOptions(StorageOptions(url), ray=RayOptions(address))
    assert str(error.value).startswith(f"--ray {address} must have a storage (--storage) that every node reaches")
    assert str(error.value).endswith("through postgresql://USER@HOST/DATABASE, or name --ray local.")
    assert RunOptions(StorageOptions(url), ray=RayOptions("local")).ray == RayOptions("local")
    assert RunOptions(POSTGRES, ray=RayOptions(address)).n_workers == 1


def test_events_are_not_for_a_cluster() -> None:
    """The file would be another one on each node; nothing of the URL is repeated."""
    with pytest.raises(UsageError, match="--events must be left out with --ray") as error:
        RunOptions(POSTGRES, events_file=Path("-"), ray=RayOptions("auto"))
    assert "secret" not in str(error.value)


def test_ray_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, the text says how."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"^--ray needs Ray, but .*; pip install 'fmnist-optuna\[ray\]'\.$"):
        RunOptions(POSTGRES, ray=RayOptions("auto"))


@pytest.mark.parametrize(
    ("cpus", "gpus"), [(0.001, 0.0), (math.inf, 0.0), (1.0, math.nan), (1.0, math.inf), (1.0, -0.5)]
)
def test_no_worker_asks_for_next_to_nothing_or_all(cpus: float, gpus: float) -> None:
    """Thousands of places on a node, or none that could ever be."""
    with pytest.raises(UsageError, match="must be a"):
        RayOptions("auto", cpus, gpus)


@pytest.mark.parametrize("url", ["postgresql://u:secret@h/db", "postgresql://u@h/db?password=secret"])
def test_a_password_that_ray_would_show_is_refused(url: str) -> None:
    """Ray's dashboard shows the command line of whoever asks for actors; the text does not repeat it."""
    common = Common(storage_option=url, patience_seconds=1.0, log_format="text", log_level=20)
    with pytest.raises(UsageError, match=r"^--storage must have no password with --ray") as error:
        parse_ray("auto", None, None, common)
    assert "secret" not in str(error.value)
    assert parse_ray("auto", None, None, replace(common, storage_option="postgresql://u@h/db")) == RayOptions("auto")
    assert parse_ray(None, None, None, common) is None
