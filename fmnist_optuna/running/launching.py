"""Where a run starts its workers: on this machine, or on the nodes of a Ray cluster."""

from collections.abc import Iterator
from contextlib import contextmanager

from fmnist_optuna.running.loading import load_pages
from fmnist_optuna.running.observer import Observer
from fmnist_optuna.running.options import RunOptions
from fmnist_optuna.running.preparation import PreparedStudy
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.work.launched import LaunchedWorker
from fmnist_optuna.work.launchers.local import launch_process
from fmnist_optuna.work.launchers.ray import RayCluster
from fmnist_optuna.work.order import WorkerOrder


class Launcher:
    """Starts the workers of a run.

    Args:
        cluster: On whose nodes; None for this machine.
    """

    def __init__(self, cluster: RayCluster | None = None) -> None:
        self._cluster = cluster

    @property
    def n_workers(self) -> int | None:
        """How many have a place; None where that is for the options to say."""
        return None if self._cluster is None else self._cluster.n_workers

    def begin(self) -> None:
        """Do while a study is prepared what is needed later, and takes its time.

        Raises:
            UsageError: The cluster cannot be reached.
        """
        load_pages()
        if self._cluster is not None:
            self._cluster.connect()

    def tell(self, prepared: PreparedStudy, observer: Observer) -> None:
        """Say where the workers will be."""
        if self._cluster is not None:
            self._cluster.needs_folder = prepared.session.record.place is None
            observer.connected(self._cluster.describe())

    def launch(self, order: WorkerOrder) -> LaunchedWorker:
        """Start a worker.

        Raises:
            WorkerFailedError: It cannot be started now; another time it may.
        """
        return launch_process(order) if self._cluster is None else self._cluster.launch(order)

    def close(self) -> None:
        """Leave the cluster: nobody needs its places any more."""
        if self._cluster is not None:
            self._cluster.close()


@contextmanager
def launching(spec: StudySpec, options: RunOptions) -> Iterator[Launcher]:
    """What starts the workers of a study within the block; afterwards no place on a cluster is kept."""
    cluster = None if options.ray is None else RayCluster(options.ray, spec, options.n_workers)
    launcher = Launcher(cluster)
    try:
        yield launcher
    finally:
        launcher.close()
