"""Podman with settings, images, state and a network namespace of its own; the machine's are neither read nor changed.

Knows nothing of pytest. Needs root and the packages of `INSTALL`.

Environment:
    FMNIST_TEST_IMAGE_FOLDER: Where images, their layers and pip's downloads stay between runs (about 8 GB); by default
        /var/tmp/fmnist-optuna-image.
"""

import ast
import contextlib
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = "FMNIST_TEST_IMAGE_FOLDER"
DEFAULT_FOLDER = "/var/tmp/fmnist-optuna-image"
RUN_FOLDER = Path("/run/fmnist-optuna-image")  # gone after a reboot, as podman expects of its state
HELPERS = Path("/usr/lib/podman")
PROGRAMS = ("podman", "runc", "conmon", "iptables", "ip", "nsenter", "catatonit", "debootstrap")
INSTALL = (
    "apt-get install --no-install-recommends podman runc netavark aardvark-dns iptables iproute2 catatonit debootstrap"
)
# Bridges, firewall rules and forwarding are made within it and go with it; published ports are its own.
NETWORK = "fmnist-image"
INSIDE = ("nsenter", f"--net=/run/netns/{NETWORK}")
BASE = "localhost/python-base:bookworm"
BUILD_SECONDS = 1800.0  # downloads TensorFlow, 570 MB, the first time
COMMAND_SECONDS = 300.0
MAX_FILES = 4096  # open files and processes of a container, where the machine allows more
# runc, as crun refuses a machine with both versions of cgroups; cgroupfs and a log file, as there may be no systemd.
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={files}:{files}"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
helper_binaries_dir = ["{helpers}"]
tmp_dir = "{run}/libpod"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""
STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "{folder}/storage"
runroot = "{run}/storage"
"""
PASSED_ON = ("cert", "index-url", "extra-index-url", "trusted-host", "proxy", "timeout")  # of pip's settings


class NoEngineError(Exception):
    """Containers cannot be run here, and why."""


class Engine:
    """Podman for one test session.

    Raises:
        NoEngineError: Containers cannot be run here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
        missing += [name for name in ("netavark", "aardvark-dns") if not (HELPERS / name).exists()]
        if missing:
            raise NoEngineError(f"{', '.join(missing)} must be there; {INSTALL}")
        if os.geteuid() != 0:
            raise NoEngineError("root must run it: networks, overlay mounts and debootstrap need it")
        for name in ("networks", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        RUN_FOLDER.mkdir(exist_ok=True)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
        names = {"folder": folder, "run": RUN_FOLDER, "helpers": HELPERS, "files": files}
        (folder / "containers.conf").write_text(CONTAINERS_CONF.format(**names))
        (folder / "storage.conf").write_text(STORAGE_CONF.format(**names))

    @property
    def environment(self) -> dict[str, str]:
        """The variables under which podman, and what calls it, work in our folder alone."""
        return {
            **os.environ,
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "DISABLE_HC_SYSTEMD": "true",  # health checks are run by the tests: there may be no systemd
            "TMPDIR": str(self.folder / "tmp"),
        }

    def run(self, *command: str | Path, seconds: float = COMMAND_SECONDS) -> str:
        """Standard output of a command that must succeed."""
        return succeed(command, self._do(command, None, seconds))

    def run_inside(self, *command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """What a command answered that sees the containers' network."""
        return self._do((*INSIDE, *command), cwd, COMMAND_SECONDS)

    def _do(
        self, command: tuple[str | Path, ...], cwd: Path | None, seconds: float
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=cwd, env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip

    def podman(self, *arguments: str | Path) -> str:
        """Standard output of a podman command that must succeed."""
        return succeed(arguments, self.run_inside("podman", *arguments))

    def inspect(self, container: str) -> dict[str, Any]:
        """What podman knows of a container."""
        found: dict[str, Any] = json.loads(self.podman("inspect", container))[0]
        return found

    def make_base(self) -> None:
        """An image with Python, made once."""
        if self.run_inside("podman", "image", "exists", BASE).returncode != 0:
            self.run("bash", Path(__file__).with_name("make_base.sh"), BASE, seconds=BUILD_SECONDS)

    def build(self, name: str, file: Path, context: Path) -> None:
        """Build an image on our base; unchanged layers are those of the last time."""
        config = self.folder / "pip.conf"
        mounts = [f"{config}:/etc/pip.conf:ro"]
        settings = read_pip_settings()
        config.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
        if certificates := settings.get("cert"):
            mounts.append(f"{certificates}:{certificates}:ro")
        volumes = [part for mount in mounts for part in ("--volume", mount)]
        self.run(
            *("podman", "build", "--layers", "--network=host", *volumes, "--build-arg", f"BASE={BASE}"),
            *("--tag", name, "--file", file, context),
            seconds=BUILD_SECONDS,
        )

    def open(self) -> None:
        """Make the network namespace and see whether podman runs.

        Raises:
            NoEngineError: It does not.
        """
        if not Path("/run/netns", NETWORK).exists():
            self.run("ip", "netns", "add", NETWORK)
        self.run("ip", "-netns", NETWORK, "link", "set", "lo", "up")
        if (checked := self.run_inside("podman", "info")).returncode != 0:
            raise NoEngineError(f"podman must run, but says {checked.stderr.strip()[-500:]}")

    def empty(self) -> None:
        """Remove every container, volume and network."""
        if containers := self.podman("ps", "--all", "--quiet").split():
            self.podman("rm", "--force", "--volumes", "--time=5", *containers)
        if volumes := self.podman("volume", "ls", "--quiet").split():
            self.podman("volume", "rm", "--force", *volumes)
        networks = set(self.podman("network", "ls", "--format", "{{.Name}}").split()) - {"podman"}
        if networks:
            self.podman("network", "rm", *sorted(networks))

    def close(self) -> None:
        """Remove everything but the images: namespace, mounts and state too."""
        self.empty()
        self.run("ip", "netns", "delete", NETWORK)
        layers = self.folder / "storage" / "overlay"
        if layers.is_mount():
            self.run("umount", "--recursive", layers)
        shutil.rmtree(RUN_FOLDER)


def succeed(command: tuple[str | Path, ...], done: subprocess.CompletedProcess[str]) -> str:
    """Standard output of a command that must have succeeded."""
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    return done.stdout


def read_pip_settings() -> dict[str, str]:
    """How this machine reaches the package index: pip's settings without folders of this machine's own."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip
    settings: dict[str, str] = {}
    for line in listed.splitlines():  # global.cert='/etc/ssl/certs/ca-certificates.crt'
        name, _, value = line.partition("=")
        key, text = name.rpartition(".")[2], str(ast.literal_eval(value))
        if key in PASSED_ON and "file:" not in text:
            settings.setdefault(key, text)  # variables are listed first, and win
    return settings


@contextlib.contextmanager
def running_engine() -> Iterator[Engine]:
    """Podman within the block, for one session at a time.

    Raises:
        NoEngineError: Containers cannot be run here.
    """
    folder = Path(os.environ.get(FOLDER, DEFAULT_FOLDER)).absolute()
    engine = Engine(folder)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        engine.open()
        engine.empty()  # of what a killed session left
        try:
            yield engine
        finally:
            engine.close()
