"""What a monitor is told: by a worker, by the dashboard, and what Grafana asks for."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from grafana import check_expressions
from prometheus_client import generate_latest

from fmnist_optuna.bridge.totals import StudyTotals
from fmnist_optuna.errors import StorageError
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.outages import Patience
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.pages.access import Access
from fmnist_optuna.pages.guard import Guard
from fmnist_optuna.pages.monitoring import studies as studies_module
from fmnist_optuna.pages.monitoring.page import MonitoringPages
from fmnist_optuna.pages.monitoring.studies import CACHE_SECONDS, StudyMetrics, make_families
from fmnist_optuna.pages.monitoring.worker import AWAY, STALLED, WorkerMetrics
from fmnist_optuna.search.metric import VAL_ACCURACY, VAL_LOSS


def test_a_worker_counts_its_events() -> None:
    """Claims by their time, epochs, trials by state, lost leases, outages."""
    metrics = WorkerMetrics("small")
    metrics.hear("cell_claimed", {"seconds": 0.003})
    metrics.hear("cell_claimed", {"seconds": 0.3})
    for _ in range(3):
        metrics.hear("epoch_ended", {"seconds": 2.0, "epoch": 0})
    metrics.hear("trial_ended", {"state": "PRUNED"})
    metrics.hear("trial_dropped", {"reason": "lost"})
    metrics.hear("storage_outage", {"operation": "claim"})
    metrics.hear("checkpoint_written", {"epochs": 3})

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"fmnist_optuna_worker_{name}", {"study": "small", **labels})

    assert value("claim_seconds_count") == 2
    assert [value("claim_seconds_bucket", le=le) for le in ("0.0025", "0.005", "0.25", "0.5")] == [0, 1, 1, 2]
    assert (value("epochs_total"), value("training_seconds_total")) == (3, 6)
    assert [value("trials_total", state=state) for state in ("complete", "pruned", "failed")] == [0, 1, 0]
    assert (value("lease_losses_total"), value("outages_total")) == (1, 1)


@pytest.mark.parametrize(
    ("events", "trouble"),
    [
        ([], None),
        (["storage_outage"], AWAY),
        (["storage_outage", "trial_ended"], AWAY),
        (["storage_outage", "storage_back"], None),
        (["training_stalled"], STALLED),
        (["training_stalled", "epoch_ended"], None),
        (["training_stalled", "storage_back"], STALLED),
        (["training_stalled", "trial_dropped", "worker_done"], None),
        (["training_stalled", "trial_failed"], None),
    ],
)
def test_a_worker_knows_its_trouble(events: Sequence[str], trouble: str | None) -> None:
    """From an outage or a stall until there is news that it is over."""
    metrics = WorkerMetrics("small")
    for event in events:
        metrics.hear(event, {"state": "COMPLETE"})
    assert metrics.find_trouble() == trouble


def ask(pages: MonitoringPages, path: str, method: str = "GET", host: str = "localhost:9") -> tuple[str, str]:
    """Status and body of an answer."""
    said: list[str] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: object = None, /) -> Any:
        said.append(status)

    environ = {"PATH_INFO": path, "REQUEST_METHOD": method, "HTTP_HOST": host}
    body = b"".join(pages(environ, start))
    return said[0], body.decode()


def test_the_pages_of_a_worker_answer() -> None:
    """Metrics, health with its reason, and nothing else, under the names that are its own."""
    metrics = WorkerMetrics("small")
    pages = MonitoringPages(metrics.registry, metrics.find_trouble, {"localhost"})
    assert ask(pages, "/metrics")[1].count('fmnist_optuna_worker_epochs_total{study="small"} 0.0\n') == 1
    assert "_created" not in ask(pages, "/metrics")[1]
    assert ask(pages, "/metrics", "HEAD") == ("200 OK", "")
    assert ask(pages, "/healthz") == ("200 OK", "ok")
    metrics.hear("storage_outage", {})
    assert ask(pages, "/healthz") == ("503 Service Unavailable", AWAY)
    statuses = [
        ask(pages, *asked)[0][:3] for asked in (("/",), ("/metrics", "POST"), ("/metrics", "GET", "evil.example"))
    ]
    assert statuses == ["404", "405", "421"]
    everywhere = MonitoringPages(metrics.registry, metrics.find_trouble, None)
    assert ask(everywhere, "/metrics", host="10.0.0.7:9100")[0] == "200 OK"


def test_the_dashboard_says_what_is_wrong() -> None:
    """At /healthz, to whoever asks, also where everything else needs a token."""
    said: list[str] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: object = None, /) -> Any:
        said.append(status)

    guard = Guard(lambda _environ, _start: [], Access(frozenset({"localhost"}), "t" * 24), lambda: AWAY)
    environ = {"PATH_INFO": "/healthz", "REQUEST_METHOD": "GET", "HTTP_HOST": "localhost", "REQUEST_URI": "/healthz"}
    body = list(guard(environ, start))
    assert (said, body) == (["503 Service Unavailable"], [AWAY.encode()])


def totals_of(name: str = "small", **more: Any) -> StudyTotals:
    cells = dict.fromkeys(State, 0) | {State.COMPLETE: 2, State.WAITING: 5}
    return StudyTotals(1, name, cells, n_trials=3, n_lost=1, n_epochs=40, n_workers=2, values=(0.25, 0.75), **more)


@pytest.mark.parametrize(("metric", "best"), [(VAL_ACCURACY, 0.75), (VAL_LOSS, 0.25)])
def test_the_numbers_of_a_study_have_their_names(metric: Any, best: float) -> None:
    """Cells by state, the best by the way that is better; counters end in _total."""
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in make_families([(totals_of(), metric)])
        for sample in family.samples
    }
    expected: dict[tuple[str, ...], float] = {
        **{("fmnist_optuna_cells", "small", state.value): totals_of().cells[state] for state in State},
        ("fmnist_optuna_best_value", "small", metric.name): best,
        ("fmnist_optuna_workers", "small"): 2,
        ("fmnist_optuna_epochs_total", "small"): 40,
        ("fmnist_optuna_trials_total", "small"): 3,
        ("fmnist_optuna_lease_losses_total", "small"): 1,
    }
    assert samples == expected


class Reading:
    """A ledger that says how often it was read, on a clock that only reading moves."""

    def __init__(self) -> None:
        self.now, self.n_reads, self.seconds, self.is_away = 1000.0, 0, 0.0, False

    def read(self, _storage: Storage, _name: str | None) -> list[StudyTotals]:
        self.n_reads += 1
        self.now += self.seconds
        if self.is_away:
            raise StorageError("away")
        return [totals_of()]


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    reading = Reading()
    monkeypatch.setattr(studies_module, "read_totals", reading.read)
    monkeypatch.setattr(studies_module, "list_studies", lambda _storage: [])
    return reading


@pytest.fixture
def metrics(reading: Reading, tmp_path: Path) -> Iterator[StudyMetrics]:
    from fmnist_optuna.bridge.storage import create_storage

    storage = create_storage(StorageOptions(f"sqlite:///{tmp_path / 'studies.db'}"))
    yield StudyMetrics(storage, clock=lambda: reading.now)
    storage.close()


@pytest.mark.parametrize(("seconds", "n_reads"), [(0.0, 60 / CACHE_SECONDS), (1.0, 2)])
def test_many_scrapes_are_few_reads(reading: Reading, metrics: StudyMetrics, seconds: float, n_reads: float) -> None:
    """Two hundred a minute read the ledger every five seconds, and a slow one at most a fiftieth of the time."""
    reading.seconds = seconds
    for _ in range(200):
        generate_latest(metrics.registry)
        reading.now += 60 / 200
    assert reading.n_reads == n_reads


def test_a_storage_that_is_away_is_said(reading: Reading, metrics: StudyMetrics) -> None:
    """No stale numbers; a line in /healthz; and all is back once it is."""
    up = "fmnist_optuna_ledger_up"
    cells = "fmnist_optuna_cells", {"study": "small", "state": "waiting"}
    value = metrics.registry.get_sample_value
    assert (metrics.find_trouble(), value(up), value(*cells)) == (None, 1, 5)
    reading.is_away = True
    reading.now += CACHE_SECONDS
    assert (metrics.find_trouble(), value(up), value(*cells)) == (studies_module.AWAY, 0, None)
    reading.is_away = False
    reading.now += CACHE_SECONDS
    assert (metrics.find_trouble(), value(up), value(*cells)) == (None, 1, 5)


def test_a_scrape_waits_for_no_outage(metrics: StudyMetrics) -> None:
    """It asks again by itself."""
    assert vars(metrics)["_opened"].patience.seconds == 0
    assert isinstance(vars(metrics)["_opened"].patience, Patience)


# What Grafana asks for


def test_grafana_asks_for_what_there_is(metrics: StudyMetrics) -> None:
    """Every name in an expression is exported, with every label that is asked for."""
    vars(metrics)["_metrics"][1, "small"] = VAL_ACCURACY
    check_expressions(
        generate_latest(metrics.registry).decode() + generate_latest(WorkerMetrics("a").registry).decode()
    )
