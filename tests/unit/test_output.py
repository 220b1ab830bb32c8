"""Streams of a process in which the user's code prints: whoever does not take it ends no training."""

import os
import subprocess
import sys

import pytest

from fmnist_optuna.processes.children import Call

PRINTS = r"""
import gc, sys
from fmnist_optuna.cli.streams import flush_answers, prepare_streams
from fmnist_optuna.processes.output import take_prints_for_remarks
{streams}
take_prints_for_remarks()
gc.collect()
for _ in range(100):
    print("loss \u2713" * 1000, flush=True)
sys.stderr.write("went on\n")
sys.exit(flush_answers(0))
"""


@pytest.mark.parametrize("streams", ["", "prepare_streams()"], ids=["child", "command"])
@pytest.mark.parametrize("stdout", ["full", "broken", "ascii"])
def test_a_print_that_nobody_takes_is_no_error(stdout: str, streams: str) -> None:
    """On a full disk, into a pipe that nobody reads, and of characters that the encoding lacks."""
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full" if stdout == "full" else os.devnull, "w") as file:  # noqa: PTH123 - for its descriptor
        done = subprocess.run(
            [sys.executable, "-c", PRINTS.format(streams=streams)],
            stdout=writer if stdout == "broken" else file,
            stderr=subprocess.PIPE,
            env={**os.environ, **({"PYTHONIOENCODING": "ascii"} if stdout == "ascii" else {})},
            text=True,
            check=False,
        )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "went on\n")


def print_on_a_full_disk() -> bool:
    """What a child does; whether it went on."""
    full = os.open("/dev/full", os.O_WRONLY)
    for standard in (1, 2):
        os.dup2(full, standard)
    print("loss \u2713" * 1000, flush=True)
    print("loss \u2713" * 1000, file=sys.stderr, flush=True)
    return True


def test_every_child_prints_so() -> None:
    """The workers of `run` among them, whose streams go to their logs."""
    assert Call(print_on_a_full_disk, doing="printing", is_warm=False).result()
