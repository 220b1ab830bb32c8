"""What the server of all children, and so every child, sets when it starts; imported before anything heavy."""

import io
import os
import signal
import sys
from pathlib import Path

from fmnist_optuna.processes.output import redirect_output
from fmnist_optuna.processes.temporary import hold_temporary_folder
from fmnist_optuna.settings import SAFE_PATH, SERVER_OUTPUT, SET_BY_US

if file := os.environ.pop(SERVER_OUTPUT, None):  # in the server; its children have files of their own
    try:
        redirect_output(Path(file))
    except FileNotFoundError:  # the command that started us has ended, and its folder is gone
        os._exit(0)
# A closed terminal and Ctrl-\\ reach the whole group; the process that started us decides what becomes of us.
for signum in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(signum, signal.SIG_IGN)
if os.environ.get(SAFE_PATH) == SET_BY_US:  # it was meant for the start of the server alone
    del os.environ[SAFE_PATH]
for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # what a user's model prints must not end its trial
hold_temporary_folder()
