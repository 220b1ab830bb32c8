"""Workers on the nodes of a Ray cluster: an actor for each place, which Ray starts, spreads and restarts.

Ray only starts workers. Which cell has a result is in the ledger: a worker that is lost with its node is known by its
lease, or by what Ray says of its actor, and its cell is another's then.
"""

import contextlib
import logging
import math
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fmnist_optuna import __version__
from fmnist_optuna.described_errors import describe_error
from fmnist_optuna.errors import UsageError
from fmnist_optuna.log import log_event
from fmnist_optuna.processes.temporary import temporary_folder
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.user_modules.carrying import carry_modules
from fmnist_optuna.wording import count, reason_of
from fmnist_optuna.work.launchers.ray_host import CARRIED, Task, WorkerHost
from fmnist_optuna.work.launchers.ray_options import RayOptions, WorkerNeeds
from fmnist_optuna.work.launchers.ray_worker import Place, RayWorker
from fmnist_optuna.work.order import WorkerOrder
from fmnist_optuna.work.own_data import find_files

logger = logging.getLogger(__name__)

REACH_SECONDS = 5.0  # for an address to take a connection; Ray itself would try for a minute
ANSWERS_AT_ONCE = 8  # of an actor: one call runs as long as its worker
ROUNDING = 1e-9  # of a quotient of floats, which is far below the 0.0001 that Ray counts resources by
# What Ray reads, unless the user has set it: it would tell its makers of each cluster, and put workers of one that it
# starts here behind everything else, where those of a local run are not.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


class RayCluster:
    """The places that a run has on a cluster.

    Args:
        options: Which cluster, and what each worker asks for.
        spec: Of the study, whose modules the nodes need.
        n_workers: Places; None for as many as the cluster has room for once it is reached.

    Attributes:
        n_workers: Places; 0 as long as they are not counted.
        dashboard: Address of the cluster's dashboard; None without one.
        needs_folder: Whether artifacts go to a folder, which all nodes must share.
    """

    def __init__(self, options: RayOptions, spec: StudySpec, n_workers: int | None) -> None:
        self.n_workers = n_workers or 0
        self.dashboard: str | None = None
        self.needs_folder = True
        self._address, self._needs, self._spec = options.address, options.for_study(spec.training.threads), spec
        self._ray: Any = None  # the module, once the cluster is reached
        self._places: list[Place] = []
        self._has_told = False

    def connect(self) -> None:
        """Reach the cluster, and ask for all places: they warm up while the study is prepared.

        Raises:
            UsageError: Nobody answers at the address, or Ray refuses; or the user's modules are too large.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        address = self._address
        _check_reached(address)
        import ray  # seconds

        logging.getLogger("ray").setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory(prefix="ray-", dir=temporary_folder()) as folder:
            modules = (function.partition(":")[0] for _, function in self._spec.named_functions())
            carried = Path(folder) / CARRIED
            carried.mkdir()
            environment = {"working_dir": folder} if carry_modules(modules, carried) else None
            with _keeping_sigterm(), _in_one_line(address):
                context = ray.init(address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=environment)
        self._ray, self.dashboard = ray, _read_dashboard(context)
        _silence(ray)
        self.n_workers = self.n_workers or _count_places(self._ray.nodes(), self._needs)
        self._places = [Place(self._make_actor, ray.kill) for _ in range(self.n_workers)]

    def describe(self) -> str:
        """The cluster, once it is reached, in one line."""
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        resources = self._ray.cluster_resources()
        gpus = f", {resources['GPU']:g} GPU" if resources.get("GPU") else ""
        places = f"{count(self.n_workers, 'worker')} of {self._needs}"
        where = f"; its dashboard: {self.dashboard}" if self.dashboard else "; it has no dashboard"
        return f"Ray: {count(len(nodes), 'node')}, {resources.get('CPU', 0):g} CPU{gpus}; {places}{where}"

    def launch(self, order: WorkerOrder) -> RayWorker:
        """Start a worker where the actor of its slot is; what only this machine has is not ordered."""
        data, data_dir = self._spec.data, None if order.data_dir is None else order.data_dir.absolute()
        if data.is_own and not data.is_function:
            data_dir = find_files(data, data_dir).absolute().parent
        if order.log_file is not None:  # by which a node knows that it shares the folder
            order.log_file.parent.mkdir(parents=True, exist_ok=True)
            order.log_file.touch(mode=0o644)
        # Of GPUs that an actor asked for Ray shows it its own, of which its worker takes the first; else it shows all.
        slot = 0 if self._needs.gpus else order.slot
        elsewhere = replace(order, shared_data=None, code=None, slot=slot, data_dir=data_dir, checks_bucket=True)
        task = Task(elsewhere, __version__, self.needs_folder)
        return RayWorker(order, task, self._places[order.slot], self._tell_waiting)

    def close(self) -> None:
        """Leave the cluster, if it was reached: all actors end."""
        ray, places, self._ray, self._places = self._ray, self._places, None, []
        for leave in (*(place.end for place in places), *(() if ray is None else (ray.shutdown,))):
            with contextlib.suppress(Exception):  # the cluster may be gone, and what ended the run is what counts
                leave()

    def _make_actor(self) -> Any:
        options = {
            "num_cpus": self._needs.cpus,
            "num_gpus": self._needs.gpus,
            "max_restarts": -1,  # when its node is lost, or its process, Ray starts it again where there is room
            "max_task_retries": -1,
            "max_concurrency": ANSWERS_AT_ONCE,
            "scheduling_strategy": "SPREAD",
        }
        return self._ray.remote(WorkerHost).options(**options).remote(str(Path.cwd()))

    def _tell_waiting(self) -> None:
        """Say once that workers wait for a place."""
        if not self._has_told:
            self._has_told = True
            n_waiting = sum(not place.is_there for place in self._places)
            waiting = f"{n_waiting} of {self.n_workers}"
            log_event(logger, logging.WARNING, "no_room_on_nodes", workers=waiting, each_needs=str(self._needs))


def _check_reached(address: str) -> None:
    """Refuse an address where nobody listens: Ray itself would try for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _unreached(address, reason_of(error)) from error


@contextlib.contextmanager
def _in_one_line(address: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Ray raises what its parts raise
        raise _unreached(address, describe_error(error)) from error


def _unreached(address: str, reason: str) -> UsageError:
    return UsageError(
        f"--ray must name a Ray cluster that can be reached from here, but {address}: {reason.rstrip('.')}; look at it "
        "with `ray status`."
    )


@contextlib.contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Let Ray not decide how this process answers SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # of Ray's own handler: the signal came, and is to be answered as before
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _silence(ray: Any) -> None:
    """Take what Ray would print on stdout, where the answer goes, into the log: of retries and nodes that were lost."""

    def tell(data: Mapping[str, Any], **_: object) -> None:
        log_event(logger, logging.DEBUG, "ray_says", text=" ".join(map(str, data.get("lines", ()))))

    ray._private.worker.print_to_stdstream = tell


def _read_dashboard(context: Any) -> str | None:
    url = getattr(context, "dashboard_url", None)
    return f"http://{url}" if url else None


def _count_places(nodes: Iterable[Mapping[str, Any]], needs: WorkerNeeds) -> int:
    """How many workers have room at once, at least 1.

    Args:
        nodes: As `ray.nodes()` has them.
    """
    return max(1, sum(_count_on_node(node["Resources"], needs) for node in nodes if node["Alive"]))


def _count_on_node(resources: Mapping[str, float], needs: WorkerNeeds) -> int:
    """How many workers a node has room for: a worker takes all that it asks for from one node."""
    n_places = _count_shares(resources.get("CPU", 0.0), needs.cpus)
    if not needs.gpus:
        return n_places
    n_gpus = resources.get("GPU", 0.0)
    if needs.gpus < 1:  # Ray takes a share from one GPU, never from what is left of two
        return min(n_places, math.floor(n_gpus) * _count_shares(1.0, needs.gpus))
    return min(n_places, _count_shares(n_gpus, needs.gpus))


def _count_shares(whole: float, share: float) -> int:
    """How often a share is in a whole: ten times 0.1 is 1, although the quotient of floats may lie just below 10."""
    return math.floor(whole / share + ROUNDING)
