"""The answers of the commands as JSON objects: the stable schema 1. Accuracies are fractions, times ISO-8601 UTC."""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fmnist_optuna.json_value import Json, to_json

if TYPE_CHECKING:
    from fmnist_optuna.cli.trial_details import TrialDetails
    from fmnist_optuna.confirming import ConfirmedStudy
    from fmnist_optuna.ledger.records import Attempt, CellCounts, WorkerRow
    from fmnist_optuna.results.ensemble import Ensemble
    from fmnist_optuna.results.evaluation import Evaluation
    from fmnist_optuna.results.winner import Winner
    from fmnist_optuna.search.cell import Params, ParamValue
    from fmnist_optuna.search.metric import Epoch, Metric
    from fmnist_optuna.study.climb import Step
    from fmnist_optuna.study.records import StudyRecord, UnreadableStudy
    from fmnist_optuna.study.session import Session
    from fmnist_optuna.study.verification import Verification


SCHEMA = 1

Answer = dict[str, Json]


def print_json(answer: Answer) -> None:
    """One JSON object on stdout."""
    json.dump({"schema": SCHEMA, **answer}, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def data_answer(record: StudyRecord) -> Answer:
    """Where the data of a study came from."""
    return {"source": record.data_source, "fingerprint": record.data_fingerprint}


def teacher_answer(record: StudyRecord, params: Params) -> Answer | None:
    """Whose answers a cell learns from; None for nobody's."""
    teacher = record.teacher_of(params)
    return None if teacher is None else teacher.to_content()


def counts_answer(counts: CellCounts) -> Answer:
    """Cells by state."""
    return vars(counts)


def status_answer(session: Session) -> Answer:
    """`status --json`."""
    # These load SQLAlchemy.
    from fmnist_optuna.bridge.foreign import count_foreign
    from fmnist_optuna.study.climb import read_climb

    record, history, climb = session.record, session.history, read_climb(session)
    best, use = history.best_point(), session.checkpoints.disk_use()
    return {
        "study": record.name,
        "storage": session.storage.name,
        "data": data_answer(record),
        "trained_on_validation": record.is_on_all_data,
        "cells": counts_answer(history.counts()),
        "workers": [worker_answer(worker) for worker in history.workers()],
        "best": None
        if best is None or record.is_on_all_data
        else {
            "trial": best.trial_number,
            "params": best.params,
            "objective": record.metric.answer(best.value),
            "val_accuracy": best.val_accuracy,
            "epochs": best.n_epochs,
        },
        "rungs": [] if climb is None else [step_answer(step) for step in climb.steps],
        "artifacts": None if record.place is None else str(record.place),
        "checkpoint_bytes": None if use is None else use.n_bytes,
        "elapsed_seconds": round(history.elapsed_seconds(), 3),
        "foreign_trials": count_foreign(session.storage, record.study_id),
    }


def worker_answer(worker: WorkerRow) -> Answer:
    """One worker of `status --json`."""
    return {
        "worker": worker.worker_id,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "device": worker.device,
        "seconds_since_start": round(worker.seconds_since_start, 1),
        "seconds_since_seen": round(worker.seconds_since_seen, 1),
    }


def step_answer(step: Step) -> Answer:
    """One rung of `status --json`; `decided_at` is null before the first decision."""
    decided_at = step.decided_at
    return {
        "rung": step.rung,
        "cells": step.n_cells,
        "parked": step.n_parked,
        "to_come": step.n_to_come,
        "went_on": step.n_went_on,
        "cut": step.n_cut,
        "best": step.best,
        "leader": step.leader or None,
        "margin": step.margin,
        "decided_at": None if decided_at is None else datetime.fromtimestamp(decided_at, UTC).isoformat(),
        "epochs": step.n_epochs,
        "epochs_saved": step.n_saved,
    }


def winner_answer(record: StudyRecord, winner: Winner) -> Answer:
    """`best --json` and `run --json`."""
    from fmnist_optuna.results.seeds import figures_of_repeats  # loads Optuna and SQLAlchemy

    evaluation = winner.evaluation
    return {
        "study": record.name,
        "trial": winner.trial if winner.folds is None or winner.folds.trained is not None else None,
        "params": winner.params,
        "objective": winner.metric.answer(winner.value),
        "val_accuracy": winner.val_accuracy,
        "repeats": figures_of_repeats(winner.repeats),
        "folds": None if winner.folds is None else winner.folds.figures(),
        "test_objective": None if evaluation is None else evaluation.value_of(winner.metric),
        "test_objective_with_flip": None if evaluation is None else evaluation.flip_value_of(winner.metric),
        **score_answer(evaluation),
        "epochs": winner.n_epochs,
        "data": data_answer(record),
        "teacher": teacher_answer(record, winner.params),
        "confirmed": None if winner.confirmation is None else winner.confirmation.figures(),
        "unsettled": None if winner.unsettled is None else f"{winner.unsettled.what}: {winner.unsettled}",
        "all_data": None if winner.all_data is None else winner.all_data.figures(),
        "seeds_on_all_data": winner.n_on_all_data,
        "ensembles": [ensemble_answer(ensemble) for ensemble in winner.ensembles],
        "openings": winner.n_openings,
        "classes": None
        if evaluation is None
        else [
            {
                "label": result.label,
                "images": result.n_images,
                "recall": to_json(result.recall),
                "precision": to_json(result.precision),
            }
            for result in evaluation.classes
        ],
    }


def ensemble_answer(ensemble: Ensemble) -> Answer:
    """Seeds that answered together, in `best --json`."""
    members = {"members": ensemble.n_members, "all_data": ensemble.is_on_all_data}
    return {**members, **score_answer(ensemble.evaluation)}


def score_answer(evaluation: Evaluation | None) -> Answer:
    """What the test images say of weights; each null before they are opened."""
    return {
        "test_accuracy": None if evaluation is None else evaluation.accuracy,
        "test_interval": None if evaluation is None else list(evaluation.interval),
        "test_accuracy_with_flip": None if evaluation is None else evaluation.flip_accuracy,
    }


def confirmation_answer(record: StudyRecord, confirmed: ConfirmedStudy) -> Answer:
    """`confirm --json`: what `best --json` says, with all cells that were compared and the optimism of selection."""
    chosen = confirmed.confirmation.chosen
    return {
        **winner_answer(record, confirmed.winner),
        "candidates": [
            {
                "trial": candidate.original.number,
                "params": candidate.params,
                "n_parameters": candidate.n_parameters,
                "seeds": len(candidate.val.values),
                "missing": candidate.n_missing,
                "mean": candidate.val.mean,
                "sd": candidate.val.sd,
                "standard_error": candidate.val.standard_error,
                "interval": list(candidate.val.interval),
                "chosen": candidate is chosen,
            }
            for candidate in confirmed.confirmation.candidates
        ],
        "optimism": {"selected": confirmed.selected_optimism, "confirmed": confirmed.confirmed_optimism},
    }


def trials_answer(record: StudyRecord, attempts: list[Attempt]) -> Answer:
    """`trials --json`."""
    trials = [{**trial_answer(attempt), "point_mean": attempt.point_mean} for attempt in attempts]
    return {"trained_on_validation": record.is_on_all_data, "trials": trials}


def trial_answer(attempt: Attempt) -> Answer:
    """One attempt."""
    from fmnist_optuna.study.attempts import attempt_row  # loads Optuna and SQLAlchemy

    params = {name: _json_value(value) for name, value in attempt.params.items()}
    return {**attempt_row(attempt), "params": params}


def details_answer(details: TrialDetails) -> Answer:
    """`show --json`."""
    attempt = details.attempt
    return {
        "study": details.record.name,
        "trained_on_validation": details.record.is_on_all_data,
        **trial_answer(attempt),
        "seed": attempt.attributes.seed,
        "cut": details.cut,
        "kept_epochs": attempt.attributes.kept_epochs,
        "legs": [{"from_epoch": leg.n_epochs + 1, "worker": leg.worker} for leg in attempt.legs],
        "log": None if details.log is None else str(details.log),
        "code": attempt.attributes.code,
        "teacher": teacher_answer(details.record, attempt.params),
        "files": {name: str(path) for name, path in details.files.items()},
        "curve": [_epoch_answer(epoch, details.record.metric) for epoch in attempt.epochs],
    }


def _epoch_answer(epoch: Epoch, metric: Metric) -> Answer:
    """One epoch of a curve; a metric that the model brings has its own name."""
    measured = {name: number for name, number in vars(epoch).items() if name != "objective"}
    measured |= {metric.name: metric.value_of(epoch)} if metric.is_compiled else {}
    return {name: to_json(number) for name, number in measured.items()}


def verification_answer(verification: Verification) -> Answer:
    """`verify --json`."""
    return {
        "ok": verification.ok,
        "cells": verification.n_cells,
        "results": verification.n_results,
        "duplicates": verification.n_duplicates,
        "missing": verification.n_missing,
        "failed": verification.n_failed,
        "running": verification.n_running,
        "surplus_trials": verification.n_surplus,
        "foreign_trials": verification.n_foreign,
        "unchecked_points": verification.n_unchecked_points,
        "problems": list(verification.problems),
    }


def study_answer(study: StudyRecord | UnreadableStudy, counts: CellCounts) -> Answer:
    """One study of `list --json`; of one that cannot be read, `error` says why, and some is null."""
    from fmnist_optuna.study.records import UnreadableStudy  # loads SQLAlchemy

    answer: Answer = {
        "study": study.name,
        "kind": study.kind,
        "trained_on_validation": study.is_on_all_data,
        "data": None,
        "cells": counts_answer(counts),
        "created_at": None,
        "error": None,
    }
    if isinstance(study, UnreadableStudy):
        return {**answer, "error": study.reason}
    created_at = datetime.fromtimestamp(study.created_at, UTC).isoformat()
    return {**answer, "data": data_answer(study), "created_at": created_at}


def _json_value(value: ParamValue) -> ParamValue:
    """A parameter as JSON has it: a number of another program that is not finite becomes a string."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
