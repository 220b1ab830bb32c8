"""The numbers of one worker, counted from the events of its log: nothing is read for them."""

from collections.abc import Callable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from fmnist_optuna import __version__
from fmnist_optuna.ledger.states import State

PREFIX = "fmnist_optuna_worker"
# Seconds of a claim: a millisecond on SQLite, tens of them among many workers, seconds where TPE thinks or all wait.
CLAIM_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
leave_out_created: Callable[[], None] = disable_created_metrics  # a second series for each counter; it has no types
AWAY, STALLED = "the storage does not answer", "the training makes no progress"
TROUBLE = {"storage_outage": AWAY, "training_stalled": STALLED}
AT_WORK = frozenset({"cell_claimed", "epoch_ended"})
# After one of these it is over. A training that is stuck may end without an epoch more: it raised, or was another's.
OVER = {
    AWAY: AT_WORK | {"storage_back"},
    STALLED: AT_WORK | {"trial_ended", "trial_parked", "trial_dropped", "trial_failed"},
}


class WorkerMetrics:
    """What a worker has done since it began.

    Args:
        study: Name of its study.
    """

    def __init__(self, study: str) -> None:
        leave_out_created()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels, of = ["study"], self.registry
        info = Gauge(f"{PREFIX}_info", "The worker's version; always 1.", ["study", "version"], registry=of)
        info.labels(study, __version__).set(1)
        claims = Histogram(
            f"{PREFIX}_claim_seconds", "How long a claim of a cell took.", labels, buckets=CLAIM_BUCKETS, registry=of
        )
        trials = Counter(f"{PREFIX}_trials", "Trials that ended here, by their state.", [*labels, "state"], registry=of)
        self._claims = claims.labels(study)
        ended = (State.COMPLETE, State.PRUNED, State.FAILED)
        self._trials = {state.optuna_name: trials.labels(study, state.value) for state in ended}
        self._counters = {
            event: Counter(f"{PREFIX}_{name}", text, labels, registry=of).labels(study)
            for event, name, text in (
                ("epoch_ended", "epochs", "Epochs trained."),
                ("trial_dropped", "lease_losses", "Trials whose cell was another worker's by then."),
                ("storage_outage", "outages", "Outages of the storage that were waited for."),
            )
        }
        training = Counter(f"{PREFIX}_training_seconds", "Time spent in epochs.", labels, registry=of)
        self._training_seconds = training.labels(study)
        self._trouble: str | None = None

    def hear(self, event: str, fields: Mapping[str, object]) -> None:
        """Count an event of the log."""
        if (counter := self._counters.get(event)) is not None:
            counter.inc()
        seconds = fields.get("seconds")
        if event == "cell_claimed" and isinstance(seconds, float):
            self._claims.observe(seconds)
        elif event == "epoch_ended" and isinstance(seconds, float):
            self._training_seconds.inc(seconds)
        elif event == "trial_ended":
            self._trials[str(fields["state"])].inc()
        if event in TROUBLE:
            self._trouble = TROUBLE[event]
        elif self._trouble is not None and event in OVER[self._trouble]:
            self._trouble = None

    def find_trouble(self) -> str | None:
        """What is wrong, in one line; None when all is well."""
        return self._trouble
