"""Clocks around what a worker asks of the database: our statements apart from Optuna's, wall time apart from CPU."""

import functools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna

from fmnist_optuna.study.session import Session

OURS_PER_TRIAL = ("claim", "bind", "finish", "touch", "renew")
OURS_PER_EPOCH = ("epoch",)
OPTUNA_PER_TRIAL = ("create", "tell", "read", "attribute")
OPTUNA_PER_EPOCH = ("report",)


@dataclass
class Report:
    """What one worker did.

    Args:
        began: When the barrier opened, in seconds of the machine's monotonic clock.
        ended: When its last trial was finished, by the same clock.
        cpu_seconds: Of the whole process from `began` to its end.
        n_trials: That it finished.
        n_outages: How often the database did not answer, "database is locked" among them.
        samples: Wall and CPU seconds of each call, by operation.
        epoch_seconds: Wall seconds of one epoch's whole bookkeeping, each.
        error: What ended it early.
    """

    began: float = 0.0
    ended: float = 0.0
    cpu_seconds: float = 0.0
    n_trials: int = 0
    n_outages: int = 0
    samples: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    epoch_seconds: list[float] = field(default_factory=list)
    error: str | None = None


class Clock:
    """Times calls into a report; of calls within calls only the outermost counts.

    Args:
        report: Gets the samples.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._thread = threading.local()

    def put_on(self, owner: Any, methods: Mapping[str, str]) -> None:
        """Time methods of an object or a class, each under the name of its operation."""
        for method, operation in methods.items():
            setattr(owner, method, self._timed(getattr(owner, method), operation))

    def _timed(self, inner: Callable[..., Any], operation: str) -> Callable[..., Any]:
        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if getattr(self._thread, "is_inside", False):
                return inner(*args, **kwargs)
            self._thread.is_inside = True
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                result = inner(*args, **kwargs)
            finally:
                self._thread.is_inside = False
            if operation != "claim" or result is not None:  # a look at an empty queue belongs to no trial
                self._report.samples[operation].append((time.perf_counter() - wall, time.thread_time() - cpu))
                self._report.ended = time.monotonic()
            return result

        return timed


def put_clocks_on(session: Session, clock: Clock) -> None:
    """Time our statements, and Optuna's calls at the doors that every way to them goes through."""
    ledger = session.ledger
    # By the methods themselves, so that the type checker notices when one gets another name.
    ours = {
        ledger.claim: "claim",
        ledger.bind: "bind",
        ledger.record_epoch: "epoch",
        ledger.finish_cell: "finish",
        ledger.renew: "renew",
    }
    clock.put_on(ledger, {method.__name__: operation for method, operation in ours.items()})
    clock.put_on(session.presence, {session.presence.touch.__name__: "touch"})
    clock.put_on(optuna.Trial, {"report": "report", "should_prune": "report"})
    clock.put_on(optuna.Study, {"tell": "tell"})
    storage = {
        "create_claimed_trial": "create",
        "get_trial": "read",
        "set_trial_intermediate_value": "report",
        "set_trial_state_values": "tell",
        "set_trial_user_attr": "attribute",
    }
    clock.put_on(session.optuna_storage, storage)
