"""Network namespaces as hosts on one wire, made and removed by a test; needs root and `ip` of iproute2.

Each host has an address of a range that is for tests alone (RFC 2544) and exists within these namespaces only. All
cables end in one more namespace, in which the program of `cable` carries the frames from host to host.
"""

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from cable import Cables, port

PREFIX = "fmnist"  # a namespace is named after this, the pid of the test and the host
FOLDER = Path("/run/netns")
WIRE = "wire"
RANGE = "198.18.77.0/24"
ADDRESS = "198.18.77.{}"
CLONE_NEWNET = 0x40000000
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17  # of linux/sockios.h and linux/ethtool.h

libc = ctypes.CDLL(None, use_errno=True)


class NoNetworkError(Exception):
    """No namespace can be made here, and why."""


class IpError(Exception):
    """What `ip` was asked for, and what it said."""


def ip(*arguments: str) -> str:
    """Run `ip`; returns what it prints.

    Raises:
        IpError: It failed.
    """
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise IpError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


class Network:
    """Hosts that are joined by cables, without any process in them yet; at the end of the `with` block all is gone.

    Args:
        hosts: Their names, a few letters each.

    Raises:
        NoNetworkError: There are no rights or no programs for it.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
            raise NoNetworkError("it takes Linux, root, and the program ip (apt-get install iproute2)")
        remove_leftovers()
        self._hosts = hosts
        self.cables: Cables
        try:
            ip("netns", "add", self.name(WIRE))
        except IpError as error:
            raise NoNetworkError(f"no namespace can be made: {error}") from error

    def name(self, host: str) -> str:
        """Of a host's namespace."""
        return f"{PREFIX}-{os.getpid()}-{host}"

    def address(self, host: str) -> str:
        """Of a host."""
        return ADDRESS.format(self._hosts.index(host) + 1)

    def plug_in(self, host: str) -> None:
        """Make the namespace of a host, and its cable."""
        name = self.name(host)
        ip("netns", "add", name)
        ip("link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", port(host), "netns", self.name(WIRE))
        with inside(name):
            ip("address", "add", f"{self.address(host)}/24", "dev", "eth0")
            compute_checksums("eth0")
            ip("link", "set", "lo", "up")
            ip("link", "set", "eth0", "up")
        with inside(self.name(WIRE)):
            ip("link", "set", port(host), "up")
        self.cables.plug_in(host)

    def remove(self, host: str) -> None:
        """Remove the namespace of a host that runs no process any more; its cable goes with it."""
        ip("netns", "delete", self.name(host))
        with inside(self.name(WIRE)), contextlib.suppress(IpError):  # the kernel may have been faster
            ip("link", "delete", port(host))

    def set_link(self, host: str, state: str) -> None:
        """Pull the cable of a host out of the switch, "down", or plug it in again, "up": the host sees no carrier."""
        with inside(self.name(WIRE)):
            ip("link", "set", port(host), state)
        if state == "up":
            self.cables.plug_in(host)

    def set_interface(self, host: str, state: str) -> None:
        """Take the interface of a host down, with which it has no route any more, or up again."""
        with inside(self.name(host)):
            ip("link", "set", "eth0", state)

    def __enter__(self) -> "Network":
        try:
            with inside(self.name(WIRE)):
                self.cables = Cables()
            for host in self._hosts:
                self.plug_in(host)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if "cables" in vars(self):
            self.cables.stop()
        for host in (*self._hosts, WIRE):
            with contextlib.suppress(IpError):
                ip("netns", "delete", self.name(host))


def remove_leftovers() -> None:
    """Remove the namespaces, and the processes in them, of tests that were killed."""
    for path in FOLDER.glob(f"{PREFIX}-*"):
        found = re.fullmatch(rf"{PREFIX}-(\d+)-\w+", path.name)
        if found is None or psutil.pid_exists(int(found[1])):
            continue
        with contextlib.suppress(IpError):  # where it was not made to its end
            for pid in ip("netns", "pids", path.name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        with contextlib.suppress(IpError):
            ip("netns", "delete", path.name)


def enter(namespace: str) -> None:
    """Let this thread, and what it starts, be in a network namespace.

    Raises:
        OSError: It may not, or there is none.
    """
    with (FOLDER / namespace).open() as file:
        _set_namespace(file.fileno())


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Within this block, this thread and what it starts are in a network namespace."""
    with Path("/proc/thread-self/ns/net").open() as before:
        enter(namespace)
        try:
            yield
        finally:
            _set_namespace(before.fileno())


def _set_namespace(descriptor: int) -> None:
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def compute_checksums(interface: str) -> None:
    """Let the kernel compute the checksums of what it sends here: no hardware comes after it that would."""
    value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_STXCSUM, 0))
    with socket.socket() as asked:
        fcntl.ioctl(asked, SIOCETHTOOL, struct.pack("16sP", interface.encode(), ctypes.addressof(value)) + b"\0" * 16)
