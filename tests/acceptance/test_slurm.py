"""deploy/slurm/study.sbatch, run by a stand-in for sbatch that sends the signals that Slurm sends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from documents import parse_command
from shell import COMMAND, PACE, Shell
from slurm_stand_in import ARRAY_ID

from fmnist_optuna.statuses import Status

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "slurm" / "study.sbatch"
STAND_IN = Path(__file__).with_name("slurm")
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
STUDY_SECONDS = 240.0  # on two busy cores
STUDY = """\
name = "small"
[data]
source = "synthetic"
[grid]
hidden_size = [16, 32]
dropout_rate = [0.2]
learning_rate = [0.01]
[training]
max_epochs = 60
patience = 60
checkpoint_seconds = 1
callbacks = ["pace:make"]
[pruner]
name = "none"
"""


@dataclass(frozen=True)
class Slurm:
    """A folder from which arrays are submitted to the stand-in.

    Args:
        folder: The current one.
        path: Where commands are found after sbatch and scontrol.
    """

    folder: Path
    path: Path

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """`sbatch` with the script's own options left as they are, but for those that are given."""
        control = self.folder / "control"
        control.mkdir()
        environment = {
            **Shell(self.folder).environment,
            "PATH": os.pathsep.join([str(STAND_IN), str(self.path), os.environ["PATH"]]),
            "STAND_IN_PYTHON": sys.executable,
            "SLURM_STAND_IN": str(control),
        }
        with (self.folder / "events").open("w") as events:
            return subprocess.Popen(["sbatch", *arguments], cwd=self.folder, env=environment, stdout=events)

    def __call__(self, *arguments: str) -> list[dict[str, Any]]:
        """The same, until all tasks have ended; returns what happened."""
        assert self.start(*arguments).wait(STUDY_SECONDS) == 0
        return self.events()

    def events(self) -> list[dict[str, Any]]:
        """What happened so far."""
        return [json.loads(line) for line in (self.folder / "events").read_text().splitlines()]

    def happen(self, what: str, task: int) -> None:
        """Let something happen to a task."""
        (self.folder / "control" / f"{what}.{ARRAY_ID}_{task}").touch()

    def wait_for(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + STUDY_SECONDS
        while not is_so():
            assert time.monotonic() < deadline, f"{what}: {self.events()}\n{self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        """What the tasks wrote."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


def test_the_script_is_well_written() -> None:
    """By shellcheck."""
    done = subprocess.run([SHELLCHECK, SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_command_is_one_of_ours() -> None:
    """Parsed by the command line itself, with the study that is named when the script is submitted."""
    (line,) = [line for line in SCRIPT.read_text().splitlines() if line.startswith("fmnist-optuna ")]
    words = line.removesuffix(" &").split()[1:]
    assert parse_command(["small" if word == '"$@"' else word for word in words])["study"] == "small"


def test_slurm_warns_early_enough() -> None:
    """A minute before the end, by a signal that a worker leaves at; its grace of ten seconds fits in."""
    directives = [line.split()[1] for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH ")]
    assert {"--signal=B:USR1@60", "--requeue", "--open-mode=append"} <= set(directives)
    assert parse_command(["worker"])["grace"] == "10s"


@pytest.mark.cluster
@pytest.mark.parametrize("status", list(Status), ids=lambda status: status.name)
def test_a_task_waits_again_where_that_helps(tmp_path: Path, status: Status) -> None:
    """By the one table, for a worker that ends with each status once, and then with 0."""
    worker = tmp_path / "fmnist-optuna"
    worker.write_text(
        f'#!/bin/bash\n[ "$*" = "worker small" ] || exit 99\n[ "$SLURM_RESTART_COUNT" ] || exit {status}\n'
    )
    worker.chmod(0o755)
    events = Slurm(tmp_path, tmp_path)("--array=1-1", str(SCRIPT), "small")
    ends = [(event["status"], event["requeued"]) for event in events if event["event"] == "ended"]
    assert ends == ([(status, True), (0, False)] if status.is_healed_by_restart else [(status, False)])


@pytest.mark.cluster
def test_a_worker_that_always_fails_is_not_started_for_ever(tmp_path: Path) -> None:
    """Twenty times, and then the task has failed."""
    worker = tmp_path / "fmnist-optuna"
    worker.write_text("#!/bin/bash\nexit 1\n")
    worker.chmod(0o755)
    events = Slurm(tmp_path, tmp_path)("--array=1-1", str(SCRIPT), "small")
    ends = [(event["status"], event["requeued"]) for event in events if event["event"] == "ended"]
    assert ends == [(1, True)] * 20 + [(1, False)]


@pytest.mark.cluster
def test_a_warning_comes_before_the_time_is_over(tmp_path: Path) -> None:
    """The stand-in's clock: a worker that heeds the signal ends with 75 in time, and the next one has as much again."""
    worker = tmp_path / "fmnist-optuna"
    worker.write_text("#!/bin/bash\n[ \"$SLURM_RESTART_COUNT\" ] && exit 0\ntrap 'exit 75' USR1\nsleep 30 & wait\n")
    worker.chmod(0o755)
    events = Slurm(tmp_path, tmp_path)("--array=1-1", "--time=00:00:03", "--signal=B:USR1@2", str(SCRIPT), "small")
    assert [event["event"] for event in events] == ["started", "warned", "requeue", "ended", "started", "ended"]
    assert [event["status"] for event in events if event["event"] == "ended"] == [75, 0]


@contextlib.contextmanager
def running(slurm: Slurm, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """An array within the block; nothing of it is left."""
    process = slurm.start(*arguments)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@pytest.mark.cluster
def test_a_study_comes_through_warnings_and_crashes(tmp_path: Path) -> None:
    """Two tasks are warned, then one is preempted and one loses its node; every cell has one result, none has failed.

    The signals are real, and so are the workers: each cell goes on from its checkpoint.
    """
    shell, slurm = Shell(tmp_path), Slurm(tmp_path, COMMAND.parent)
    shell.write("pace.py", PACE)
    shell.write("pace", "1.0")
    assert shell("init", shell.write("study.toml", STUDY)).code == 0

    def trained() -> set[int]:
        """The attempts that are at work and have done two epochs, of which the first is in a checkpoint."""
        found = shell.query(
            "SELECT trial_id FROM fmnist_cells JOIN fmnist_epochs USING (trial_id) WHERE state = 'running' "
            "GROUP BY trial_id HAVING count(*) >= 2"
        )
        return {trial_id for (trial_id,) in found}

    with running(slurm, "--array=1-2", str(SCRIPT), "small") as array:
        slurm.wait_for(lambda: len(trained()) == 2, "both workers train")
        before = trained()
        slurm.happen("warn", 1)
        slurm.happen("warn", 2)
        slurm.wait_for(lambda: len(ends_of(slurm)) == 2, "both tasks are warned")
        slurm.wait_for(lambda: len(trained() - before) == 2, "both workers train again")
        slurm.happen("preempt", 1)
        slurm.happen("crash", 2)
        slurm.wait_for(lambda: len(ends_of(slurm)) == 4, "one task is preempted, one is gone")
        (tmp_path / "pace").unlink()
        assert array.wait(STUDY_SECONDS) == 0
    ends = ends_of(slurm)
    assert sorted(ends[:2]) == [(1, Status.HANDED_BACK, True), (2, Status.HANDED_BACK, True)], slurm.logs()
    assert (1, Status.HANDED_BACK, True) in ends[2:], slurm.logs()
    assert (2, -signal.SIGKILL, True) in ends[2:], slurm.logs()
    assert sorted(ends[4:]) == [(1, Status.DONE, False), (2, Status.DONE, False)], slurm.logs()
    assert {event["signal"] for event in slurm.events() if event["event"] == "warned"} == {"USR1"}
    proof = shell("verify", "--json").json
    assert (proof["ok"], proof["results"], proof["failed"]) == (True, 2, 0)
    assert shell.query("SELECT sum(failures), count(*) FROM fmnist_cells WHERE lost <= 1") == [(0, 2)]
    going_on = (
        "SELECT count(DISTINCT trial_id) FROM trial_user_attributes WHERE key = 'kept_epochs' AND value_json <> '0'"
    )
    assert shell.query(going_on) == [(4,)]  # after two warnings, a preemption and a crash


def ends_of(slurm: Slurm) -> list[tuple[int, int, bool]]:
    """Task, status and whether it begins anew, of each end in its order."""
    return [
        (int(event["task"].rpartition("_")[2]), event["status"], event["requeued"])
        for event in slurm.events()
        if event["event"] == "ended"
    ]
