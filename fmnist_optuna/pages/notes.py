"""What optuna-dashboard shows of a study beyond its trials: notes, our figures, and pictures of the winner.

All of it is written again with every call and replaces what was there; results never depend on it.
"""

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import optuna
import optuna_dashboard
from optuna.artifacts import get_all_artifact_meta, upload_artifact

from fmnist_optuna.bridge.ids import TrialReference
from fmnist_optuna.described_errors import describe_error
from fmnist_optuna.export.confusion_matrix import write_confusion_matrix
from fmnist_optuna.ledger.records import CellCounts
from fmnist_optuna.log import log_event
from fmnist_optuna.pages.figures.curves import draw_curves
from fmnist_optuna.pages.figures.heat_map import draw_heat_map
from fmnist_optuna.pages.figures.learning_curve import draw_learning_curve
from fmnist_optuna.pages.figures.slices import draw_slices
from fmnist_optuna.pages.figures.timeline import draw_timeline
from fmnist_optuna.pages.overview import Overview, describe_seen, read_overview
from fmnist_optuna.results.winner import Winner, find_winner_or_none
from fmnist_optuna.search.metric import Metric
from fmnist_optuna.search.space import describe_dimension
from fmnist_optuna.spec.study_names import name_command_of
from fmnist_optuna.study.climb import Climb, read_climb
from fmnist_optuna.study.records import StudyRecord
from fmnist_optuna.study.session import Session
from fmnist_optuna.wording import (
    WITH_FLIPS,
    WITHOUT_FLIPS,
    as_markdown,
    count,
    format_interval,
    format_params,
    format_percent,
)

logger = logging.getLogger(__name__)


def decorate(session: Session) -> None:
    """Write notes, figures and pictures of a study as it stands; a failure is logged, and nothing is lost by it."""
    with _logging_failure(session):
        _decorate(session, read_overview(session))


def write_note(session: Session) -> None:
    """Write the note of a study alone, which takes little and may be done while it runs; likewise."""
    with _logging_failure(session):
        counts = session.history.counts()
        winner = find_winner_or_none(session)
        _save_note(session, describe_study(session.record, counts, read_climb(session), winner))


@contextmanager
def _logging_failure(session: Session) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever Optuna, plotly or a full disk may raise: the study itself is whole
        log_event(logger, logging.WARNING, "not_decorated", study=session.record.name, error=describe_error(error))


def _save_note(session: Session, note: str) -> None:
    """Replace the note of a study by another one."""
    if note != optuna_dashboard.get_note(session.optuna_study):
        optuna_dashboard.save_note(session.optuna_study, note)


def _decorate(session: Session, overview: Overview) -> None:
    study = session.optuna_study
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([overview.record.metric.name])
    _save_note(session, describe_study(overview.record, overview.counts, overview.climb, overview.winner))
    drawn = {"timeline": draw_timeline(overview)}
    if overview.cells:
        is_grid = overview.record.spec.search.is_grid
        drawn["grid" if is_grid else "search"] = (draw_heat_map if is_grid else draw_slices)(overview)[0]
    if any(attempt.epochs for attempt in overview.attempts):
        drawn["curves"] = draw_curves(overview)[0]
    for name, figure in drawn.items():
        if figure is not None:
            optuna_dashboard.save_plotly_graph_object(study, figure, graph_object_id=name)
    if overview.winner is not None and overview.winner.own_trial is not None:
        _decorate_winner(session, overview, overview.winner)


def describe_study(record: StudyRecord, counts: CellCounts, climb: Climb | None, winner: Winner | None) -> str:
    """The note of a study, in Markdown."""
    lines = [f"# {record.name}", ""]
    if record.info.is_demo:
        lines += [f"**{record.info.warning}.**", ""]
    if record.is_on_all_data:
        lines += [f"**{describe_seen(record)}**", ""]
    cells = count(counts.total, "cell")
    lines += [f"{counts.done} of {cells} done: {counts.complete} complete, {counts.pruned} pruned.", ""]
    lines += ["| parameter | values |", "|---|---|"]
    lines += [f"| {as_markdown(name)} | {as_markdown(values)} |" for name, values in _describe_values(record).items()]
    lines += ["", f"Data: {as_markdown(record.data_source)}, fingerprint `{record.data_fingerprint[:16]}`.", ""]
    teacher = record.teacher_of({} if winner is None else winner.params)
    if teacher is not None:
        lines += [f"Learned from {as_markdown(teacher.describe())}.", ""]
    if climb is not None:
        lines += _describe_rungs(climb, record.metric)
    if winner is not None:
        score = ", ".join(_describe_scores(winner))
        which = f"trial {winner.trial}" if winner.folds is None else f"of the mean over {winner.folds.described}"
        lines += [f"Winner: {which} ({as_markdown(format_params(winner.params))}), {score}.", ""]
    command = name_command_of(record.name, record.spec.data.folds)
    how = f"To go on after an interruption, give the command that began it again: {command}"
    lines += [f"{how.rstrip(',')}.", ""]
    lines += [f"All of it on one page: `fmnist-optuna report {record.name}`."]
    return "\n".join(lines)


def _describe_values(record: StudyRecord) -> dict[str, str]:
    """What each parameter may be, in words."""
    if record.spec.search.is_grid:
        return {name: ", ".join(map(str, values)) for name, values in record.spec.grid.items()}
    return {name: describe_dimension(dimension) for name, dimension in record.spec.dimensions.items()}


def _describe_scores(winner: Winner) -> list[str]:
    """What the winner was chosen by, its accuracy, and the same on the test images."""
    metric, evaluation = winner.metric, winner.evaluation
    scores = [] if metric.is_accuracy else [f"val {metric.name_in_logs} {metric.format(winner.value)}"]
    scores.append(f"val accuracy {format_percent(winner.val_accuracy)}")
    if evaluation is None:
        return scores
    has_flips = evaluation.flip_accuracy is not None
    if not metric.is_accuracy:
        alone, flipped = evaluation.objective, evaluation.flip_objective
        both = (metric.format(alone), None if flipped is None else metric.format(flipped))
        scores.append(_describe_tested(f"test {metric.name_in_logs}", *both, has_flips))
    accuracy = f"{format_percent(evaluation.accuracy)} (95 % interval {format_interval(evaluation.interval)})"
    return [*scores, _describe_tested("test accuracy", accuracy, format_percent(evaluation.flip_accuracy), has_flips)]


def _describe_tested(name: str, alone: str, flipped: str | None, has_flips: bool) -> str:
    """A score of the test images; where mirror images were asked for, the one without, and the one with if known."""
    if not has_flips:
        return f"{name} {alone}"
    without = f"{name} {alone} {WITHOUT_FLIPS}"
    return without if flipped is None else f"{without}, {flipped} with {WITH_FLIPS}"


def _describe_rungs(climb: Climb, metric: Metric) -> list[str]:
    """A table of the rungs, and below it what they saved."""
    if not climb.steps:
        return []
    lines = ["| rung | cells | parked | cut | went on | best |", "|---|---|---|---|---|---|"]
    for step in climb.steps:
        numbers = f"{step.n_cells} | {step.n_parked} | {step.n_cut} | {step.n_went_on}"
        lines.append(f"| epoch {step.rung} | {numbers} | {metric.format(step.best)} |")
    saved = f" The cells that were cut would have taken up to {climb.n_saved:,} more." if climb.n_saved else ""
    trained = count(climb.n_epochs, "epoch was trained", "epochs were trained")
    return [*lines, "", f"{trained}.{saved}", ""]


def _decorate_winner(session: Session, overview: Overview, winner: Winner) -> None:
    attempt = next(attempt for attempt in overview.attempts if attempt.number == winner.trial)
    trial_id = session.optuna_storage.get_trial_id_from_study_id_trial_number(session.record.study_id, attempt.number)
    drawn = {f"trial-{attempt.number}-learning-curve.svg": draw_learning_curve(attempt).encode()}
    if (evaluation := winner.evaluation) is not None and evaluation.has_matrix:
        picture = io.BytesIO()
        write_confusion_matrix(picture, evaluation, overview.record.info)
        drawn[f"trial-{attempt.number}-confusion-matrix.png"] = picture.getvalue()
    pictures = [
        f"![{name}](/artifacts/{session.record.study_id}/{artifact_id})"
        for name, artifact_id in _keep_pictures(session, drawn).items()
    ]
    noted = TrialReference(session.optuna_storage, session.optuna_study, trial_id)
    note = "\n\n".join([describe_winner(overview, winner), *pictures])
    if note != optuna_dashboard.get_note(noted):
        optuna_dashboard.save_note(noted, note)


def _keep_pictures(session: Session, drawn: Mapping[str, bytes]) -> dict[str, str]:
    """Store pictures that are not there yet as artifacts of the study, as Optuna leaves a finished trial alone.

    Returns:
        The artifact id of each file name.
    """
    study = session.optuna_study
    metas = get_all_artifact_meta(study, storage=session.optuna_storage)
    there = {meta.filename: meta.artifact_id for meta in metas}
    with tempfile.TemporaryDirectory(prefix="fmnist-optuna-") as folder:
        for name, content in drawn.items():
            if name not in there:
                file = Path(folder) / name
                file.write_bytes(content)
                there[name] = upload_artifact(artifact_store=session.store, file_path=str(file), study_or_trial=study)
    return {name: there[name] for name in drawn}


def describe_winner(overview: Overview, winner: Winner) -> str:
    """The note of a trial that was named winner, in Markdown; it stays true when another takes its place."""
    name, counts = overview.record.name, overview.counts
    how = "Named winner" if overview.confirmation is None else "Chosen by confirmation"
    lines = [f"**{how}** when {counts.done} of {count(counts.total, 'cell was', 'cells were')} done."]
    lines += _describe_scores(winner)
    lines.append(f"`fmnist-optuna reproduce {winner.trial} {name}`")
    return "\n\n".join(lines)
