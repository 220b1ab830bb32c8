"""Processes that are there to be killed: forked from a warm server, each with a session of its own.

Their objective trains nothing, but stores a file as weights, so that the whole way of a result is walked.
"""

import hashlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import mutations
import pytest
from faults import Steps, kill_self, watch_files, watched
from small_study import KILLED, PATIENCE_SECONDS, epoch_of, ladder_objective, value_of

from fmnist_optuna.bridge.artifacts import WEIGHTS_FILE, store_weights
from fmnist_optuna.bridge.stores import open_store
from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.ledger.connecting import open_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.records import Timing, TrialAttributes
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.cell import Params
from fmnist_optuna.study.claiming import Claiming
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study
from fmnist_optuna.work.attempt import run_attempt
from fmnist_optuna.work.loop import LeaveRequest, work
from fmnist_optuna.work.running_trial import RunningTrial

mutations.apply_from_environment()

Ending = Literal["complete", "pruned", "exception", "stopped", "parked"]


@dataclass(frozen=True)
class StubObjective:
    """Two epochs, stored weights, and the ending that is asked for.

    Args:
        ending: How the training ends.
        seconds: How long each epoch lasts.
    """

    ending: Ending = "complete"
    seconds: float = 0.0

    def __call__(self, params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        for number in range(running.n_recorded, 2):
            time.sleep(self.seconds)
            if not running.report(epoch_of(number, value_of(params))):
                return None
        if self.ending == "exception":
            raise ValueError("the training went wrong")
        if self.ending == "stopped":
            running.ending = "stopped"
            return None
        if self.ending == "pruned":
            running.note(TrialAttributes(reason="pruned"))
            return Outcome(State.PRUNED, reason="pruned")
        if self.ending == "parked" or running.claim.cut_at is not None:
            return Outcome(State.PARKED)
        store_stub_weights(running, params)
        return Outcome(State.COMPLETE, value_of(params))


@dataclass(frozen=True)
class ClimbingObjective:
    """Trains from rung to rung, and stores weights at its end.

    Args:
        seconds: How long each epoch lasts.
    """

    seconds: float

    def __call__(self, params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        time.sleep(self.seconds)
        outcome = ladder_objective(params, seed, running)
        if outcome is not None and outcome.state is State.COMPLETE:
            store_stub_weights(running, params)
        return outcome


def store_stub_weights(running: RunningTrial, params: Params) -> None:
    """What `work.trial` does with real weights."""
    content = repr(sorted(params.items())).encode()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / WEIGHTS_FILE
        file.write_bytes(content)
        running.note(TrialAttributes(weights_sha256=hashlib.sha256(content).hexdigest()))
        storage = running.ledger.storage
        store_weights(storage, open_store(storage.artifacts, None), running.trial, file)


def attempt(session: Session, ending: Ending = "complete") -> bool:
    """Claim a cell and carry it through; False when there is none to claim."""
    claim = Claiming(session).claim(session.record.generation)
    if claim is None:
        return False
    run_attempt(session, claim, StubObjective(ending), lambda: False, session.record.generation)
    return True


def requeue(session: Session) -> None:
    """Take every held cell for that of a dead worker."""
    for cell in session.ledger.held_cells():
        session.recovery.requeue(cell, KILLED)


def sweep(session: Session) -> None:
    """Fail what nobody owns."""
    session.recovery.sweep()


def start(target: Callable[..., None], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """A process from a server that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["victims"])
    with pytest.MonkeyPatch.context() as patch:  # the server of Python 3.11 looks nowhere else for what it preloads
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def die_at(survivor: Session, at: int | None, act: Callable[..., object], *arguments: Any) -> Steps:
    """Let a child do something with a session of its own and die before its step `at`.

    It is forked from this process, whose compiled statements it inherits: that takes a tenth of a fresh start.

    Returns:
        What it counted, if it was to live (`at` is None).

    Raises:
        AssertionError: It ended in another way than it should have.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        try:
            _act(survivor, sender, at, act, arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    sender.close()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == (0 if at is None else -signal.SIGKILL), f"exit status {status} at step {at}"
    steps = Steps()
    if at is None:
        steps.names = receiver.recv()
    receiver.close()
    return steps


def _act(
    survivor: Session, sender: Connection, at: int | None, act: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    survivor.storage.engine.dispose(close=False)  # the connections are the parent's
    session = Session(survivor.storage, survivor.record, f"victim-{os.getpid()}")
    session.presence.register(session.name, fresh_seconds=60)
    _ = session.optuna_study  # opening it is no part of the protocol
    steps = Steps(at, kill_self)
    watch_files(session.storage.artifacts, steps)
    with watched(session, steps):
        act(session, *arguments)
    sender.send(steps.names)


def work_until_done(
    url: str,
    study: str,
    name: str,
    timing: Timing,
    epoch_seconds: float,
    patience_seconds: float = PATIENCE_SECONDS,
) -> None:
    """A whole worker, as the loop has it, on a study with rungs or without."""
    storage = open_storage(StorageOptions(url, patience_seconds=patience_seconds, timing=timing))
    session = Session(storage, find_study(storage, study), name)
    session.presence.register(name, fresh_seconds=timing.lease_seconds)
    objective = StubObjective(seconds=epoch_seconds) if session.ladder is None else ClimbingObjective(epoch_seconds)
    work(session, objective, LeaveRequest(), session.record.generation)
