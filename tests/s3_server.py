"""A server that speaks S3, moto's, in a process of its own on a free port of 127.0.0.1; ended by its pid.

It keeps everything in its memory. It can be told to break off: while `SIGSTOP` holds it nothing answers, and a server
that was ended refuses connections until another one starts at the same port.
"""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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

    def keys(self) -> list[str]:
        """Of all objects in the bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return sorted(each["Key"] for page in pages for each in page.get("Contents", ()))


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
