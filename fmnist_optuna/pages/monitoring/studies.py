"""The numbers of the studies of a storage, read from the ledger for whoever scrapes them.

However often that is, they are read once in a few seconds, and no more than a fiftieth of the time is spent on it.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fmnist_optuna.bridge.totals import StudyTotals, read_totals
from fmnist_optuna.errors import FmnistOptunaError
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.search import metric as search
from fmnist_optuna.study.records import StudyRecord
from fmnist_optuna.study.studies import list_studies

CACHE_SECONDS = 5.0  # how old the numbers may be
REST_FACTOR = 50  # they are kept so many times as long as reading them took, if that is longer
AWAY = "the storage cannot be read"

PREFIX = "fmnist_optuna"
CELLS = f"{PREFIX}_cells"
Read = tuple[StudyTotals, search.Metric | None]  # of a study, with what its cells are compared by, if that is known


class StudyMetrics(Collector):
    """The studies of a storage, as Prometheus collects them.

    Args:
        storage: Open; it is read without patience.
        study: Name of the only one; None for all.
        clock: Seconds that only grow.
    """

    def __init__(self, storage: Storage, study: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._opened = storage.impatient()
        self._study = study
        self._clock = clock
        self._lock = threading.Lock()
        self._metrics: dict[tuple[int, str], search.Metric | None] = {}  # which a study never changes
        self._until = -float("inf")
        self._read: list[Read] | None = None  # None where the last try failed
        self._seconds = 0.0
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is needs no look at the storage before it is asked for."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The numbers as they were at most a few seconds ago."""
        read = self._look()
        yield from make_own_families(is_up=read is not None, seconds=self._seconds)
        if read is not None:
            yield from make_families(read)

    def find_trouble(self) -> str | None:
        """What is wrong, in one line; None when all is well."""
        return AWAY if self._look() is None else None

    def _look(self) -> list[Read] | None:
        """What was read last; while one caller reads, the others do not wait for it."""
        if self._lock.acquire(blocking=self._until < 0):
            try:
                if self._clock() >= self._until:
                    self._refresh()
            finally:
                self._lock.release()
        return self._read

    def _refresh(self) -> None:
        began = self._clock()
        try:
            totals = read_totals(self._opened, self._study)
            self._learn_metrics(totals)
            self._read = [(each, self._metrics.get((each.study_id, each.name))) for each in totals]
        except FmnistOptunaError:
            self._read = None
        self._seconds = self._clock() - began
        self._until = began + max(CACHE_SECONDS, REST_FACTOR * self._seconds)

    def _learn_metrics(self, totals: list[StudyTotals]) -> None:
        """Find what the studies are compared by that were not there before; one that cannot be read has none.

        Neither has a study on all data, as the value of images that it was trained on says nothing.
        """
        if {(each.study_id, each.name) for each in totals} - self._metrics.keys():
            self._metrics = {
                (each.study_id, each.name): each.metric
                if isinstance(each, StudyRecord) and not each.is_on_all_data
                else None
                for each in list_studies(self._opened)
            }


def make_own_families(*, is_up: bool, seconds: float) -> list[Metric]:
    """What there is to say of the storage itself.

    Args:
        is_up: Whether it was read at the last try.
        seconds: That this took.
    """
    return [
        GaugeMetricFamily(f"{PREFIX}_ledger_up", "1 if the storage answers, else 0.", value=float(is_up)),
        GaugeMetricFamily(f"{PREFIX}_ledger_read_seconds", "How long the last read of all this took.", value=seconds),
    ]


def make_families(read: Iterable[Read]) -> list[Metric]:
    """The numbers of studies in Prometheus' form."""
    cells = GaugeMetricFamily(CELLS, "Cells by state.", labels=["study", "state"])
    best = GaugeMetricFamily(
        f"{PREFIX}_best_value", "Best value of one complete cell, of the study's metric.", labels=["study", "metric"]
    )
    workers = GaugeMetricFamily(f"{PREFIX}_workers", "Workers seen within a lease.", labels=["study"])
    epochs = CounterMetricFamily(
        f"{PREFIX}_epochs",
        "Epochs trained, of all trials; what one takes over from an earlier one is not counted again.",
        labels=["study"],
    )
    trials = CounterMetricFamily(f"{PREFIX}_trials", "Trials begun.", labels=["study"])
    lost = CounterMetricFamily(
        f"{PREFIX}_lease_losses", "Trials lost with their lease, or with their worker.", labels=["study"]
    )
    for totals, metric in read:
        for state in State:
            cells.add_metric([totals.name, state.value], totals.cells[state])
        if metric is not None and totals.values is not None:
            value = metric.best_of(totals.values)
            if value is not None:
                best.add_metric([totals.name, metric.name], value)
        workers.add_metric([totals.name], totals.n_workers)
        epochs.add_metric([totals.name], totals.n_epochs)
        trials.add_metric([totals.name], totals.n_trials)
        lost.add_metric([totals.name], totals.n_lost)
    return [cells, best, workers, epochs, trials, lost]
