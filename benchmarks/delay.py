"""A TCP proxy on loopback that delivers every byte late: a network between workers and database, on one machine."""

import asyncio
import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from typing import Any, cast

from sqlalchemy import make_url


@contextlib.contextmanager
def delayed(url: str, round_trip_seconds: float) -> Iterator[str]:
    """URL of a proxy before the database of another URL; the same URL without a delay."""
    if round_trip_seconds == 0:
        yield url
        return
    target = make_url(url)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    arguments = (str(target.host), int(target.port or 5432), round_trip_seconds / 2, sender)
    process = context.Process(target=_serve, args=arguments, daemon=True)
    process.start()
    try:
        yield target.set(host="127.0.0.1", port=receiver.recv()).render_as_string(hide_password=False)
    finally:
        process.terminate()
        process.join()


def _serve(host: str, port: int, seconds: float, sender: Any) -> None:
    with contextlib.suppress(PermissionError):
        os.nice(-5)  # the network has a processor of its own
    asyncio.run(_listen(host, port, seconds, sender))


async def _listen(host: str, port: int, seconds: float, sender: Any) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Near(host, port, seconds), "127.0.0.1", 0, backlog=1024)
    sender.send(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


class _Side(asyncio.Protocol):
    """One end of a connection: passes on what comes, each piece so many seconds after it came.

    A protocol, and not a pair of streams, which take more of the processor that workers and server share.
    """

    transport: asyncio.Transport
    other: "_Side"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self._seconds, self.other.transport.write, data)

    def connection_lost(self, _error: Exception | None) -> None:
        if hasattr(self, "other"):
            asyncio.get_running_loop().call_later(self._seconds, self.other.transport.close)


class _Near(_Side):
    """The end that the client sees; what it sends waits until the server is connected."""

    def __init__(self, host: str, port: int, seconds: float) -> None:
        super().__init__(seconds)
        self._target = host, port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        await asyncio.sleep(2 * self._seconds)  # of the handshake
        far = _Side(self._seconds)
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, *self._target)
        except OSError:
            self.transport.close()
            return
        self.other, far.other = far, self
        if self.transport.is_closing():
            far.transport.close()
        else:
            self.transport.resume_reading()
