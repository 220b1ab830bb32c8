"""The server of all children, and commands that load TensorFlow: forked from a process that has imported it and Keras.

A command that trains starts a new interpreter, multiprocessing's forkserver, which imports TensorFlow for 3 seconds of
processor time. In a command of `warm` the server is a fork of the process that this script runs: the same code with the
descriptors, streams, folder and environment of the command. Nothing of the project is imported before the fork. A
command whose environment TensorFlow, Keras or the interpreter would read otherwise starts its server cold. A command
that imports TensorFlow itself is forked from here as others are from `warm`.

    python warm_children.py SOCKET RUN_PID
"""

import atexit
import contextlib
import gc
import importlib
import json
import multiprocessing.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGES = (
    "tensorflow",
    "keras",
    "optuna",
    "sqlalchemy.dialects.sqlite",
    "psycopg",
    "psutil",
    "pydantic",
    "scipy.stats",
)
# What those import when they are first used: half of the time of a short command.
LATE_IN_ALL = (
    *("pydantic.main", "pydantic.type_adapter", "pydantic.types", "pydantic.functional_validators", "annotated_types"),
    *("pydantic.functional_serializers", "pydantic._internal._generate_schema", "pydantic.plugin._loader"),
    *("sqlalchemy.dialects.postgresql", "sqlalchemy.orm", "alembic.config", "alembic.command"),
    *("optuna.storages._rdb.storage", "optuna.storages._rdb.models", "optuna.artifacts", "tomllib", "filecmp"),
)
FORKSERVER = "from multiprocessing.forkserver import main"
MARK = "main(LISTENER, ALIVE, "  # stands for the numbers, which are others in the fork
READ_AT_START = (
    *("PYTHON", "LANG", "LC_", "LD_", "TF_", "KERAS_", "XLA_", "CUDA_", "ONEDNN_", "DNNL_", "OMP_", "KMP_", "MKL_"),
    *("OPENBLAS_", "GOMP_", "MALLOC_"),
)
KERAS_HOME = "KERAS_HOME"
LONGEST_REQUEST = 1 << 20  # bytes
LONGEST_REPLY = 16  # bytes
N_DESCRIPTORS = 6  # three streams, the listener, the pipe that tells of the command's end, the pipe of the stand-in
LOOK_SECONDS = 1.0  # between looks whether the tests still run
BIND_SECONDS = 30.0
POLL_SECONDS = 0.05


def fork_forkserver_from(address: str) -> None:
    """Let this command's forkserver be a fork of the process that listens at the address."""
    fork_forkserver(lambda: (address, dict(os.environ)))


def fork_forkserver(find: Callable[[], tuple[str, dict[str, str]]]) -> None:
    """Let this process's forkserver be a fork.

    Args:
        find: Gives the address of the process that it is forked from, and the environment of the fork.
    """
    start_cold = multiprocessing.util.spawnv_passfds

    def start(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
        code = str(args[-1])
        call = f"main({', '.join(map(str, passfds))}, "
        if code.startswith(FORKSERVER) and call in code:
            pid = _ask_for(*find(), code.replace(call, MARK, 1), passfds)
            if pid is not None:
                return pid
        return start_cold(path, args, passfds)

    multiprocessing.util.spawnv_passfds = start


def _ask_for(address: str, environment: Mapping[str, str], code: str, passed: Sequence[int]) -> int | None:
    """Pid of a child that ends when the server does, for multiprocessing waits for it; None if it is to start cold."""
    group = os.getpgrp()
    request = {"code": code, "folder": str(Path.cwd()), "environment": environment, "group": group}
    until_end, held = os.pipe()
    try:
        with _connect(address) as client:
            socket.send_fds(client, [json.dumps(request).encode()], [0, 1, 2, *passed, held])
            if client.recv(LONGEST_REPLY) != b"forked\n":
                return None
        silent = subprocess.DEVNULL
        stand_in = subprocess.Popen(["cat"], stdin=until_end, stdout=silent, stderr=silent)
        stand_in.returncode = 0  # not waited for by subprocess, but by multiprocessing
        return stand_in.pid
    finally:
        os.close(until_end)
        os.close(held)


def _connect(address: str) -> socket.socket:
    deadline = time.monotonic() + BIND_SECONDS
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):  # it has just been started
            client.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)
        else:
            return client


def serve(server: socket.socket, run: int, before: Mapping[str, str]) -> tuple[dict[str, Any], list[int]] | None:
    """Fork for every request that comes; returns it in the fork, with the descriptors, and None after the test run.

    Args:
        run: Pid of the test run.
        before: The environment before the imports, which set variables of their own.
    """
    while True:
        client = accept(server, run)
        if client is None:
            return None
        reap()
        with client:
            message, descriptors, _, _ = socket.recv_fds(client, LONGEST_REQUEST, N_DESCRIPTORS)
            request = json.loads(message)
            if not _is_alike(request["environment"], before):
                client.sendall(b"cold\n")
            elif os.fork() == 0:
                server.close()
                if "order" not in request or fork_command(client):
                    return request, descriptors
            elif "order" not in request:
                client.sendall(b"forked\n")
        for descriptor in descriptors:
            os.close(descriptor)


def fork_command(client: socket.socket) -> bool:
    """Whether this is the command that was forked; the other process tells of its pid and its end, and ends then."""
    command = os.fork()
    if command == 0:
        client.close()
        return True
    client.sendall(f"{command}\n".encode())
    client.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])}\n".encode())
    os._exit(0)


def accept(server: socket.socket, run: int) -> socket.socket | None:
    """The next connection; None when the process of this pid has ended."""
    server.settimeout(LOOK_SECONDS)
    while True:
        try:
            client, _ = server.accept()
        except TimeoutError:
            try:
                os.kill(run, 0)
            except ProcessLookupError:
                return None
        else:
            client.settimeout(None)
            return client


def reap() -> None:
    """Wait for the forks that have ended, so that what they took counts as ours."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _is_alike(environment: Mapping[str, str], before: Mapping[str, str]) -> bool:
    """Whether everything that is read at the start is as it was here."""
    return (
        KERAS_HOME in environment
        and _keras_settings(environment) in (b"", _keras_settings(before))
        and _read_at_start(environment) == _read_at_start(before)
    )


def _keras_settings(environment: Mapping[str, str]) -> bytes:
    """What Keras reads when it is imported; nothing where it would write its defaults."""
    try:
        return (Path(environment[KERAS_HOME]) / "keras.json").read_bytes()
    except FileNotFoundError:
        return b""


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if k.startswith(READ_AT_START) and k != KERAS_HOME}


def become(request: dict[str, Any], descriptors: list[int], set_by_imports: Mapping[str, str]) -> None:
    """Run the forkserver of a command; its children end with it as they would.

    Args:
        request: The code to run, and the folder, the environment and the process group to run it in.
        descriptors: The three streams, then those that the code takes.
        set_by_imports: Variables that TensorFlow sets when it is imported.
    """
    os.setpgid(0, int(str(request["group"])))
    for number, stream in enumerate(descriptors[:3]):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(str(request["folder"]))
    os.environ.clear()
    os.environ.update(set_by_imports)
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    sys.argv = ["-c"]
    code = str(request["code"]).replace(MARK, f"main({descriptors[3]}, {descriptors[4]}, ", 1)
    main = sys.modules["__main__"]
    del main.__file__
    main.__spec__ = None
    with contextlib.suppress(SystemExit):  # no client is left
        exec(code, {"__name__": "__main__"})
    atexit._run_exitfuncs()
    os._exit(0)


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen(16)
        before = dict(os.environ)
        for name in (*PACKAGES, *LATE_IN_ALL):
            importlib.import_module(name)
        gc.freeze()
        received = serve(listener, int(sys.argv[2]), before)
    if received is not None:
        request, descriptors = received
        set_by_imports = {name: value for name, value in os.environ.items() if before.get(name) != value}
        if "order" in request:
            sys.path.insert(0, str(Path(__file__).parent))
            importlib.import_module("warm").become({**request["order"], "streams": descriptors})
        become(request, descriptors, set_by_imports)
