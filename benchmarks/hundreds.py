"""How far one Postgres goes: two hundred workers whose objective trains nothing, with and without a network between.

    python benchmarks/hundreds.py busy [--workers 200] [--trials 2000]      # as fast as they can, and before
    python benchmarks/hundreds.py paced [--rate 100] [--round-trip-ms 20]   # how long a claim takes
    python benchmarks/hundreds.py long [--workers 200] [--seconds 30]       # one trial each, as Ray Tune's table has it
    python benchmarks/hundreds.py short [--workers 16] [--seconds 0.1]      # many short ones, as its other row
    python benchmarks/hundreds.py growth                                    # 1,000 to 100,000 cells

Workers are light processes, forked from one that is as the product's own server of workers but for TensorFlow.

Each line of output is one measurement in a fresh database, in JSON. A claim is all that comes before the first epoch:
the claim, its trial, and the bind. `--stock` makes trials by Optuna's own `create_new_trial`. Postgres is started in a
temporary folder, as durable as a default installation, with at most `--connections` connections.
"""

import argparse
import contextlib
import json
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from clocks import Report
from databases import DURABLE, ask_postgres, fresh_database
from delay import delayed
from stub_workers import Quota, StubObjective, StubStudy, run_workers

from fmnist_optuna.bridge.storage import PatientStorage, create_storage
from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.ledger.connecting import open_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.search.cell import Params
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import find_study
from fmnist_optuna.study.verification import verify
from fmnist_optuna.work import attempt
from fmnist_optuna.work.environment import read_environment
from fmnist_optuna.work.loop import LeaveRequest, work
from fmnist_optuna.work.running_trial import RunningTrial

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from pgbouncer_server import running_pgbouncer
from postgres_server import running_server

FINGERPRINT = "0" * 64  # no data is loaded
LOOK_SECONDS = 0.1  # between counts of connections


def main() -> None:
    options = parse_options()
    if options.stock:
        for name in ("create_claimed_trial",):
            setattr(PatientStorage, name, create_by_optuna)
    limit = f"max_connections={options.connections}"
    with running_server((*DURABLE, limit)) as server:
        measure = {"growth": measure_growth}.get(options.what, measure_workers)
        for line in measure(server, options):
            print(json.dumps(line), flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How far one Postgres goes")
    parser.add_argument("what", choices=("busy", "paced", "long", "short", "growth"))
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--cells", type=int, nargs="+", default=[1000, 10_000, 100_000], help="of growth")
    parser.add_argument("--rate", type=float, default=100.0, help="claims a second of all workers together")
    parser.add_argument("--seconds", type=float, default=0.0, help="of a trial")
    parser.add_argument("--round-trip-ms", type=float, default=0.0)
    parser.add_argument("--connections", type=int, default=100, help="that the server takes")
    parser.add_argument("--pgbouncer", type=int, default=0, help="so many connections, which a pgbouncer shares out")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--stock", action="store_true")
    return parser.parse_args()


def create_by_optuna(self: PatientStorage, study_id: int, template_trial: Any, grids: str) -> int:
    return self.create_new_trial(study_id, template_trial=template_trial)


def measure_workers(server: Any, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One line a run of all workers."""
    for _ in range(options.runs):
        with contextlib.ExitStack() as stack:
            url = stack.enter_context(fresh_database("postgres", server.url))
            near = stack.enter_context(running_pgbouncer(url, options.pgbouncer)) if options.pgbouncer else url
            far = stack.enter_context(delayed(near, options.round_trip_ms / 1000))
            n_cells = -(-options.trials // 100) * 100
            study = StubStudy(far, n_cells, 1, options.seconds, options.trials, "none")
            storage = create_storage(StorageOptions(url))
            record, _ = create_or_join(storage, study.spec, FINGERPRINT)
            storage.close()
            pause = options.workers / options.rate if options.what == "paced" else 0.0
            began, cpu, network = time.monotonic(), server_seconds(server), network_seconds(server)
            with counted_connections(server.url) as counts:
                reports = run_workers(PacedWorker(pause), study, options.workers)
            line = summarise(reports, options) | {
                "connections": max(counts, default=0),
                "server_cpu_ms_a_trial": round(1000 * (server_seconds(server) - cpu) / max(1, n_trials(reports)), 2),
                "network_cpu_ms_a_trial": round(
                    1000 * (network_seconds(server) - network) / max(1, n_trials(reports)), 2
                ),
                "seconds_with_start": round(time.monotonic() - began, 1),
            }
            yield line | check(url, record)


def check(url: str, record: Any) -> dict[str, Any]:
    """What `verify` finds, and the size of the database."""
    storage = open_storage(StorageOptions(url))
    session = Session(storage, record, "benchmark")
    found = verify(storage, session.optuna_storage, record.study_id)
    storage.close()
    size = ask_postgres(url, "SELECT pg_database_size(current_database())")
    trials = "SELECT max(finished_at) - min(claimed_at) FROM fmnist_cells"
    lost = {
        "seconds_to_last_result": round(ask_postgres(url, trials) or 0.0, 2),
        "duplicates": found.n_duplicates,
        "surplus": found.n_surplus,
        "problems": found.problems[:3],
    }
    return {"results": found.n_results, **lost, "database_kb": size // 1024}


class PacedWorker:
    """A worker that begins a trial every so many seconds, if it is done with the one before.

    Args:
        pause: Seconds; 0 to begin each at once.
    """

    def __init__(self, pause: float) -> None:
        self._pause = pause

    def __call__(self, study: StubStudy, name: str, report: Report, quota: Quota, wait: Any) -> None:
        storage = open_storage(StorageOptions(study.url))
        session = Session(storage, find_study(storage, study.name), name)
        session.presence.register(name, fresh_seconds=60)
        _ = session.optuna_study
        read_environment()  # as a worker does when it reads the study's code
        leave = LeaveRequest()
        objective = ClockedObjective(study, report, leave, quota)
        claim = session.ledger.claim
        next_at = 0.0

        def claim_in_time(*args: Any) -> Any:
            nonlocal next_at
            if self._pause:
                now = time.monotonic()
                next_at = max(now, next_at or now + self._pause * (int(name.split("-")[1]) % 97) / 97)
                leave.wait(next_at - now)
                next_at += self._pause
            objective.claimed_at = time.perf_counter()
            return claim(*args)

        vars(session.ledger)["claim"] = claim_in_time
        wait()
        work(session, objective, leave, session.record.generation)
        report.ended = time.monotonic()
        report.n_outages = storage.patience.n_outages
        storage.close()


class ClockedObjective(StubObjective):
    """Notes how long it was from the claim to its beginning."""

    claimed_at = 0.0

    def __call__(self, params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        report = vars(self)["_report"]
        report.samples["claim"].append((time.perf_counter() - self.claimed_at, 0.0))
        return super().__call__(params, seed, running)


def n_trials(reports: Sequence[Report]) -> int:
    return sum(report.n_trials for report in reports)


def summarise(reports: Sequence[Report], options: argparse.Namespace) -> dict[str, Any]:
    claims = sorted(seconds for report in reports for seconds, _ in report.samples.get("claim", ()))
    began = [report.began for report in reports if report.began]
    seconds = max(report.ended for report in reports) - min(began)
    ideal = options.seconds * -(-options.trials // options.workers)
    return {
        "what": options.what,
        "stock": options.stock,
        "workers": options.workers,
        "round_trip_ms": options.round_trip_ms,
        "pgbouncer": options.pgbouncer,
        "trials": n_trials(reports),
        "seconds": round(seconds, 2),
        "trials_a_second": round(n_trials(reports) / seconds, 1),
        "overhead_percent": round(100 * (seconds / ideal - 1), 1) if ideal else None,
        "claim_ms": {name: percentile(claims, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))},
        "worker_cpu_ms_a_trial": round(1000 * sum(r.cpu_seconds for r in reports) / max(1, n_trials(reports)), 1),
        "outages": sum(report.n_outages for report in reports),
        "errors": sorted({report.error for report in reports if report.error})[:3],
    }


def percentile(ascending: Sequence[float], share: float) -> float:
    return round(1000 * ascending[min(len(ascending) - 1, int(share * len(ascending)))], 1) if ascending else 0.0


def server_seconds(server: Any) -> float:
    """CPU seconds of a server so far, its processes that have ended included."""
    process = psutil.Process(vars(server)["_process"].pid)
    times = process.cpu_times()
    seconds = times.user + times.system + times.children_user + times.children_system
    for child in process.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            seconds += sum(child.cpu_times()[:2])
    return float(seconds)


def network_seconds(server: Any) -> float:
    """CPU seconds so far of what stands between workers and server: the delaying proxy, and a pgbouncer."""
    children = (child for child in psutil.Process().children() if child.pid != vars(server)["_process"].pid)
    return float(sum(sum(child.cpu_times()[:2]) for child in children))


@contextlib.contextmanager
def counted_connections(url: str) -> Iterator[list[int]]:
    """How many connections the workers had, counted ten times a second within the block."""
    import psycopg

    counts: list[int] = []
    is_over = threading.Event()
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'fmnist-optuna'"

    def count() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not is_over.wait(LOOK_SECONDS):
                counts.extend(row[0] for row in connection.execute(query))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield counts
    finally:
        is_over.set()
        thread.join()


def measure_growth(server: Any, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """How long each step of one worker takes with so many cells, all but a thousand of which are done."""
    for n_cells in options.cells:
        with fresh_database("postgres", server.url) as url:
            study = StubStudy(url, n_cells, 1, 0.0, 300, "none")
            storage = create_storage(StorageOptions(url))
            record, _ = create_or_join(storage, study.spec, FINGERPRINT)
            session = Session(storage, record, "worker")
            fill(url, session, n_cells - 1000)
            ask_postgres(url, "ANALYZE")
            timings = time_steps(study, session, 300)
            storage.close()
            yield {"cells": n_cells, "stock": options.stock, "median_ms": timings}


def fill(url: str, session: Session, n_done: int) -> None:
    """So many done cells, each with a copy of one trial that was really made."""
    claim = session.ledger.claim("filler", session.record.generation)
    if claim is None:
        raise RuntimeError("there is no cell")
    attempt._create_trial(session, claim, 0)
    columns = {
        "trial_params": "param_name, param_value, distribution_json",
        "trial_user_attributes": "key, value_json",
        "trial_system_attributes": "key, value_json",
    }
    done = f"SELECT cell_id FROM fmnist_cells WHERE state = 'waiting' ORDER BY position LIMIT {n_done}"
    copies = (
        "FROM trials AS made, {0} AS one WHERE made.number > 0 AND one.trial_id = (SELECT min(trial_id) FROM trials)"
    )
    statements = [
        "INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete) "
        "SELECT n, study_id, 'COMPLETE', "
        f"datetime_start, datetime_start FROM trials, generate_series(1, {n_done}) AS n ORDER BY n",
        *(f"INSERT INTO {table} (trial_id, {names}) SELECT made.trial_id, {names} {copies.format(table)}"
          for table, names in columns.items()),
        f"UPDATE fmnist_cells SET state = 'done', result = 'COMPLETE' WHERE cell_id IN ({done})",
    ]  # fmt: skip
    for statement in statements:
        ask_postgres(url, statement)


def time_steps(study: StubStudy, session: Session, n_trials: int) -> dict[str, float]:
    samples: dict[str, list[float]] = {}
    quota, leave = Quota(multiprocessing.Value("q", n_trials)), LeaveRequest()
    for owner, names in (
        (session.ledger, ("claim", "bind", "record_epoch", "finish_cell")),
        (session.optuna_storage, ("create_claimed_trial", "set_trial_intermediate_value", "set_trial_state_values")),
    ):
        for name in names:
            vars(owner)[name] = clocked(getattr(owner, name), samples.setdefault(name, []))
    work(session, StubObjective(study, Report(), leave, quota), leave, session.record.generation)
    return {name: round(1000 * statistics.median(found), 2) for name, found in samples.items()}


def clocked(inner: Any, samples: list[float]) -> Any:
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            samples.append(time.perf_counter() - began)

    return timed


if __name__ == "__main__":
    main()
