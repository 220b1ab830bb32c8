"""`run --ray --gpus`: what is asked of Ray for each worker, and which GPU a worker takes of those that it is shown."""

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.settings import choose_gpu
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.work.launchers.ray import RayCluster, _count_places
from fmnist_optuna.work.launchers.ray_options import RayOptions, WorkerNeeds
from fmnist_optuna.work.launchers.ray_worker import Place, RayWorker
from fmnist_optuna.work.order import WorkerOrder

SPEC = parse_spec({"name": "small", "grid": {"hidden_size": [8]}, "data": {"source": "synthetic"}}, "test")
N_WORKERS = 3


def make_cluster(gpus: float) -> RayCluster:
    """One that was never reached, with a stand-in for Ray and for each of its actors."""
    cluster = RayCluster(RayOptions("auto", cpus=2, gpus=gpus), SPEC, N_WORKERS)
    cluster._ray = MagicMock()
    cluster._places = [Place(MagicMock, lambda _: None) for _ in range(N_WORKERS)]
    return cluster


def launch_all(cluster: RayCluster, folder: Path) -> list[RayWorker]:
    """A worker in each slot, as a supervisor starts them."""
    order = {"storage": StorageOptions("postgresql://db/x"), "study_name": "small", "generation": 0, "data_dir": None}
    orders: list[Any] = [
        WorkerOrder(**order, worker_id=f"w{slot}", slot=slot, log_file=folder / f"w{slot}.log")  # type: ignore[arg-type]
        for slot in range(N_WORKERS)
    ]
    return [cluster.launch(order) for order in orders]


# Ray shows an actor the GPUs that it has a share of, and one that asked for none whatever its node shows.
@pytest.mark.parametrize(
    ("gpus", "shown", "taken"),
    [
        (0.5, ["3", "3", "5"], ["3", "3", "5"]),
        (1.0, ["3", "5", "6"], ["3", "5", "6"]),
        (2.0, ["2,3", "4,5", "6,7"], ["2", "4", "6"]),
        (0.0, ["3,5", "3,5", "3,5"], ["3", "5", "3"]),
        (0.0, ["", "", ""], ["", "", ""]),
    ],
)
def test_a_worker_takes_the_gpu_that_ray_gave_it(
    tmp_path: Path, gpus: float, shown: list[str], taken: list[str]
) -> None:
    """The first of its own, whatever its slot; where all workers are shown the same they take them in turn."""
    environments = [{"CUDA_VISIBLE_DEVICES": devices} for devices in shown]
    for worker, environ in zip(launch_all(make_cluster(gpus), tmp_path), environments, strict=True):
        choose_gpu(worker.task.order.slot, environ)
    assert [environ["CUDA_VISIBLE_DEVICES"] for environ in environments] == taken


def test_a_worker_on_a_node_is_told_to_try_the_bucket(tmp_path: Path) -> None:
    """The supervisor has tried it from its own machine alone."""
    workers = launch_all(make_cluster(0.0), tmp_path)
    assert [(worker.order.checks_bucket, worker.task.order.checks_bucket) for worker in workers] == [(False, True)] * 3


@pytest.mark.parametrize("gpus", [0.0, 0.25])
def test_the_supervisor_keeps_the_slot_of_a_worker(tmp_path: Path, gpus: float) -> None:
    """By it that knows which of its slots are busy; each has a place of its own."""
    cluster = make_cluster(gpus)
    workers = launch_all(cluster, tmp_path)
    assert [worker.order.slot for worker in workers] == [0, 1, 2]
    assert [worker.place for worker in workers] == cluster._places


def test_ray_is_asked_for_the_share_of_each_worker() -> None:
    """Processors and GPUs of every actor."""
    cluster = make_cluster(gpus=0.25)
    cluster._make_actor()
    asked = cluster._ray.remote.return_value.options.call_args.kwargs
    assert (asked["num_cpus"], asked["num_gpus"]) == (2, 0.25)


def test_ray_is_asked_for_the_threads_of_a_study() -> None:
    """Without --cpus: a worker with three threads keeps three cores busy."""
    spec = SPEC.model_copy(update={"training": SPEC.training.model_copy(update={"threads": 3})})
    cluster = RayCluster(RayOptions("auto"), spec, N_WORKERS)
    cluster._ray = MagicMock()
    cluster._make_actor()
    assert cluster._ray.remote.return_value.options.call_args.kwargs["num_cpus"] == 3


def make_node(n_cpus: float, n_gpus: float = 0.0, *, is_alive: bool = True) -> dict[str, Any]:
    """A node as `ray.nodes()` has it; what a node has none of is not named."""
    resources = {"CPU": n_cpus, "GPU": n_gpus, "memory": 1e9}
    return {"Alive": is_alive, "Resources": {name: value for name, value in resources.items() if value}}


@pytest.mark.parametrize(
    ("gpus", "n_gpus", "n_places"), [(0.0, 0.0, 8), (0.25, 1.0, 4), (0.25, 4.0, 8), (2.0, 5.0, 2), (1.0, 0.0, 1)]
)
def test_what_is_scarce_says_how_many_workers_have_room(gpus: float, n_gpus: float, n_places: int) -> None:
    """Of 16 processors, two a worker, and so many GPUs; one waits even where there is none."""
    assert _count_places([make_node(16.0, n_gpus)], WorkerNeeds(2, gpus)) == n_places


@pytest.mark.parametrize(
    ("cpus", "gpus", "n_cpus", "n_gpus", "n_places"),
    [(1, 0.2, 16, 1, 5), (1, 0.1, 16, 1, 10), (0.1, 0.0, 2, 0, 20), (0.01, 0.0, 2, 0, 200), (1.5, 0.0, 8, 0, 5)],
)
def test_shares_that_fill_a_node_all_have_room(
    cpus: float, gpus: float, n_cpus: float, n_gpus: float, n_places: int
) -> None:
    """Also where the quotient of floats lies just below a whole number."""
    assert _count_places([make_node(n_cpus, n_gpus)], WorkerNeeds(cpus, gpus)) == n_places


@pytest.mark.parametrize(("gpus", "n_places"), [(0.3, 12), (0.6, 4), (0.5, 8), (1.0, 4), (3.0, 1)])
def test_a_share_is_of_one_gpu(gpus: float, n_places: int) -> None:
    """What is left of two GPUs makes no place: of four, so many."""
    assert _count_places([make_node(16, 4)], WorkerNeeds(1, gpus)) == n_places


def test_a_worker_has_all_of_its_place_on_one_node() -> None:
    """What is left of two nodes makes no place, nor do CPUs of one with GPUs of another, nor a node that is lost."""
    of_cpus, both = WorkerNeeds(2, 0), WorkerNeeds(1, 0.5)
    assert _count_places([make_node(3), make_node(3)], of_cpus) == 2
    assert _count_places([make_node(3), make_node(16, is_alive=False)], of_cpus) == 1
    assert _count_places([make_node(16), make_node(1, 4), make_node(3, 1)], both) == 3
