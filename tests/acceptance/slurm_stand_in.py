"""A stand-in for Slurm on one machine: it starts the tasks of an array and sends them the signals that Slurm sends.

What it knows of the script's directives and of its own options: --array, --time, --signal=B:SIGNAL@SECONDS, --requeue,
--output. It returns once all tasks have ended, and prints one line of JSON for each thing that happens to a task.

From outside, files in the folder SLURM_STAND_IN make things happen to the task that their name ends with:
`requeue.ID` (made by `scontrol requeue`), `warn.ID` (as if the end of its time came near), `preempt.ID` (SIGCONT and
SIGTERM to all its processes, the grace, SIGKILL) and `crash.ID` (the node is gone: SIGKILL at once). A task that was
preempted or whose node crashed begins anew, by --requeue.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ARRAY_ID = 4711
GRACE_SECONDS = 30.0  # of a preempted task, and between SIGTERM and SIGKILL at the end of the time
POLL_SECONDS = 0.05
printing = threading.Lock()


def read_options(script: Path, typed: list[str]) -> dict[str, str]:
    """Those of the directives, then those of the command line."""
    directives = re.findall(r"^#SBATCH (--\S+)", script.read_text(), re.MULTILINE)
    pairs = (option.removeprefix("--").partition("=") for option in [*directives, *typed])
    return {name: value for name, _, value in pairs}


def seconds_of(time_limit: str) -> float:
    """Of `HH:MM:SS`."""
    hours, minutes, seconds = map(int, time_limit.split(":"))
    return hours * 3600.0 + minutes * 60.0 + seconds


class Task:
    """One task of the array, in a process group of its own.

    Args:
        number: Its index in the array.
        script: What it runs.
        options: Of sbatch, by name.
        arguments: The script's own.
        control: The folder through which things happen to it.
    """

    def __init__(self, number: int, script: Path, options: dict[str, str], arguments: list[str], control: Path) -> None:
        self._control = control
        self._process: subprocess.Popen[bytes] | None = None
        self.id = f"{ARRAY_ID}_{number}"
        self._command = ["bash", str(script), *arguments]
        self._options = options
        self._environment = {
            **os.environ,
            "SLURM_JOB_ID": str(ARRAY_ID + number),
            "SLURM_ARRAY_JOB_ID": str(ARRAY_ID),
            "SLURM_ARRAY_TASK_ID": str(number),
        }
        self._output = options["output"].replace("%A", str(ARRAY_ID)).replace("%a", str(number))

    def run(self) -> None:
        """Until it has ended and does not begin anew."""
        restarts = 0
        while self._run_once(restarts):
            restarts += 1

    def kill(self) -> int:
        """Leave nothing of it; returns the status of somebody who was told to."""
        if self._process is not None:
            self._signal(self._process, signal.SIGKILL)
        return 143

    def say(self, event: str, **more: object) -> None:
        """One line."""
        with printing:
            print(json.dumps({"task": self.id, "event": event, **more}), flush=True)

    def _run_once(self, restarts: int) -> bool:
        """Returns whether it begins anew."""
        environment = {**self._environment, **({"SLURM_RESTART_COUNT": str(restarts)} if restarts else {})}
        with Path(self._output).open("a") as output:
            process = subprocess.Popen(
                self._command, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self._process = process
        self.say("started", restarts=restarts)
        is_requeued = self._watch(process)
        self._signal(process, signal.SIGKILL)  # what the script left
        self._is_asked_for("requeue")
        self.say("ended", status=process.returncode, requeued=is_requeued)
        return is_requeued

    def _watch(self, process: "subprocess.Popen[bytes]") -> bool:
        began, is_warned, is_requeued = time.monotonic(), False, False
        name, _, early = self._options["signal"].removeprefix("B:").partition("@")
        limit = seconds_of(self._options["time"])
        while process.poll() is None:
            ran = time.monotonic() - began
            if self._is_asked_for("warn") or (not is_warned and ran >= limit - float(early)):
                is_warned = True
                self.say("warned", signal=name)
                process.send_signal(signal.Signals[f"SIG{name}"])  # B: to the script alone
            if ran >= limit:
                self.say("out of time")
                self._end(process, signal.SIGTERM)
            for happening in ("requeue", "preempt", "crash"):
                if self._is_asked_for(happening):
                    is_requeued = "requeue" in self._options or happening == "requeue"
                    self.say(happening)
                    self._end(process, signal.SIGKILL if happening == "crash" else signal.SIGTERM)
            time.sleep(POLL_SECONDS)
        return is_requeued

    def _end(self, process: "subprocess.Popen[bytes]", signum: int) -> None:
        """Send a signal to all processes of the task, and SIGKILL after the grace."""
        if signum == signal.SIGTERM:
            self._signal(process, signal.SIGCONT)
        self._signal(process, signum)
        deadline = time.monotonic() + GRACE_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if self._is_asked_for("requeue"):
                self._signal(process, signal.SIGTERM)
            time.sleep(POLL_SECONDS)
        self._signal(process, signal.SIGKILL)
        process.wait()

    def _is_asked_for(self, happening: str) -> bool:
        """Whether its file is there, which is then removed."""
        try:
            (self._control / f"{happening}.{self.id}").unlink()
        except FileNotFoundError:
            return False
        return True

    def _signal(self, process: "subprocess.Popen[bytes]", signum: int) -> None:
        try:
            os.killpg(process.pid, signum)
        except ProcessLookupError:
            return


def main() -> None:
    """Run an array to its end."""
    position = next(n for n, argument in enumerate(sys.argv) if n > 0 and not argument.startswith("--"))
    typed, script, own = sys.argv[1:position], Path(sys.argv[position]), sys.argv[position + 1 :]
    options = read_options(script, typed)
    control = Path(os.environ["SLURM_STAND_IN"])
    copy = control / "slurm_script"  # Slurm runs a copy as well
    shutil.copyfile(script, copy)
    first, _, last = options["array"].partition("-")
    tasks = [Task(number, copy, options, own, control) for number in range(int(first), int(last or first) + 1)]
    threads = [threading.Thread(target=task.run) for task in tasks]
    signal.signal(signal.SIGTERM, lambda *_: os._exit(max(task.kill() for task in tasks)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
