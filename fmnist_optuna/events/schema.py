"""The events of the stream: their names, their fields, and what each field is.

An event is a record of the log by the same name. What a line has stands here alone: a record of another name is for the
log only, and so is a field that is not in the table.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from fmnist_optuna.json_value import to_json

MAX_TEXT = 500  # characters of a text: an exception may bring a page, and a line is to fit one of the file

# What every line has, in this order. The last four are null where an event is not about one.
COMMON = MappingProxyType(
    {
        "time": ("text", "when, ISO 8601 in UTC, by the clock of the process that writes"),
        "event": ("text", "what happened, by its name below"),
        "study": ("text or null", "name of the study"),
        "cell": ("text or null", "identity of the cell"),
        "trial": ("integer or null", "number of the trial"),
        "worker": ("text or null", "identity of the worker that tells it, or that `run` tells it of"),
    }
)

_ATTEMPT = ("integer", "which attempt at the cell, from 1")
_PARAMS = ("object", "the point of the cell")
_CELLS = ("object or null", "number of cells by state; null when the storage cannot be asked")
_ERROR = ("text", "what went wrong, in one line")
_RUNG = {
    "rung": ("integer", "in epochs"),
    "cells": ("integer", "number of cells that the decision was about"),
    "cut": ("integer", "how many of them go no further"),
    "leader": ("number or null", "the best score at the rung; of a metric that falls, its negative"),
}
_RESULT = {
    "state": ("text", "COMPLETE, PRUNED or FAIL"),
    "value": ("number or null", "of the study's metric, of the weights that were kept"),
    "val_accuracy": ("number or null", "0..1, of the same weights"),
    "reason": ("text or null", "why it was cut or failed"),
}

Field = tuple[str, str]  # of which kind it is, and what it means
EVENTS: Mapping[str, tuple[str, Mapping[str, Field]]] = MappingProxyType(
    {
        "study_started": (
            "`run` has made the study, or found it; `confirm` has found it",
            {"cells": _CELLS, "new_cells": ("integer", "cells that were not there before"),
             "metric": ("text", "what cells are compared by"), "data": ("text", "fingerprint of the data")},
        ),
        "worker_started": ("`run` has started a worker", {"pid": ("integer", "of its process")}),
        "cell_claimed": (
            "a worker has a cell: it begins, or goes on from its rung",
            {"attempt": _ATTEMPT, "params": _PARAMS, "rung": ("integer", "epochs at which it was parked; 0 for none"),
             "seconds": ("number", "that the claim took, with the choice of the point where TPE makes it")},
        ),
        "trial_began": (
            "a trial is bound to the cell, and its training begins", {"attempt": _ATTEMPT, "params": _PARAMS}
        ),
        "trial_goes_on": (
            "a training goes on after a pause",
            {"attempt": _ATTEMPT, "params": _PARAMS, "epochs": ("integer", "that are trained already"),
             "origin": ("text", "where it goes on from: memory, checkpoint, or start where it is trained once more")},
        ),
        "trial_begins_anew": (
            "a paused training would go on with other numbers here, so a new attempt begins",
            {"differences": ("text", "what differs")},
        ),
        "epoch_ended": (
            "an epoch is trained and stored",
            {"epoch": ("integer", "0-based, as in `show --json`"), "value": ("number or null", "of the study's metric"),
             "train_loss": ("number or null", "mean over the training images; null where not finite, as all of these"),
             "train_accuracy": ("number or null", "0..1"),
             "val_loss": ("number or null", "mean over the validation images"),
             "val_accuracy": ("number or null", "0..1"), "seconds": ("number", "that it took")},
        ),
        "trial_parked": ("a training pauses at a rung", {"rung": ("integer", "in epochs")}),
        "rung_decided": ("the cells at a rung are compared", _RUNG),
        "went_on_ahead": ("cells go on before the others have come to their rung", _RUNG),
        "trial_ended": ("a trial has ended, and its cell is settled by it", _RESULT),
        "trial_failed": ("training has raised an exception", {"error": _ERROR}),
        "trial_dropped": (
            "a worker has lost its lease: the cell is another's by now, and what it trained counts for nothing",
            {**_RESULT, "state": ("text or null", "COMPLETE, PRUNED or FAIL; null where it was to pause"),
             "rung": ("integer or null", "where it was to pause, in epochs")},
        ),
        "cell_taken_over": (
            "a cell is taken from a worker that is dead or silent",
            {"holder": ("text", "the worker that had it"), "reason": ("text", "lost, killed, crash, limit or stopped"),
             "error": ("text or null", "what went wrong, when the attempt is to blame")},
        ),
        "trial_swept": ("a running trial that no cell names has failed", {}),
        "cell_given_up": ("this run leaves a cell alone", {"deaths": ("integer", "workers that died of it in a row")}),
        "training_stalled": ("a training makes no progress, and its lease is renewed no more", {}),
        "storage_outage": (
            "the storage does not answer, and is waited for",
            {"operation": ("text", "what was to be done"), "error": _ERROR,
             "patience_seconds": ("number", "how long it is waited for")},
        ),
        "storage_back": (
            "the storage answers again",
            {"operation": ("text", "what was to be done"), "seconds": ("number", "that it was waited for")},
        ),
        "worker_done": ("a worker leaves, as nothing is left", {"seconds": ("number", "that it worked")}),
        "worker_failed": ("a worker cannot work", {"error": _ERROR}),
        "worker_not_started": ("no worker could be started; it is tried again", {"error": _ERROR}),
        "worker_hangs": ("a worker has lost its cell by its silence, and is killed", {}),
        "worker_killed": ("a worker is killed for breaking a limit", {"error": _ERROR}),
        "worker_crashed": ("the process of a worker has crashed", {"error": _ERROR}),
        "worker_died": ("the process of a worker has ended before its work", {"error": _ERROR}),
        "winner": (
            "the winner is chosen, and scored on the test images",
            {"params": _PARAMS, "value": ("number", "of the study's metric"), "val_accuracy": ("number", "0..1"),
             "test_accuracy": ("number or null", "0..1")},
        ),
        "study_ended": (
            "`run` or `confirm` has ended",
            {"how": ("text", "finished, stopped or failed"), "cells": _CELLS, "seconds": ("number", "that it took"),
             "error": ("text or null", "what ended it, in one line")},
        ),
    }
)  # fmt: skip


def make_line(event: str, fields: Mapping[str, object], now: datetime) -> bytes:
    """One line of the stream, its line break included.

    Args:
        event: One of `EVENTS`.
        fields: Of the record; what is not there is null.
    """
    names = (*(name for name in COMMON if name not in ("time", "event")), *EVENTS[event][1])
    line: dict[str, object] = {"time": now.isoformat(timespec="microseconds"), "event": event}
    line |= {name: _shorten(fields.get(name)) for name in names}
    return (json.dumps(to_json(line), separators=(",", ":")) + "\n").encode()


def _shorten(value: object) -> object:
    return value[:MAX_TEXT] if isinstance(value, str) else value
