"""A real Ray cluster of several nodes on this machine, in a folder of its own; ended by the pids of its processes."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

RAY = Path(sys.executable).with_name("ray")
STARTED = "Ray runtime started"
START_SECONDS = 180.0  # on a busy machine
ADDRESS = "127.0.0.1"
# No port, socket or token of another cluster of this user is met; workers run as fast as the tests do.
VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
MEMORY = str(80 * 2**20)  # bytes, of a node's object store; it needs none


@dataclass
class Cluster:
    """Nodes that run.

    Args:
        folder: Of Ray's sessions: its logs, and what it keeps beside them.
        environment: Of every node.
    """

    folder: Path
    environment: dict[str, str]
    port: int
    dashboard_port: int
    client_port: int
    nodes: list["psutil.Popen"] = field(default_factory=list)

    @property
    def address(self) -> str:
        """As `run --ray` takes it."""
        return f"{ADDRESS}:{self.port}"

    def start_head(self, n_cpus: int) -> None:
        """The first node."""
        self._start(
            "--head", "--port", str(self.port), "--dashboard-host", ADDRESS, "--include-dashboard", "true",
            "--dashboard-port", str(self.dashboard_port), "--ray-client-server-port", str(self.client_port),
            "--num-cpus", str(n_cpus),
        )  # fmt: skip

    def start_node(self, n_cpus: int) -> None:
        """A further one."""
        self._start("--address", self.address, "--num-cpus", str(n_cpus))

    def _start(self, *arguments: str) -> None:
        output = self.folder / f"node-{len(self.nodes)}.out"
        command = [RAY, "start", "--block", "--node-ip-address", ADDRESS, "--object-store-memory", MEMORY]
        command += ["--temp-dir", self.folder / "ray", *arguments]
        with output.open("wb") as stream:
            node = psutil.Popen(
                list(map(str, command)), env=self.environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                process_group=0,
            )  # fmt: skip
        self.nodes.append(node)
        until = time.monotonic() + START_SECONDS
        while STARTED not in output.read_text():
            assert node.poll() is None, output.read_text()
            assert time.monotonic() < until, output.read_text()
            time.sleep(0.1)

    def kill_node(self, number: int) -> None:
        """Kill all processes of a node at once, as when its machine is lost."""
        node = self.nodes[number]
        with contextlib.suppress(psutil.NoSuchProcess):
            processes = [node, *node.children(recursive=True)]
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        node.wait()

    def ask(self, path: str) -> Any:
        """What the dashboard answers."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{ADDRESS}:{self.dashboard_port}{path}", timeout=60) as answer:
            return json.loads(answer.read())

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """Every file of the sessions, by its name."""
        for path in (self.folder / "ray").rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield str(path), path.read_bytes()


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """An empty cluster; afterwards none of its processes is left.

    Args:
        folder: With a short path, as Ray makes sockets in it.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "FMNIST_"))}
    home = folder / "home"
    home.mkdir()
    environment |= {**VARIABLES, "HOME": str(home)}
    port, dashboard_port, client_port = free_ports(3)
    cluster = Cluster(folder, environment, port, dashboard_port, client_port)
    try:
        yield cluster
    finally:
        for number in reversed(range(len(cluster.nodes))):
            cluster.kill_node(number)


def free_ports(n_ports: int) -> list[int]:
    """Ports of this machine where nobody listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n_ports)]
        for each in sockets:
            each.bind((ADDRESS, 0))
        return [int(each.getsockname()[1]) for each in sockets]
