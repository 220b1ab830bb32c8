"""Child processes from one warm server: TensorFlow is imported once, a worker starts in a tenth of a second."""

import contextlib
import faulthandler
import functools
import itertools
import multiprocessing
import multiprocessing.util
import os
import pkgutil
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Generic, TypeVar, TypeVarTuple

from fmnist_optuna.described_errors import describe_error, find_last_words
from fmnist_optuna.errors import FmnistOptunaError, WorkerFailedError
from fmnist_optuna.processes.output import redirect_output, take_prints_for_remarks
from fmnist_optuna.processes.temporary import temporary_folder, use_short_sockets
from fmnist_optuna.processes.tracker import start_tracker
from fmnist_optuna.settings import SAFE_PATH, SERVER_OUTPUT, SET_BY_US, prepare_training_environment, set_hash_seed
from fmnist_optuna.wording import describe_exit

# Named, not imported: they load TensorFlow, in the children alone.
PRELOADED = ["fmnist_optuna.work.preloaded"]
PREPARATION = "fmnist_optuna.work.training_process:become_training_process"
LIGHT_PREPARATION = "fmnist_optuna.processes.parent:become_child"
SERVER, TRACKER = "server", "tracker"  # name the files with what the server of all children says, and its helper
ENDING_SECONDS = 5.0  # for a process that has closed its pipe to be gone
STARTING = threading.RLock()  # held while the environment and `__main__` are those of a child that starts
AFTER_CHILDREN = -10  # multiprocessing waits for children before what has a priority below 0

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


def worker_context() -> ForkServerContext | SpawnContext:
    """The start method of all our children: forkserver with everything heavy imported; spawn where there is none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    with STARTING:
        use_short_sockets()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def warm_up() -> None:
    """Let the server start and import TensorFlow while the caller goes on; the first child waits for it."""
    worker_context()
    if "forkserver" in multiprocessing.get_all_start_methods():
        _end_server_at_exit()
        with STARTING:
            wanted = {**_training_environment(), SERVER_OUTPUT: str(_output_file(SERVER))}
            if not _is_server_running():
                start_tracker(_output_file(TRACKER))
                with _no_main_module(), _environment(wanted):
                    forkserver.ensure_running()


def warm_up_early() -> None:
    """The same as the first thing that a command does; what is in its way is an error when the server is needed."""
    with contextlib.suppress(FmnistOptunaError, OSError):
        warm_up()


@functools.cache
def _end_server_at_exit() -> None:
    """Let the server not outlive us: it would look whether we are there only after its imports, for seconds."""
    multiprocessing.util.Finalize(None, _end_server, exitpriority=AFTER_CHILDREN)


def _server_pid() -> int | None:
    pid: int | None = vars(forkserver._forkserver)["_forkserver_pid"]
    return pid


def _is_server_running() -> bool:
    """Whether the server needs no start; False where the system cannot tell without taking its exit status."""
    pid = _server_pid()
    if pid is None or not hasattr(os, "waitid"):
        return False
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _end_server() -> None:
    pid = _server_pid()
    if pid is not None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):  # still our child, and not another's process of the same number
                os.kill(pid, signal.SIGKILL)


def start(
    target: Callable[[*Arguments], None], arguments: tuple[*Arguments], name: str, *, is_warm: bool = True
) -> BaseProcess:
    """Start a child that runs `target` of an importable module; what it writes goes to a file (`last_words`).

    Args:
        name: Of the process, unique among those of this one.
        is_warm: Whether it comes from the warm server, with TensorFlow imported; otherwise it is a fresh interpreter.

    Raises:
        WorkerFailedError: The server of all children cannot start, or died.
    """
    context = worker_context() if is_warm else multiprocessing.get_context("spawn")
    is_forked = isinstance(context, ForkServerContext)  # so that its environment is that of the server
    with STARTING:
        output = _output_file(name)
    process = context.Process(target=_run, args=(output, target, arguments), name=name)
    try:
        with STARTING:
            if is_forked:
                warm_up()
            with _no_main_module(), contextlib.nullcontext() if is_forked else _environment(_training_environment()):
                process.start()
    except (EOFError, OSError) as error:  # EOFError and ConnectionError when the server is gone
        raise WorkerFailedError(
            "Processes that train or score are started by a server of our own, which must run, but it "
            f"ended{_quote(SERVER) or f': {describe_error(error)}'}."
        ) from error
    return process


def _run(output: Path, target: Callable[[*Arguments], None], arguments: tuple[*Arguments]) -> None:
    """Body of every child; a crash leaves the line of Python in which it happened."""
    redirect_output(output)
    take_prints_for_remarks()
    faulthandler.enable(2)  # wherever that goes by then
    target(*arguments)


def last_words(process: BaseProcess) -> str:
    """What a process that ended wrote at last, as the end of a sentence; "" when it wrote nothing."""
    return _quote(process.name)


def _quote(name: str) -> str:
    try:
        words = find_last_words(_output_file(name).read_text(errors="replace"))
    except OSError:
        words = ""
    return f"; its last words: {words}" if words else ""


def _output_file(name: str) -> Path:
    """Where a child's output goes: TensorFlow's C++ side greets on stderr, and an open pipe outlives a command."""
    return temporary_folder() / f"{name.replace(os.sep, '-')}.out"


def _training_environment() -> dict[str, str]:
    """What a child finds in its environment: ours, and what TensorFlow reads.

    Temporary files go where they are removed when this process ends: TensorFlow writes modules there and removes them
    at exit, which a forked or killed child does not come to. And the server of all children is a `python -c`, which
    would look for Python's own modules in the current folder first.
    """
    environment = dict(os.environ)
    prepare_training_environment(environment)
    set_hash_seed(environment)
    environment["TMPDIR"] = str(temporary_folder())
    environment[SAFE_PATH] = environment.get(SAFE_PATH) or SET_BY_US
    return environment


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Let a process that starts within this block find these variables; ours stay as the program has them."""
    before = {name: os.environ.get(name) for name, value in wanted.items() if os.environ.get(name) != value}
    os.environ.update({name: wanted[name] for name in before})
    try:
        yield
    finally:  # these alone: another thread may set others meanwhile
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Hide the script that runs us: a child would import it, and run it again where it has no main guard."""
    main = sys.modules["__main__"]
    hidden: dict[str, object] = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(hidden)


class Call(Generic[Result]):
    """A function that runs in a child of its own, so that this process needs no TensorFlow.

    Args:
        function: Of an importable module; its arguments and result are picklable.
        doing: What it does, for people: "checking the study file".
        is_warm: Whether the child has TensorFlow imported; otherwise it has what the function's module imports.
    """

    _serial = itertools.count(1)

    def __init__(
        self, function: Callable[[*Arguments], Result], *arguments: *Arguments, doing: str, is_warm: bool = True
    ) -> None:
        self._doing = f"{doing[:1].upper()}{doing[1:]}"
        receiver, sender = multiprocessing.Pipe(duplex=False)
        self._receiver = receiver
        call = sender, PREPARATION if is_warm else LIGHT_PREPARATION, function, arguments
        self.process = start(_answer, call, name=f"{doing} {next(self._serial)}", is_warm=is_warm)
        sender.close()

    def result(self) -> Result:
        """Wait for the result.

        Raises:
            FmnistOptunaError: What the function raised, if it is one of ours.
            WorkerFailedError: The child died, or raised anything else.
        """
        try:
            returned, error = self._receiver.recv()
        except KeyboardInterrupt:
            self.process.kill()  # what it does may never end
            raise
        except (EOFError, OSError):
            raise died(self._doing, self.process) from None
        finally:
            self._receiver.close()
        self.process.join()
        if isinstance(error, FmnistOptunaError):
            raise error
        if error is not None:
            raise WorkerFailedError(f"{self._doing} must not fail, but {error}.")
        result: Result = returned
        return result


def call_each(
    function: Callable[[*Arguments], Result], calls: Iterable[tuple[*Arguments]], *, doing: str, at_once: int
) -> Iterator[Result]:
    """What a function returns for each of several arguments, in their order; each call is a `Call`.

    Args:
        at_once: Calls that run side by side, >= 1.

    Raises:
        FmnistOptunaError: As `Call.result`, for the first call that fails; the others are ended.
    """
    running = deque[Call[Result]]()
    try:
        for arguments in calls:
            if len(running) == at_once:
                yield running.popleft().result()
            running.append(Call(function, *arguments, doing=doing))
        while running:
            yield running.popleft().result()
    finally:
        for call in running:
            call.process.kill()


def died(doing: str, process: BaseProcess) -> WorkerFailedError:
    """The error for a process that ended without an answer: how, and what it wrote before.

    Args:
        doing: The subject of the sentence.
    """
    process.join(ENDING_SECONDS)
    return WorkerFailedError(
        f"{doing} must end with an answer, but its process {describe_exit(process.exitcode)}{last_words(process)}."
    )


def _answer(
    sender: Connection, preparation: str, function: Callable[[*Arguments], object], arguments: tuple[*Arguments]
) -> None:
    """Send what a function returned, and the error that it raised instead: one of ours, or another in words."""
    returned: object = None
    error: FmnistOptunaError | str | None = None
    try:
        pkgutil.resolve_name(preparation)()
        returned = function(*arguments)
    except FmnistOptunaError as ours:
        error = ours
    except BaseException as any_other:  # the user's code may raise SystemExit or anything
        error = describe_error(any_other)
    sender.send((returned, error))
    sender.close()
