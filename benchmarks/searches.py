"""Searches that are no grid: how long TPE thinks about a point, and what few trials lose against the whole grid.

    python benchmarks/searches.py suggest [--finished 10 100 1000] [--times 20] [--json FILE]
    python benchmarks/searches.py regret CURVES.json... [--trials 40] [--seeds 20] [--workers 2] [--json FILE]

suggest  a study of TPE over ten parameters in SQLite, so many of its cells finished by a stub: the next claims, timed
         as a whole, and what of that is TPE's. What else runs on the machine, as a training, is the caller's choice.
regret   trains nothing: the cells that `pruning.py record` kept are the space, each parameter sampled by the place of
         its value. Every search takes so many trials of it, one seed after another, with and without the ladder. Regret
         is the best score of all cells less that of the winner, in points of val_accuracy.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from databases import describe_machine
from league import CONSTANTS, Recording, Run, run_full, run_ladder_with_leaders
from pruning import load_recording
from tables import print_machine, print_table

from fmnist_optuna.bridge.storage import create_storage
from fmnist_optuna.bridge.suggestion import Suggester
from fmnist_optuna.bridge.trials import Outcome
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.states import State
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.known import KnownCell
from fmnist_optuna.search.metric import Epoch
from fmnist_optuna.search.sampling import Search, Stage, suggestion_seed
from fmnist_optuna.search.space import Dimension, Space
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.study.claiming import Claiming
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.loop import LeaveRequest, work
from fmnist_optuna.work.running_trial import RunningTrial

SPACE = {  # ten parameters, as in studies/examples/tpe_dense.toml
    "hidden_size": {"low": 32, "high": 256, "step": 32},
    "n_hidden_layers": {"low": 1, "high": 3},
    "dropout_rate": {"low": 0.0, "high": 0.5},
    "input_dropout": {"low": 0.0, "high": 0.3},
    "activation": ["relu", "gelu", "silu"],
    "batch_norm": [False, True],
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "batch_size": [32, 64, 128],
    "weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
    "label_smoothing": {"low": 0.0, "high": 0.2},
}
LIAR_EPOCHS = CONSTANTS[2]  # after so many a cell of the ladder is compared, and TPE knows something of it


def time_suggestions(options: argparse.Namespace) -> None:
    """Print a row for each number of finished trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = []
    for n_finished in options.finished:
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"finished": n_finished, **time_claims(Path(folder), n_finished, options.times)})
    print_machine(describe_machine())
    print_table(
        f"The next {options.times} claims of a study of TPE over {len(SPACE)} parameters, ms.",
        ("finished trials", "first claim", "claims after it: median", "CPU", "of these TPE: median", "CPU"),
        [(row["finished"], *(f"{row[name]:.1f}" for name in MEASURED)) for row in rows],
    )
    write(options, rows)


MEASURED = ("first", "claim", "claim_cpu", "suggest", "suggest_cpu")  # medians, but for the first


def time_claims(folder: Path, n_finished: int, n_times: int) -> dict[str, float]:
    """Milliseconds; the first claim makes a trial of Optuna's of every finished cell, the others of the new ones."""
    spec = parse_spec(
        {
            "name": "stub",
            "data": {"source": "synthetic"},
            "pruner": {"name": "none"},
            "search": {"sampler": "tpe", "n_trials": n_finished + n_times + 1},
            "space": SPACE,
        },
        "benchmark",
    )
    storage = create_storage(StorageOptions(f"sqlite:///{folder / 'studies.db'}"))
    session = Session(storage, create_or_join(storage, spec, "0" * 64)[0], "benchmark")
    leave = LeaveRequest()
    objective = StubObjective(n_finished, leave)
    work(session, objective, leave, session.record.generation)
    claiming, claims, suggestions = Claiming(session), Clock(), Clock()
    claims.wrap(Claiming, "claim")
    suggestions.wrap(Suggester, "suggest")
    for _ in range(n_times + 1):
        claiming.claim(session.record.generation)
    claims.unwrap()
    suggestions.unwrap()
    storage.close()
    return dict(zip(MEASURED, (claims.wall[0], *claims.medians(), *suggestions.medians()), strict=True))


class Clock:
    """Times each call of one method, in milliseconds."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self._restore: Callable[[], None] = lambda: None

    def wrap(self, owner: type, name: str) -> None:
        method = getattr(owner, name)

        def timed(*arguments: Any) -> Any:
            began, began_cpu = time.perf_counter(), time.process_time()
            found = method(*arguments)
            self.wall.append(1000 * (time.perf_counter() - began))
            self.cpu.append(1000 * (time.process_time() - began_cpu))
            return found

        setattr(owner, name, timed)
        self._restore = lambda: setattr(owner, name, method)

    def unwrap(self) -> None:
        self._restore()

    def medians(self) -> tuple[float, float]:
        """Wall and CPU time of all calls but the first."""
        return statistics.median(self.wall[1:]), statistics.median(self.cpu[1:])


class StubObjective:
    """One epoch with a value that the parameters decide; after enough of them the worker leaves."""

    def __init__(self, n_trials: int, leave: LeaveRequest) -> None:
        self._n_left = n_trials
        self._leave = leave

    def __call__(self, params: Params, seed: int, running: RunningTrial) -> Outcome | None:
        value = random.Random(seed).random()
        running.report(Epoch(0, 1.0, 0.5, 1.0, value, 0.0))
        self._n_left -= 1
        if self._n_left <= 0:
            self._leave.set()
        return Outcome(State.COMPLETE, value)


def compare_regrets(options: argparse.Namespace) -> None:
    """Print a table for each file of curves."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print_machine(describe_machine())
    answer = {}
    for file in options.files:
        recording = load_recording(file)
        rows = answer[file.name] = list(compare(recording, options))
        print_table(
            f"{file.stem}: {len(recording.curves)} cells, {options.trials} trials, {options.seeds} seeds, "
            f"{options.workers} workers. Epochs as a share of the full grid; regret in points of val_accuracy.",
            ("search", "pruner", "epochs", "different cells", "regret: mean", "median", "largest", "best cell found"),
            rows,
        )
    write(options, answer)


def compare(recording: Recording, options: argparse.Namespace) -> Iterable[tuple[Any, ...]]:
    """A row for each search, with and without the ladder."""
    grid = Grid(recording)
    everything = range(len(recording.curves))
    for pruner, finish in (("none", run_full), ("ladder", run_ladder)):
        yield summarise("full grid", pruner, recording, finish, [everything], options.workers)
        for name in ("grid, cut short", "random", "qmc", "tpe"):
            chosen = [grid.choose(name, seed, options, pruner == "ladder") for seed in range(options.seeds)]
            yield summarise(name, pruner, recording, finish, chosen, options.workers)


def run_ladder(run: Run) -> Any:
    return run_ladder_with_leaders(*CONSTANTS, run)


def summarise(
    name: str,
    pruner: str,
    recording: Recording,
    finish: Callable[[Run], Any],
    chosen: Sequence[Sequence[int]],
    n_workers: int,
) -> tuple[Any, ...]:
    best = max(max(curve.values) for curve in recording.curves)
    shares, regrets = [], []
    for cells in chosen:
        curves = [recording.curves[cell] for cell in cells]
        order = range(len(curves))
        done = finish(Run(curves, recording.n_validation, recording.max_epochs, order, n_workers, 0))
        shares.append(done.n_epochs / recording.n_epochs)
        regrets.append(100 * (best - done.score))
    n_different = statistics.mean(len(set(cells)) for cells in chosen)
    return (
        name,
        pruner,
        f"{statistics.mean(shares):.2f}",
        f"{n_different:.1f}",
        f"{statistics.mean(regrets):.2f}",
        f"{statistics.median(regrets):.2f}",
        f"{max(regrets):.2f}",
        f"{sum(regret == 0 for regret in regrets)} of {len(regrets)}",
    )


class Grid:
    """Recorded cells as a space: each parameter is a range of the places of its values, in order."""

    def __init__(self, recording: Recording) -> None:
        cells = [json.loads(text) for text in recording.params]
        self._values = {name: sorted({cell[name] for cell in cells}) for name in cells[0]}
        self._space: Space = {name: Dimension(low=0, high=len(found) - 1) for name, found in self._values.items()}
        self._cells = {self._key(self._places(cell)): number for number, cell in enumerate(cells)}
        self._curves = recording.curves

    def choose(self, sampler: str, seed: int, options: argparse.Namespace, has_rungs: bool) -> list[int]:
        """The cells that a search takes, in its order."""
        n_trials = options.trials
        if sampler == "grid, cut short":
            return random.Random(seed).sample(range(len(self._curves)), n_trials)
        if sampler == "tpe":
            return self._suggest(seed, n_trials, options.workers, has_rungs)
        search = Search("qmc" if sampler == "qmc" else "random", seed, [Stage(n_trials, self._space)])
        return [self._cells[self._key(point.params)] for point in search.points(range(n_trials))]

    def _suggest(self, seed: int, n_trials: int, n_workers: int, has_rungs: bool) -> list[int]:
        """Workers take one cell after another, and each knows what the others have finished by then."""
        suggester = Suggester(self._space)
        ends: list[tuple[int, int]] = []  # in epochs of anybody's, and the number of the cell that ends there
        points: list[Params] = []
        chosen: list[int] = []
        for number in range(n_trials):
            now = 0 if number < n_workers else sorted(ends)[number - n_workers][0]
            known = [self._known(each, points, chosen, end <= now, has_rungs) for end, each in ends]
            points.append(suggester.suggest(suggestion_seed(seed, number), known))
            chosen.append(self._cells[self._key(points[-1])])
            n_epochs = LIAR_EPOCHS if has_rungs else len(self._curves[chosen[-1]].values)
            ends.append((now + n_epochs, number))
        return chosen

    def _known(
        self, number: int, points: Sequence[Params], chosen: Sequence[int], is_over: bool, has_rungs: bool
    ) -> KnownCell:
        values = self._curves[chosen[number]].values
        if not is_over:
            return KnownCell(number, points[number], "running")
        if has_rungs:
            return KnownCell(number, points[number], "climbing", LIAR_EPOCHS, max(values[:LIAR_EPOCHS]))
        return KnownCell(number, points[number], "complete", 0, max(values))

    def _places(self, cell: Mapping[str, Any]) -> dict[str, int]:
        return {name: self._values[name].index(value) for name, value in cell.items()}

    @staticmethod
    def _key(places: Mapping[str, Any]) -> str:
        return json.dumps(dict(sorted(places.items())))


def write(options: argparse.Namespace, answer: object) -> None:
    if options.json:
        options.json.write_text(json.dumps(answer, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="How long TPE thinks, and what few trials lose against the grid")
    commands = parser.add_subparsers(required=True)
    suggest = commands.add_parser("suggest", help="time claims of a study of TPE")
    suggest.add_argument("--finished", type=int, nargs="+", default=[10, 100, 1000])
    suggest.add_argument("--times", type=int, default=20)
    suggest.set_defaults(run=time_suggestions)
    regret = commands.add_parser("regret", help="few trials of recorded curves against all of them")
    regret.add_argument("files", type=Path, nargs="+", help="what `pruning.py record` wrote")
    regret.add_argument("--trials", type=int, default=40)
    regret.add_argument("--seeds", type=int, default=20)
    regret.add_argument("--workers", type=int, default=2)
    regret.set_defaults(run=compare_regrets)
    for command in (suggest, regret):
        command.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
