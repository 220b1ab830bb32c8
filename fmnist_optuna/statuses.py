"""The exit statuses of all commands, in one table: what each means, and whether to start the command again helps.

Errors, commands and workers take their numbers from here; the tables of the documents are made from it, and the files
for Kubernetes, Slurm and others are checked against it. This module imports nothing of ours.
"""

import enum
import signal

OF_A_SIGNAL = 128  # plus the number of the signal that ended a process, as shells have it


class Status(enum.IntEnum):
    """With which number a process ends.

    Attributes:
        meaning: For people, as half a sentence.
        is_healed_by_restart: Whether the same command, started again as it was, may come further. What starts a worker
            again by itself does so for these alone.
    """

    meaning: str
    is_healed_by_restart: bool

    def __new__(cls, number: int, meaning: str = "", is_healed_by_restart: bool = False) -> "Status":
        """A row of the table; `Status(75)` finds one."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.meaning = meaning
        member.is_healed_by_restart = is_healed_by_restart
        return member

    DONE = 0, "finished; of `run` and `worker`: every cell of the study has its result", False
    FAILED = 1, "failed unexpectedly", True
    USAGE = 2, "wrong usage, study file or refused join; a module that `--allow-module` does not name", False
    NOT_FOUND = 3, "no such storage file, study, trial or finished trial; the study was deleted meanwhile", False
    DATA = (
        4,
        "data, a model or a picture missing or corrupt; a study that this version cannot read, or a storage that a "
        "later one made",
        False,
    )
    STORAGE = (
        5,
        "storage unreachable, not a database, not writable, or not upgraded yet; the bucket of the artifacts not "
        "reachable, readable or writable",
        True,
    )
    MISMATCH = (
        6,
        "finished with failed cells, given up on cells whose workers die, or a check found a difference (`verify`, "
        "also of an unfinished study; `export`; `reproduce`; the winner's weights before the test set is opened; data "
        "that is not that of the study)",
        False,
    )
    STOPPED = 7, "stopped before all cells were done (`run --timeout`, `stop`)", False
    HANDED_BACK = (
        75,  # EX_TEMPFAIL of BSD's sysexits.h: "temporary failure; the user is invited to retry"
        "a `worker` left before the study was finished and gave back what it held, so start another one: SIGTERM, "
        "SIGHUP, SIGUSR1, SIGXCPU, `--max-trials`, `--max-time`, `--idle-timeout`, `--memory-limit`",
        True,
    )
    HUNG_UP = OF_A_SIGNAL + signal.SIGHUP, "ended by SIGHUP, as of a closed terminal", True
    INTERRUPTED = OF_A_SIGNAL + signal.SIGINT, "ended by SIGINT, as by Ctrl-C", True
    QUIT = OF_A_SIGNAL + signal.SIGQUIT, "ended by SIGQUIT", True
    KILLED = OF_A_SIGNAL + signal.SIGKILL, "killed by SIGKILL, as by the system for want of memory", True
    TERMINATED = OF_A_SIGNAL + signal.SIGTERM, "ended by SIGTERM", True


def status_of_signal(signum: int) -> Status:
    """The exit status of a process that one of the signals above ended.

    Raises:
        ValueError: It is none of them.
    """
    return Status(OF_A_SIGNAL + signum)
