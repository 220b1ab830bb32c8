"""A TCP proxy on loopback that delivers every byte late: a network between workers and database, on one machine."""

import asyncio
import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from typing import Any

from sqlalchemy import make_url

CHUNK_BYTES = 65_536


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
    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * seconds)  # of the handshake
        try:
            to_reader, to_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_carry(reader, to_writer, seconds), _carry(to_reader, writer, seconds))

    server = await asyncio.start_server(connect, "127.0.0.1", 0, backlog=1024)
    sender.send(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Pass on what comes, each piece so many seconds after it came."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            loop.call_later(seconds, writer.write, data)
    loop.call_later(seconds, writer.close)
