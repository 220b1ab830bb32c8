"""A host: processes with a network, a name, a boot and pids of their own, which a power cut ends all at once."""

import ctypes
import multiprocessing
import os
import signal
import socket
import subprocess
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
from network import Network, enter, libc
from victims import start

from fmnist_optuna.ledger.holders import host_identity

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWPID = 0x20000, 0x4000000, 0x20000000
PR_SET_PDEATHSIG = 1
BOOT_ID = "/proc/sys/kernel/random/boot_id"
LOOK_SECONDS = 0.05  # between looks for processes that have ended


class Host:
    """One that is on; its processes see no process of any other.

    Args:
        network: Which has its namespace.
        name: Of the host.
        folder: For its boot id, and for what its processes write to standard error.
    """

    def __init__(self, network: Network, name: str, folder: Path) -> None:
        self._network, self._name, self._folder = network, name, folder
        self._errors = folder / f"errors-{name}"
        self._codes: dict[int, int] = {}
        self._switch_on()

    def _switch_on(self) -> None:
        boot = self._folder / f"boot-{self._name}"
        boot.write_text(f"{uuid.uuid4()}\n")
        self._orders, theirs = multiprocessing.Pipe()
        self._process = start(run_host, self._network.name(self._name), self._name, boot, theirs)
        theirs.close()
        self._init = int(self._orders.recv())  # the pid, outside, of its first process

    def start(self, target: Callable[..., None], *arguments: Any) -> int:
        """A process that calls a function, in the current folder of the test; returns its pid on that host."""
        self._orders.send((target, arguments, Path.cwd(), self._errors))
        while not isinstance(said := self._receive(None), int):
            self._codes[said[0]] = said[1]
        return said

    def join(self, pid: int, seconds: float) -> int | None:
        """Wait for the end of a process; returns its exit status, None if it still runs by then."""
        until = time.monotonic() + seconds
        while pid not in self._codes and (left := until - time.monotonic()) > 0:
            said = self._receive(left)
            if isinstance(said, tuple):
                self._codes[said[0]] = said[1]
        return self._codes.get(pid)

    def is_stopped(self, pid: int) -> bool:
        """Whether a process of the host stands still, as after SIGSTOP."""
        children = psutil.Process(self._init).children()
        return [child.status() for child in children if _pid_inside(child.pid) == pid] == [psutil.STATUS_STOPPED]

    def _receive(self, seconds: float | None) -> Any:
        return self._orders.recv() if self._orders.poll(seconds) else None

    @property
    def errors(self) -> str:
        """What its processes wrote to standard error since it was switched on."""
        return self._errors.read_text() if self._errors.exists() else ""

    def cut_power(self) -> None:
        """End all its processes at once; nobody on the network hears of it."""
        self._network.cables.lose(self._name, sent=True, received=True)
        self.stop()
        self._network.remove(self._name)

    def boot(self) -> None:
        """Switch it on again, with the same name and address and another boot."""
        self._network.plug_in(self._name)
        self._switch_on()

    def restart(self) -> None:
        """End all its processes, and let it be on again."""
        self.stop()
        self._switch_on()

    def stop(self) -> None:
        """End all its processes."""
        if self._process.is_alive():
            os.kill(self._init, signal.SIGKILL)  # and with it, before it is gone itself, all others of its namespace
        self._process.join()
        self._orders.close()
        self._errors.unlink(missing_ok=True)
        self._codes.clear()


def _pid_inside(pid: int) -> int:
    """The pid that a process has within its own namespace."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("NSpid:")).split()[-1])


def run_host(namespace: str, name: str, boot: Path, orders: Connection) -> None:
    """The life of a host, in a process that is outside of it."""
    enter(namespace)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if (pid := os.fork()) == 0:
        try:
            _be_first_process(name, boot, orders)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    orders.send(pid)
    os.waitpid(pid, 0)


def _be_first_process(name: str, boot: Path, orders: Connection) -> None:
    """Start what is ordered and say how it ended, until nobody orders any more."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    socket.sethostname(name)
    for arguments in (["--make-rprivate", "/"], ["-t", "proc", "proc", "/proc"], ["--bind", str(boot), BOOT_ID]):
        subprocess.run(["mount", *arguments], check=True)
    host_identity.cache_clear()
    while True:
        if orders.poll(LOOK_SECONDS):
            try:
                order = orders.recv()
            except EOFError:
                return
            orders.send(_fork(*order))
        while (ended := _reap()) is not None:
            orders.send(ended)


def _fork(target: Callable[..., None], arguments: Sequence[Any], folder: Path, errors: Path) -> int:
    if (pid := os.fork()) > 0:
        return pid
    os.chdir(folder)
    with errors.open("a") as file:
        os.dup2(file.fileno(), 2)
    try:
        target(*arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _reap() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def execute(command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Become another program."""
    os.execvpe(command[0], list(command), {**os.environ, **variables})
