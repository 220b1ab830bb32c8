"""Commands that start warm: forked from a process that has imported the packages which most commands import.

A command that answers a question spends 0.7 of its 0.9 seconds on imports, and the acceptance tests type hundreds of
them. What is forked here is a process of its own with the arguments, folder, environment, standard streams and exit of
the console script; only SQLAlchemy, Optuna and the like are there already, and those rooms of the project that a
question goes through: their modules read nothing when they are imported, as a test of theirs holds. What the
interpreter reads when it starts (PYTHON..., LANG) is that of the tests, so `Shell` types commands with such variables
cold.

    python warm.py SOCKET RUN_PID
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from warm_children import LATE_IN_ALL, accept, fork_command, fork_forkserver_from, reap

PACKAGES = ("typer", "rich.console", "rich.table", "rich.live", "pydantic", "numpy", "scipy.stats", "psutil", "psycopg")
HEAVY = ("sqlalchemy.dialects.sqlite", "optuna", "optuna_dashboard", "plotly.subplots", "jinja2", "PIL.Image")
# What those import when they are first used; not typer.rich_utils, whose import reads the environment.
LATE = (
    *("typer._adapters", "rich.markdown", "rich.pretty", "rich.columns", "rich.traceback", "urllib.request"),
    *("plotly.graph_objs._layout", "plotly.graph_objs._figure", "plotly.graph_objs.layout.template", "plotly.tools"),
    *("plotly.io._templates", "PIL.PngImagePlugin", "PIL.GifImagePlugin", "PIL.PpmImagePlugin", "PIL.BmpImagePlugin"),
)
ROOMS = ("search", "spec", "ledger", "bridge", "study", "pages", "cli")
LONGEST_ORDER = 1 << 20  # bytes


def serve(address: str, run: int) -> dict[str, Any] | None:
    """Fork for every order that comes; returns it in the process that carries it out, and None after the test run.

    Args:
        run: Pid of the test run.
    """
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(16)
        while (client := accept(server, run)) is not None:
            reap()
            message, streams, _, _ = socket.recv_fds(client, LONGEST_ORDER, 3)
            if os.fork() == 0:
                server.close()
                if fork_command(client):
                    return {**json.loads(message), "streams": streams}
            client.close()
            for stream in streams:
                os.close(stream)
    shutil.rmtree(Path(address).parent, ignore_errors=True)
    return None


def become(order: dict[str, Any]) -> None:
    """Run the console script as the order says, in a process group of its own, as a terminal's shell would."""
    os.setpgid(0, 0)
    for signum in (signal.SIGHUP, signal.SIGQUIT):  # ignored by what was imported for a study's children
        signal.signal(signum, signal.SIG_DFL)
    for number, stream in enumerate(order["streams"]):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    tempfile.tempdir = None
    script = Path(order["arguments"][0])
    if order["children"]:
        fork_forkserver_from(order["children"])
    sys.argv = order["arguments"]
    sys.path[0] = str(script.parent)
    names = {"__name__": "__main__", "__file__": str(script), "__builtins__": __builtins__}
    code = 0
    try:
        exec(compile(script.read_text(), str(script), "exec"), names)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        code = end.code or 0
    leave(code)


def leave(code: int) -> None:
    """End as an interpreter does, but for taking apart all that was imported: half of the time of a short command."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # the interpreter has its own words for a reader that has gone
        sys.exit(code)
    os._exit(code)


def modules_of(rooms: Iterable[str]) -> Iterator[str]:
    """The modules of some rooms of the project."""
    for room in rooms:
        package = importlib.import_module(f"fmnist_optuna.{room}")
        yield from (module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."))


if __name__ == "__main__":
    for name in (*PACKAGES, *HEAVY, *LATE, *LATE_IN_ALL, *modules_of(ROOMS)):
        importlib.import_module(name)
    gc.freeze()
    if (received := serve(sys.argv[1], int(sys.argv[2]))) is not None:
        become(received)
