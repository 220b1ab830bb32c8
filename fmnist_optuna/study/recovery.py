"""Healing a study: cells of dead holders go back to the queue, trials that nobody owns are failed.

Run by waiting workers and by the supervisor; every statement may be repeated or die in the middle.
"""

import logging
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import replace

from optuna.trial import FrozenTrial

from fmnist_optuna.artifacts.store import Store
from fmnist_optuna.bridge.artifacts import discard_artifacts
from fmnist_optuna.bridge.attributes import read_attempt, read_attributes
from fmnist_optuna.bridge.ids import trial_id_of
from fmnist_optuna.bridge.orphans import fail_orphan, fail_trial
from fmnist_optuna.bridge.storage import PatientStorage
from fmnist_optuna.ledger.cells import Ledger
from fmnist_optuna.ledger.holders import Presence, machine_identity
from fmnist_optuna.ledger.records import HeldCell, TrialAttributes
from fmnist_optuna.ledger.states import Reason, State
from fmnist_optuna.ledger.tables import CELL_ID, TOKEN
from fmnist_optuna.log import log_event
from fmnist_optuna.study.kills import MIN_KILLS, Tally, describe_blame, has_oom_killed, is_to_blame, tally_attempts

logger = logging.getLogger(__name__)

N_LOOKS = 5  # at what a worker holds: a renewal and the end of its last epoch may come between look and take-over


class LeaseWatch:
    """Decides that a lease expired: past, and seen unchanged over two renewal intervals without a failed look between.

    So neither the start of this process, nor an outage, nor a suspended machine ever looks like the death of a worker.

    Args:
        renewal_seconds: Interval at which a live holder renews.
        clock: Seconds that only grow.
    """

    def __init__(self, renewal_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._unchanged_seconds = 2 * renewal_seconds
        self._clock = clock
        self._first_seen: dict[tuple[str, str, float], float] = {}
        self._last_look = -float("inf")

    def expired(self, held: list[HeldCell]) -> list[HeldCell]:
        """The cells whose lease has expired, given all running cells as just read."""
        now = self._clock()
        if now - self._last_look > self._unchanged_seconds:
            self._first_seen.clear()  # an outage, or this process slept: what was seen before says nothing
        self._last_look = now
        keys = {(cell.cell_id, cell.token, cell.lease_until): cell for cell in held}
        self._first_seen = {key: self._first_seen.get(key, now) for key in keys}
        return [
            cell
            for key, cell in keys.items()
            if cell.is_expired and now - self._first_seen[key] >= self._unchanged_seconds
        ]

    def forget(self) -> None:
        """A look failed: begin anew."""
        self._first_seen.clear()


class Recovery:
    """Takes over cells of dead holders and fails orphaned trials of one study.

    Args:
        ledger: The cells.
        trials: Optuna's storage.
        presence: The workers.
        name: Who does it, for the record.
        store: Of the artifacts.
    """

    def __init__(self, ledger: Ledger, trials: PatientStorage, presence: Presence, name: str, store: Store) -> None:
        self._ledger = ledger
        self._trials = trials
        self._presence = presence
        self._name = name
        self._store = store
        self._watch = LeaseWatch(ledger.storage.timing.renewal_seconds)
        self._n_outages = ledger.storage.n_outages

    def requeue_dead(self, watched: Collection[str] = ()) -> list[str]:
        """Requeue the cells whose holder is dead on this host or whose lease has expired; returns the holders.

        Args:
            watched: Workers whose end the caller sees, and how they ended: of these only an expired lease counts.
        """
        held = self._ledger.held_cells(as_writer=True)
        processes = self._presence.processes() if held else {}
        if self._ledger.storage.n_outages != self._n_outages:  # since the last look, whatever failed
            self._n_outages = self._ledger.storage.n_outages
            self._watch.forget()
        expired = {cell.cell_id for cell in self._watch.expired(held)}
        dead: list[tuple[HeldCell, Reason]] = []
        for cell in held:
            process = None if cell.worker in watched else processes.get(cell.worker)
            if process is not None and process.is_dead():
                dead.append((cell, "killed"))
            elif cell.cell_id in expired:
                dead.append((cell, "lost"))
        return [cell.worker for cell, reason in dead if self.requeue(cell, TrialAttributes(reason=reason))]

    def requeue_worker(self, worker: str, loss: TrialAttributes) -> list[str]:
        """Requeue what a worker holds that leaves, or whose process was seen to end; returns the cells.

        Args:
            loss: As `requeue` has it.
        """
        requeued: list[str] = []
        for _ in range(N_LOOKS):
            held = self._ledger.held_cells(worker)
            done = [cell.cell_id for cell in held if self.requeue(cell, loss)]
            requeued += done
            if len(done) == len(held):
                break
        return requeued

    def let_go(self, worker: str, loss: TrialAttributes) -> list[str]:
        """The same, and take it off the list of workers.

        Args:
            loss: As `requeue` has it.
        """
        held = self.requeue_worker(worker, loss)
        self._presence.leave(worker)
        return held

    def requeue(self, cell: HeldCell, loss: TrialAttributes) -> bool:
        """Take a cell over, fail its trial unless that turns out finished, and finish the cell by what the trial says.

        Args:
            loss: What is to be noted on the trial: the reason, which is "killed" when the process of its worker, on
                this host, is known to be gone; an error, when the attempt is to blame; the exit code of a killed
                worker, if somebody saw it end.

        Returns:
            Whether this call did it; otherwise the cell changed meanwhile and is somebody else's.
        """
        token = uuid.uuid4().hex
        if not self._ledger.take_over(cell, f"{self._name} (recovery)", token):
            return False
        how: dict[str, object] = {"holder": cell.worker, "reason": loss.reason, "error": loss.error}
        ids: dict[str, object] = {"cell": cell.cell_id, "trial": cell.trial_number}
        log_event(logger, logging.WARNING, "cell_taken_over", **ids, **how)
        if cell.trial_id is None:
            return self._ledger.give_back(cell.cell_id, token, count_lost=loss.reason != "stopped")
        return self._finish(cell, cell.trial_id, token, loss)

    def _finish(self, cell: HeldCell, trial_id: int, token: str, loss: TrialAttributes) -> bool:
        try:
            if loss.reason == "killed":
                loss = self._judge(cell, trial_id, loss)
            fail_trial(self._ledger.storage, trial_id, loss)
            trial = self._trials.get_trial(trial_id)
        except KeyError:  # somebody deleted the trial in the database
            return self._ledger.give_back(cell.cell_id, token, count_lost=True)
        attempt = read_attempt(trial)
        is_finished = self._ledger.finish_cell(cell.cell_id, token, attempt)  # first: a bucket may take its time
        if attempt.state is State.FAILED:  # it may have stored its weights and died before it told
            discard_artifacts(self._store, self._trials, trial)
        return is_finished

    def _judge(self, cell: HeldCell, trial_id: int, loss: TrialAttributes) -> TrialAttributes:
        """Say whether the cell is to blame for this kill and those before it on this machine."""
        noted = read_attributes(self._trials.get_trial(trial_id))
        is_oom = has_oom_killed(noted.oom_counter)
        loss = replace(loss, killed_for_memory=is_oom or None)
        if cell.n_lost + 1 < MIN_KILLS or noted.machine != machine_identity():
            return loss
        trials = self._trials.get_all_trials(self._ledger.study_id, deepcopy=False)
        tallies = tally_attempts(
            map(read_attempt, trials), machine_identity(), self._ledger.climbed_cells(), accused=cell.cell_id
        )
        earlier = tallies.get(cell.cell_id, Tally())
        own = Tally(  # what came before `retry` is forgiven
            min(earlier.n_killed, cell.n_lost) + 1, earlier.n_through, min(earlier.n_oom, cell.n_lost) + is_oom
        )
        if not is_to_blame(cell.cell_id, {**tallies, cell.cell_id: own}):
            return loss
        return replace(loss, reason="blamed", error=describe_blame(own, loss.exit_code))

    def sweep(self) -> int:
        """Fail running trials of ours that no cell owns; returns how many.

        The trials are listed first and the cells read second: a trial created in between is not on the list.
        """
        try:
            running = self._running_trials()
        except KeyError:  # the study was deleted
            return 0
        owners = self._ledger.owners()
        n_failed = 0
        for trial in running:
            token, trial_id = str(trial.system_attrs[TOKEN]), trial_id_of(trial)
            if owners.own(trial_id, token):
                continue
            log_event(logger, logging.WARNING, "trial_swept", trial=trial.number, cell=trial.system_attrs[CELL_ID])
            n_failed += fail_orphan(self._ledger.storage, trial_id, token)
        return n_failed

    def _running_trials(self) -> list[FrozenTrial]:
        running = self._trials.running_trials(self._ledger.study_id)
        return [trial for trial in running if TOKEN in trial.system_attrs]
