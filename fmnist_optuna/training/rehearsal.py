"""A study tried out before it begins: what would fail every trial fails here.

The smallest cell is trained for a few steps on a few images, twice in one process, by the very functions with which a
worker trains. Nothing is said about larger cells: one that needs more memory, say, fails by itself. Only whether a cell
goes on after a pause is tried with every string and boolean that is searched, as nobody would notice that it does not.
"""

import itertools
import tempfile
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import DatasetInfo, Images, Labels
from fmnist_optuna.data.synthetic import draw_garments
from fmnist_optuna.data.weights import Weights
from fmnist_optuna.errors import MismatchError, SpecError
from fmnist_optuna.search.cell import BATCH_SIZE, Params, Point, make_point, make_points, trial_seed
from fmnist_optuna.search.space import drop_idle, points_of_each_choice, smallest_point
from fmnist_optuna.spec.options import OPTION_TYPES
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.training.callbacks import CallbackArguments, make_callbacks
from fmnist_optuna.training.cell_training import build_cell, train_cell
from fmnist_optuna.training.first_steps import try_values
from fmnist_optuna.training.loss_check import check_kept_loss, check_loss
from fmnist_optuna.training.metrics import ModelMetrics
from fmnist_optuna.training.pause_check import check_pause
from fmnist_optuna.training.probabilities import compute_probabilities, gives_logits
from fmnist_optuna.training.resident_data import ResidentData
from fmnist_optuna.training.step import TrainingStep
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.training.weights import load_weights, save_weights
from fmnist_optuna.user_modules.functions import as_spec_error
from fmnist_optuna.wording import format_params, reason_of

N_TRAIN_AT_MOST = 256  # two full batches of 128 or less; a larger batch is one step of all
N_VALIDATION_AT_MOST = 70  # more than a batch of 32 or 64, and a multiple of neither
N_EPOCHS = (2, 1)  # of the two trainings: one goes on after an epoch, one is cut at its first, as by a pruner
TOLERANCE = 1e-4  # of a probability, between equal weights in two models


def smallest_cell(spec: StudySpec) -> Point:
    """The cell with the smallest numbers: the cheapest to build."""
    if not spec.search.is_grid:
        return make_point(smallest_point(spec.dimensions))
    numbers = (int, float)

    def size(point: Point) -> list[float]:
        return [float(value) if isinstance(value, numbers) else 0.0 for _, value in sorted(point.params.items())]

    return min(make_points(spec.grid), key=size)


def cells_of_each_choice(spec: StudySpec) -> list[Params]:
    """The smallest cell, then cells that differ from it by strings and booleans alone: each of these is in one of them.

    There are as many as the longest list of choices has, as one cell has the next choice of every list. In a space one
    choice may depend on another, so there each has a cell of its own.
    """
    if not spec.search.is_grid:
        return points_of_each_choice(spec.dimensions)
    smallest = smallest_cell(spec).params
    others = {
        name: [value for value in values if isinstance(value, bool | str) and value != smallest[name]]
        for name, values in spec.grid.items()
    }
    rows = itertools.zip_longest(*([(name, value) for value in values] for name, values in others.items()))
    return [smallest, *({**smallest, **dict(filter(None, row))} for row in rows)]


def few_garments() -> tuple[Images, Labels]:
    """Drawn images and labels to rehearse with, where the study's own are of their form and not at hand."""
    images, labels, _, _ = draw_garments(N_VALIDATION_AT_MOST + N_TRAIN_AT_MOST, 0)
    return images, labels


def few_of(images: Images, labels: Labels, weights: Weights | None = None) -> tuple[Images, Labels, Weights | None]:
    """Some of a study's training images with what belongs to them, drawn at random: they may be in order."""
    drawn = np.random.default_rng(0).permutation(len(labels))[: N_VALIDATION_AT_MOST + N_TRAIN_AT_MOST]
    return np.asarray(images[drawn]), np.asarray(labels[drawn]), None if weights is None else np.asarray(weights[drawn])


def rehearse(
    code: UserCode, images: Images, labels: Labels, weights: Weights | None = None, *, pauses: bool = False
) -> None:
    """Train the smallest cell twice for a moment, as a worker would, and keep and score its weights.

    Args:
        code: Its specification bound.
        images: A few, (n, *image_shape), n >= 2.
        labels: (n,).
        weights: (n,); None where all count alike.
        pauses: Whether the study will pause its trainings, which then must go on as without a pause, whatever is chosen
            of the strings and booleans of its grid.

    Raises:
        SpecError: Anything that would fail every trial.
    """
    cell = smallest_cell(code.spec)
    seed = trial_seed(code.spec.training.seed, cell.cell_id)
    batch_size = int(cell.params.get(BATCH_SIZE, code.spec.training.batch_size))
    data = _split(code.info, images, labels, weights, batch_size)
    if code.spec.training.teacher:
        data = _with_any_teacher(data, code.info.n_classes)
    weighted = data.weighted(code.spec.training.class_weight)
    try:
        model = build_cell(code, cell.params, seed)
        check_loss(model, code, weighted)
        _check_metric(model, code)
        _make_callbacks(code, cell.params)
        _try_options(code, seed, weighted)
        if not code.is_users:  # what the product's own architecture does is known: its values alone are tried
            try_values(code, cell.params, seed, weighted, batch_size, _rule(code, cell.params))
            return
        for number, n_epochs in enumerate(N_EPOCHS, start=1):
            _rehearse_once(code, cell.params, seed, data, n_epochs, number)
            code.end()
        for params in cells_of_each_choice(code.spec) if pauses else ():
            check_pause(code, params, seed, data)
            code.end()
    finally:
        code.end()


def _try_options(code: UserCode, seed: int, data: ResidentData) -> None:
    """What the options that are searched ask of model and images, each number at its largest, each choice once.

    Raises:
        SpecError: The cells that have one of them could not be trained.
    """
    named = {name: code.spec.axes[name] for name in code.spec.axes.keys() & OPTION_TYPES.keys()}
    largest = {
        name: max(value for value in values if not isinstance(value, str))
        for name, values in named.items()
        if not code.architecture.takes(name) and not isinstance(OPTION_TYPES[name], tuple)
    }
    for params in cells_of_each_choice(code.spec) if named else ():
        tried, space = {**params, **largest}, code.spec.dimensions
        options = code.spec.options_of(drop_idle(space, tried) if space else tried, code.architecture.parameters)
        TrainingStep(build_cell(code, params, seed), data, options, code.spec.training.max_epochs, 1)
        code.end()


def _split(info: DatasetInfo, images: Images, labels: Labels, weights: Weights | None, batch_size: int) -> ResidentData:
    """Two full batches and a smaller one to train on, as far as the images and `N_TRAIN_AT_MOST` go."""
    n_validation = min(N_VALIDATION_AT_MOST, len(labels) // 2)
    n_validation -= n_validation == info.n_classes  # labels of as many images have the shape of a one-hot one
    n_train = max(info.n_classes, min(2 * batch_size + max(1, batch_size // 2), N_TRAIN_AT_MOST))
    train = slice(n_validation, n_validation + n_train)
    parts = images[train], labels[train], images[:n_validation], labels[:n_validation]
    return ResidentData.from_arrays(info, *parts, None if weights is None else weights[train])


def _with_any_teacher(data: ResidentData, n_classes: int) -> ResidentData:
    """With answers of a teacher that knows nothing: the real one may not be at hand."""
    n_images = int(data.train_images.shape[0])
    return data.with_soft_labels(np.full((n_images, n_classes), 1 / n_classes, np.float32))


def _make_callbacks(code: UserCode, params: Params) -> None:
    """Once by themselves, as what is wrong with them is then said without a training around it."""
    with tempfile.TemporaryDirectory(prefix="fmnist-optuna-") as folder:
        make_callbacks(code.callbacks, CallbackArguments(0, params, Path(folder)))


def _check_metric(model: keras.Model, code: UserCode) -> None:
    """Whether cells can be compared by the metric of the study."""
    metrics, name = ModelMetrics(model, code.info.n_classes), code.architecture.name
    metrics.check_objective(code.spec.metric, name)
    metrics.check_function(code.spec.metric, name)


def _rule(code: UserCode, params: Params, which: str = "") -> str:
    return f"{code.architecture.name} must train{which} with {format_params(params)}"


def _rehearse_once(code: UserCode, params: Params, seed: int, data: ResidentData, n_epochs: int, number: int) -> None:
    """Train, keep the weights and load them again, as a worker does and the test of a winner after it."""
    which = "" if number == 1 else " a second time in one process, as it did a first time,"
    rule = _rule(code, params, which)
    with as_spec_error(f"{rule}, but raised", "while it trains"):
        model, result = train_cell(code, params, seed, data, [], number - 1, n_epochs)
        if result.is_diverged:
            raise SpecError(f"{rule}, but its loss or its weights are not finite after its first steps.")
        _check_weights(model, code, params, seed, data, rule)


def _check_weights(
    model: keras.Model, code: UserCode, params: Params, seed: int, data: ResidentData, rule: str
) -> None:
    """The weights, saved and loaded into a new model, must give the answers that they gave."""
    answers = _answer(model, data)
    with tempfile.TemporaryDirectory(prefix="fmnist-optuna-") as folder:
        file = Path(folder) / "rehearsal.weights.h5"
        sha256 = save_weights(model, file)
        loaded = build_cell(code, params, seed)
        check_kept_loss(model, loaded, code)
        try:
            load_weights(loaded, file, sha256)
        except MismatchError as error:
            raise SpecError(
                f"{rule}, but its layers load other weights than they store, as those with LoRA do "
                f"({reason_of(error)}); leave enable_lora out, or store what is loaded."
            ) from error
    if not np.allclose(answers, _answer(loaded, data), rtol=0, atol=TOLERANCE):
        raise SpecError(f"{rule}, but its stored weights give other answers when they are loaded again.")


def _answer(model: keras.Model, data: ResidentData) -> NDArray[np.generic]:
    """Probabilities without a graph, as the training has traced it already: 0.2 s less each (measured 2026-11)."""
    return np.asarray(compute_probabilities([model], data.validation_images, gives_logits(model, data.info)))
