"""Claims a second of the database alone: pgbench sends what a worker sends, without the worker.

    python benchmarks/alone.py [--clients 16] [--seconds 20] [--cells 10000 100000] [--runs 3]
    python benchmarks/alone.py --rate 100 --round-trip-ms 20    # how long a claim takes at so many a second

The statements are those of the package, as it sends them: the claim, the message that makes its trial, and the bind.
Each run has a fresh database, and gives one line of JSON.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from databases import DURABLE, ask_postgres, fresh_database
from delay import delayed
from psycopg import ClientCursor
from sqlalchemy import event, make_url
from sqlalchemy.engine import Connection
from stub_workers import StubStudy

from fmnist_optuna.bridge import new_trials
from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.records import Claim
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.work import attempt

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from postgres_server import find_binaries, running_server


def main() -> None:
    parser = argparse.ArgumentParser(description="Claims a second of the database alone")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--cells", type=int, nargs="+", default=[10_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rate", type=int, default=0, help="claims a second; 0 for as many as it takes")
    parser.add_argument("--round-trip-ms", type=float, default=0.0)
    options = parser.parse_args()
    with running_server(DURABLE) as server:
        for n_cells in [n for n in options.cells for _ in range(options.runs)]:
            with fresh_database("postgres", server.url) as url:
                line = measure(url, n_cells, options)
            print(json.dumps(line), flush=True)


def measure(url: str, n_cells: int, options: argparse.Namespace) -> dict[str, Any]:
    storage = create_storage(StorageOptions(url))
    record, _ = create_or_join(storage, StubStudy(url, n_cells, 1, 0.0, 0, "none").spec, "0" * 64)
    script = "\n".join(write_script(Session(storage, record, "recorder")))
    storage.close()
    ask_postgres(url, "ANALYZE")
    how = [
        "-c",
        str(options.clients),
        "-j",
        "2",
        "-T",
        str(options.seconds),
        *(["-R", str(options.rate)] * bool(options.rate)),
    ]
    with tempfile.TemporaryDirectory() as folder, delayed(url, options.round_trip_ms / 1000) as far:
        file = Path(folder) / "claim.sql"
        file.write_text(script)
        plain = make_url(far).set(drivername="postgresql").render_as_string(hide_password=False)
        command = [str(find_binaries(None) / "pgbench"), "-n", "-l", "-f", str(file), *how, plain]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
        logs = Path(folder).glob("pgbench_log*")
        milliseconds = sorted(int(line.split()[2]) / 1000 for log in logs for line in log.read_text().splitlines())
    took = {f"p{share}_ms": round(milliseconds[len(milliseconds) * share // 100], 1) for share in (50, 99)}
    found = {name: re.search(pattern, done.stdout) for name, pattern in PATTERNS.items()}
    numbers = {name: float(match[1]) for name, match in found.items() if match}
    counted = "SELECT count(DISTINCT trial_id) FROM fmnist_cells WHERE state = 'running'"
    ranks = (
        "SELECT count(*) FROM (SELECT number, row_number() OVER (ORDER BY trial_id) - 1 AS rank FROM trials) AS ranked"
    )
    checked = {"bound": ask_postgres(url, counted), "of_wrong_rank": ask_postgres(url, f"{ranks} WHERE number <> rank")}
    return {
        "cells": n_cells,
        "clients": options.clients,
        "round_trip_ms": options.round_trip_ms,
        **numbers,
        **took,
        **checked,
    }


PATTERNS = {
    "claims_a_second": r"tps = ([\d.]+)",
    "claims": r"processed: (\d+)",
    "failed": r"failed transactions: (\d+)",
}


def write_script(session: Session) -> Iterator[str]:
    """A worker's statements from a claim to the bind, with the names that pgbench fills in."""
    sent: list[str] = []
    claim, trial_id, number = record_one(session, sent)
    claimed, made, bound = (each.replace(claim.token, ":token").replace(claim.cell_id, ":cell_id") for each in sent)
    yield "\\set token random(1, 1000000000000)"
    yield f"{claimed} \\gset"
    yield made.strip().replace(";", " \\;") + " \\aset"
    yield (
        bound.replace(f"trial_id={trial_id}", "trial_id=:trial_id")
        .replace(f"trial_id = {trial_id}", "trial_id = :trial_id")
        .replace(f"trial_number={number}", "trial_number=:number")
        + ";"
    )


def record_one(session: Session, sent: list[str]) -> tuple[Claim, int, int]:
    """Begin one attempt; what it sends is added as it is sent, with its values in the text."""
    session.optuna_study  # noqa: B018 - which asks the database by itself
    session.known_ranges.find()

    def note(connection: Connection, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        driver: Any = connection.connection.driver_connection
        sent.append(ClientCursor(driver).mogrify(statement, parameters))

    send = vars(new_trials)["send_message"]

    def send_noted(connection: Connection, statements: str, parameters: Any) -> Any:
        note(connection, None, statements, parameters)
        return send(connection, statements, parameters)

    vars(new_trials)["send_message"] = send_noted
    event.listen(session.storage.engine, "before_cursor_execute", note)
    claim = session.ledger.claim(session.name, session.record.generation)
    if claim is None:
        raise RuntimeError("there is no cell")
    trial = attempt._create_trial(session, claim, 0)
    if trial is None:
        raise RuntimeError("the trial was not bound")
    event.remove(session.storage.engine, "before_cursor_execute", note)
    return claim, trial._trial_id, trial.number


if __name__ == "__main__":
    main()
