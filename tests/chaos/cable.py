"""A switch in user space, with cables that delay, that lose one way, and that forget connections.

Run as a program within a namespace, it carries frames between the interfaces that it is told of, so that no module of
the kernel is needed. It ends with its standard input.
"""

import heapq
import json
import os
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field

ANY_PROTOCOL = 3  # ETH_P_ALL of linux/if_ether.h
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
LONGEST_FRAME = 65_536  # bytes; of orders as well
Flow = tuple[bytes, bytes, bytes, bytes]


class Cables:
    """The switch, as a test handles it; started in the namespace of the calling thread."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def plug_in(self, host: str) -> None:
        """A new cable for a host, or the same after it was pulled; it is sound."""
        self._tell(host=host, do="plug in")

    def lose(self, host: str, sent: bool = False, received: bool = False) -> None:
        """Lose all that a host sends, or all that it should receive, or both, without a word to anybody; or neither."""
        self._tell(host=host, do="lose", sent=sent, received=received)

    def delay(self, host: str, seconds: float) -> None:
        """Let everything take so long, each way."""
        self._tell(host=host, do="delay", seconds=seconds)

    def forget(self, host: str) -> None:
        """Lose what belongs to any TCP connection that this host has had, as a firewall that forgot them does."""
        self._tell(host=host, do="forget")

    def stop(self) -> None:
        """End the switch."""
        self._process.kill()
        self._process.communicate()

    def _tell(self, **order: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer == "done\n", f"the switch must carry out {order}, but said {answer!r}"


@dataclass
class Cable:
    """One cable."""

    socket: socket.socket
    seconds: float = 0.0
    loses_sent: bool = False
    loses_received: bool = False
    flows: set[Flow] = field(default_factory=set)
    forgotten: set[Flow] = field(default_factory=set)

    def loses(self, frame: bytes, is_sent: bool) -> bool:
        """Whether a frame from the host, or for it, is lost."""
        if (flow := flow_of(frame)) is not None:
            if flow in self.forgotten:
                return True
            self.flows.add(flow)
        return self.loses_sent if is_sent else self.loses_received


def flow_of(frame: bytes) -> Flow | None:
    """The two ends of a TCP connection, in the same order for both ways; None of any other frame."""
    if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_TCP:
        return None
    start = 14 + 4 * (frame[14] & 15)
    first, second = sorted([(frame[26:30], frame[start : start + 2]), (frame[30:34], frame[start + 2 : start + 4])])
    return first + second


class Switch:
    """Carries frames until its orders end."""

    def __init__(self) -> None:
        self._cables: dict[str, Cable] = {}
        self._host_of: dict[bytes, str] = {}  # by address of the interface
        self._under_way: list[tuple[float, int, str, bytes]] = []
        self._n_frames = 0
        self._orders = b""

    def run(self) -> None:
        """Until the end of the standard input."""
        while True:
            sockets = {cable.socket: host for host, cable in self._cables.items()}
            left = max(0.0, self._under_way[0][0] - time.monotonic()) if self._under_way else None
            readable, _, _ = select.select([sys.stdin, *sockets], [], [], left)
            for found in readable:
                if isinstance(found, socket.socket):
                    self._take(sockets[found])
                elif not self._obey():
                    return
            while self._under_way and self._under_way[0][0] <= time.monotonic():
                _, _, host, frame = heapq.heappop(self._under_way)
                self._deliver(host, frame)

    def _take(self, host: str) -> None:
        cable = self._cables[host]
        try:
            frame = cable.socket.recv(LONGEST_FRAME)
        except OSError:  # the interface is down; `plug in` comes when it is up
            return
        self._host_of[frame[6:12]] = host
        if cable.loses(frame, is_sent=True):
            return
        known = self._host_of.get(frame[:6])
        for target in [known] if known is not None else self._cables.keys() - {host}:
            self._n_frames += 1
            seconds = cable.seconds + self._cables[target].seconds
            heapq.heappush(self._under_way, (time.monotonic() + seconds, self._n_frames, target, frame))

    def _deliver(self, host: str, frame: bytes) -> None:
        cable = self._cables[host]
        if not cable.loses(frame, is_sent=False):
            try:
                cable.socket.send(frame)
            except OSError:  # the interface is down, or was just removed
                return

    def _obey(self) -> bool:
        if not (read := os.read(sys.stdin.fileno(), LONGEST_FRAME)):
            return False
        *lines, self._orders = (self._orders + read).split(b"\n")
        for line in lines:
            self._carry_out(json.loads(line))
            sys.stdout.write("done\n")
            sys.stdout.flush()
        return True

    def _carry_out(self, order: dict[str, object]) -> None:
        host = str(order["host"])
        cable = self._cables.get(host)
        if order["do"] == "plug in":
            if cable is not None:
                cable.socket.close()
            self._cables[host] = Cable(open_port(host))
        elif cable is None:
            raise KeyError(host)
        elif order["do"] == "lose":
            cable.loses_sent, cable.loses_received = bool(order["sent"]), bool(order["received"])
        elif order["do"] == "delay":
            cable.seconds = float(str(order["seconds"]))
        else:
            cable.forgotten |= cable.flows


def port(host: str) -> str:
    """The interface of the switch in which the cable of a host ends."""
    return f"to-{host}"


def open_port(host: str) -> socket.socket:
    """A socket for the frames that come in from a host, and for others to send to it."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ANY_PROTOCOL))
    opened.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    opened.bind((port(host), 0))
    return opened


if __name__ == "__main__":
    Switch().run()
