"""A study as one page that opens from disk, offline: figures, tables and commands in a single HTML file."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import plotly.graph_objects as go
import plotly.io
from PIL import Image
from plotly.offline import get_plotlyjs

from fmnist_optuna import __version__
from fmnist_optuna.data.dataset import DatasetInfo, Images
from fmnist_optuna.data.pictures import as_picture
from fmnist_optuna.durable import whole_file
from fmnist_optuna.errors import FmnistOptunaError, StorageError
from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.openings import Opening
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.ledger.states import State
from fmnist_optuna.pages.figures.confirmation import draw_confirmation
from fmnist_optuna.pages.figures.confusion_matrix import draw_confusion_matrix
from fmnist_optuna.pages.figures.curves import draw_curves
from fmnist_optuna.pages.figures.heat_map import draw_heat_map
from fmnist_optuna.pages.figures.importance import draw_importance
from fmnist_optuna.pages.figures.parallel_coordinates import draw_parallel_coordinates
from fmnist_optuna.pages.figures.slices import draw_slices
from fmnist_optuna.pages.figures.timeline import draw_timeline
from fmnist_optuna.pages.overview import Overview, describe_seen, read_overview
from fmnist_optuna.pages.tested import list_tested
from fmnist_optuna.results.evaluation import Evaluation
from fmnist_optuna.study.attempts import describe_reason
from fmnist_optuna.study.session import Session
from fmnist_optuna.wording import (
    count,
    format_duration,
    format_interval,
    format_percent,
    format_points,
    format_value,
    reason_of,
)
from fmnist_optuna.work.splits import load_splits_of

TEMPLATE = Path(__file__).with_name("report.html.jinja")
N_MISTAKES = 12
N_ROWS = 50  # attempts in the table


@dataclass(frozen=True)
class Figure:
    """A figure of the page: its element's id, plotly's JSON, and a sentence below it."""

    name: str
    json: str
    height: int
    note: str = ""


@dataclass(frozen=True)
class Mistake:
    """A test image that the winner took for something else, surely."""

    picture: str  # data URI
    truth: str
    answer: str
    probability: float


def write_report(session: Session, file: Path, data_dir: Path | None = None) -> None:
    """Write the page of a study, finished or not; whole or not at all.

    Args:
        data_dir: Folder with the IDX files, for pictures of mistakes; without the data here they are left out.

    Raises:
        StorageError: The file cannot be written.
    """
    page = render_report(read_overview(session), _load_test_images(session, data_dir))
    try:
        with whole_file(file) as stream:
            stream.write(page.encode())
    except OSError as error:
        raise StorageError(f"--out must be a file that can be written, but {file}: {reason_of(error)}.") from error


def _load_test_images(session: Session, data_dir: Path | None) -> Images | None:
    try:
        return load_splits_of(session.record, data_dir).test_images
    except FmnistOptunaError:  # not here, or no longer what it was
        return None


def render_report(overview: Overview, test_images: Images | None) -> str:
    """The page as text.

    Args:
        test_images: (n, *image_shape), or None where they are not at hand.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= FILTERS
    winner = overview.winner
    opening, evaluation = (None, None) if winner is None else (winner.opening, winner.evaluation)
    drawn = _draw(overview, evaluation)
    return environment.from_string(
        TEMPLATE.read_text(encoding="utf-8")
    ).render(
        overview=overview,
        record=overview.record,
        counts=overview.counts,
        winner=winner,
        confirmation=overview.confirmation,
        seen=describe_seen(overview.record),
        examples=f"{overview.record.info.noun}s",
        tested=[] if winner is None else list_tested(winner),
        figures=drawn,
        plotly=get_plotlyjs() if drawn else "",
        evaluation=evaluation,
        mistakes=[] if opening is None else find_mistakes(opening, test_images, overview.record.info),
        savings=describe_savings(overview) if overview.climb is None else "",  # the table of rungs says it
        attempts=overview.attempts[:N_ROWS],
        has_means=any(attempt.point_mean is not None for attempt in overview.attempts),
        n_attempts=len(overview.attempts),
        openings=overview.openings,
        has_flips=any(opening.scores.flip_accuracy is not None for opening in overview.openings),
        environments=_environments(overview.attempts),
        machines=sorted({_machine(a.attributes.environment) for a in overview.attempts if a.attributes.environment}),
        spec=overview.record.spec.model_dump_json(indent=2),
        version=__version__,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _draw(overview: Overview, evaluation: Evaluation | None) -> dict[str, Figure]:
    drawn: dict[str, Figure] = {}

    def add(name: str, figure: go.Figure | None, note: str = "") -> None:
        if figure is not None:
            text: str = plotly.io.to_json(figure, remove_uids=True)
            drawn[name] = Figure(name, text.replace("<", "\\u003c"), int(figure.layout.height), note)

    if overview.cells and overview.record.spec.search.is_grid:
        add("heat-map", *draw_heat_map(overview))
    elif overview.cells:
        add("slices", *draw_slices(overview))
    if any(attempt.epochs for attempt in overview.attempts):
        add("curves", *draw_curves(overview))
    add("parallel", *draw_parallel_coordinates(overview))
    add("importance", draw_importance(overview))
    add("timeline", draw_timeline(overview))
    if overview.confirmation is not None:
        add("confirmation", draw_confirmation(overview.confirmation))
    if evaluation is not None and evaluation.has_matrix:
        add("confusion", draw_confusion_matrix(evaluation))
    return drawn


def find_mistakes(opening: Opening, test_images: Images | None, info: DatasetInfo) -> list[Mistake]:
    """The wrong answers with the highest probabilities, the surest first; none where there are no pictures."""
    if test_images is None or not info.is_of_pictures:
        return []
    answers = opening.probabilities.argmax(axis=1)
    sureness = opening.probabilities.max(axis=1) * (answers != opening.labels)
    worst = [int(index) for index in (-sureness).argsort(kind="stable")[:N_MISTAKES] if sureness[index] > 0]
    return [
        Mistake(
            picture=_data_uri(test_images[index], info),
            truth=info.class_names[int(opening.labels[index])],
            answer=info.class_names[int(answers[index])],
            probability=float(opening.probabilities[index].max()),
        )
        for index in worst
    ]


def _data_uri(image: Images, info: DatasetInfo) -> str:
    buffer = io.BytesIO()
    Image.fromarray(as_picture(image, info)).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def describe_savings(overview: Overview) -> str:
    """What pruning saved, estimated by the epochs that COMPLETE trials took; empty without both kinds."""
    complete = [len(attempt.epochs) for attempt in overview.attempts if attempt.state is State.COMPLETE]
    pruned = [a for a in overview.attempts if a.state is State.PRUNED and a.attributes.reason != "diverged"]
    if not complete or not pruned:
        return ""
    mean = sum(complete) / len(complete)
    spent = sum(len(attempt.epochs) for attempt in pruned)
    saved = max(0.0, mean * len(pruned) - spent)
    share = saved / (saved + spent + sum(complete))
    return (
        f"{len(pruned)} pruned trials took {spent} epochs. At the mean of the complete ones, {mean:.1f}, they would "
        f"have taken about {saved:.0f} more: {format_percent(share, 0)} of all. It is an estimate, because a "
        "pruned trial may not have taken the mean."
    )


def _environments(attempts: Sequence[Attempt]) -> list[tuple[str, int]]:
    """Each environment that trials were trained in, with their number."""
    found: dict[str, int] = {}
    for attempt in attempts:
        if environment := attempt.attributes.environment:
            shown = {name: value for name, value in environment.items() if name != "cpu_features"}
            text = ", ".join(f"{name} {'none' if value in ('', None) else value}" for name, value in shown.items())
            found[text] = found.get(text, 0) + 1
    return sorted(found.items(), key=lambda item: -item[1])


def _machine(environment: Mapping[str, Json]) -> str:
    names = {"tensorflow": "TensorFlow", "keras": "Keras"}
    versions = [f"{name} {environment[key]}" for key, name in names.items() if key in environment]
    return ", ".join([str(environment.get("cpu") or environment.get("system", "")), *versions])


def _number(value: object) -> str:
    return f"{value:,}" if type(value) is int else format_value(value)


def _time(value: float) -> str:
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


FILTERS: dict[str, Callable[..., str]] = {
    "count": count,
    "percent": format_percent,
    "points": format_points,
    "interval": format_interval,
    "number": _number,
    "seconds": format_duration,
    "time": _time,
    "ending": describe_reason,
}


def default_file(name: str) -> Path:
    """Where the report of a study goes unless one says otherwise: the current folder."""
    return Path(f"{name.replace('/', '-')}-report.html")
