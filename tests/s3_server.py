"""A server that speaks S3, moto's, in a process of its own on a free port of 127.0.0.1; ended by its pid.

It keeps everything in its memory. A relay before it can refuse connections, or say that it has too much to do.
"""

import contextlib
import functools
import http.client
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

START_SECONDS = 30.0
BUCKET = "studies"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST", "AWS_SECRET_ACCESS_KEY": "s3cret/of+the/tests"}


class S3Server:
    """One server with one bucket."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.start()

    @property
    def url(self) -> str:
        """Of the bucket, with a prefix."""
        return f"s3://{BUCKET}/garments?endpoint={self.endpoint}"

    @property
    def variables(self) -> dict[str, str]:
        """What whoever asks the server needs in the environment, without any file of the user's."""
        return {**KEYS, "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "NO_PROXY": "*"}

    def start(self) -> None:
        """Start, with an empty bucket."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask("PUT", f"/{BUCKET}")
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        """End the process; all that it kept is gone."""
        self.process.kill()
        self.process.wait()

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
        """One request as the server takes it from anybody; the answer's body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            return connection.getresponse().read()

    @functools.cached_property
    def client(self) -> Any:
        """A client of boto3, as a person's own program has it."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )

    def empty(self) -> None:
        """Remove every object."""
        for key in self.list_keys():
            self.client.delete_object(Bucket=BUCKET, Key=key)

    def list_keys(self) -> list[str]:
        """Of all objects in the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return sorted(each["Key"] for page in pages for each in page.get("Contents", ()))


class Relay:
    """What stands between whoever asks and the server, on a port of its own.

    Attributes:
        n_slow: Requests to be answered with 503 SlowDown from here on.
        n_asked: Requests that came.
    """

    def __init__(self, server: S3Server) -> None:
        self.n_slow = self.n_asked = 0
        self._server = server
        self._listener = self._listen(0)
        self.port = int(self._listener.server_address[1])
        self.url = f"s3://{BUCKET}/garments?endpoint=http://127.0.0.1:{self.port}"

    def refuse(self) -> None:
        """Refuse connections from here on."""
        self._listener.shutdown()
        self._listener.server_close()

    def accept(self) -> None:
        """Accept them again, at the same port."""
        self._listener = self._listen(self.port)

    def _listen(self, port: int) -> http.server.ThreadingHTTPServer:
        relay = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, headers, content = relay.pass_on(self.command, self.path, body, dict(self.headers))
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                        self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer  # noqa: N815 - as the server calls them

            def log_message(self, *_: object) -> None:
                """Nothing."""

        listener = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
        return listener

    def pass_on(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask the server, unless there is too much to do: status, headers and body of the answer."""
        self.n_asked += 1
        if self.n_slow > 0:
            self.n_slow -= 1
            return 503, {"Content-Type": "application/xml"}, b"<Error><Code>SlowDown</Code></Error>"
        headers.pop("Expect", None)
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()


class HalfRelay:
    """Passes the first bytes of one connection on to the server, and no more until the block ends.

    Attributes:
        is_half: Set once so many were passed on.
    """

    def __init__(self, server: S3Server, n_bytes: int) -> None:
        self.is_half = threading.Event()
        self._server, self._left = server, n_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"s3://{BUCKET}/garments?endpoint=http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._near: socket.socket | None = None
        self._far = socket.create_connection(("127.0.0.1", self._server.port))
        threading.Thread(target=self._take, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._near, self._far, self._listener):
            if each is not None:
                each.close()

    def _take(self) -> None:
        self._near, _ = self._listener.accept()
        threading.Thread(target=self._answer, args=(self._near,), daemon=True).start()
        while self._left > 0 and (part := self._near.recv(min(self._left, 2**16))):
            self._far.sendall(part)
            self._left -= len(part)
        self.is_half.set()

    def _answer(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while part := self._far.recv(2**16):
                near.sendall(part)


@contextlib.contextmanager
def running_s3() -> Iterator[S3Server]:
    """A server for the time of a block."""
    server = S3Server()
    try:
        yield server
    finally:
        server.stop()


def files_below(folder: Path) -> list[str]:
    """Files in a folder and in those in it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
