"""Options of the training in a study file and in a grid: which names there are, what they take, whose they are."""

import tomllib
from typing import Any

import pytest

from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.binding import bind_parameters, check_sides
from fmnist_optuna.spec.differences import differences
from fmnist_optuna.spec.idle_options import describe_idle
from fmnist_optuna.spec.options import OPTION_TYPES, PLAIN
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.spec.study_spec import StudySpec

DENSE = {"hidden_size": int, "dropout_rate": float, "learning_rate": float}


def read(text: str) -> StudySpec:
    return parse_spec(tomllib.loads(text), "study.toml")


def bind(grid: str, parameters: dict[str, Any] = DENSE, training: str = "") -> StudySpec:
    """A study whose grid has this beside one cell of the dense net."""
    study = f"name = 'mine'\n[grid]\nhidden_size = [8]\ndropout_rate = [0]\nlearning_rate = [0.1]\n{grid}\n{training}"
    return bind_parameters(read(study), parameters, frozenset())


@pytest.mark.parametrize(
    ("grid", "training", "place", "schedule"),
    [
        ("", "schedule = 'cosine'\nwarmup_epochs = 30.0", "training", "cosine"),
        ("warmup_epochs = [1, 30]", "schedule = 'one-cycle'", "grid", "one-cycle"),
        ("schedule = ['constant', 'cosine']", "warmup_epochs = 30.5", "training", "cosine"),
        ("schedule = ['constant', 'cosine']\nwarmup_epochs = [0, 31]", "", "grid", "cosine"),
    ],
)
def test_a_warm_up_leaves_a_schedule_epochs_to_fall_in(grid: str, training: str, place: str, schedule: str) -> None:
    """Wherever both stand; a constant rate may warm up as long as it likes."""
    with pytest.raises(SpecError) as error:
        bind(grid, training=f"[training]\n{training}")
    assert str(error.value).startswith(f"study mine: {place}.warmup_epochs must be less than training.max_epochs, 30, ")
    assert f'with schedule = "{schedule}", whose rate would never fall, but got 3' in str(error.value)
    free = [text.replace("cosine", "constant").replace("one-cycle", "constant") for text in (grid, training)]
    bind(free[0].replace("['constant', 'constant']", "['constant']"), training=f"[training]\n{free[1]}")
    bind(grid, training=f"[training]\nmax_epochs = 32\n{training}")


@pytest.mark.parametrize(
    ("space", "is_refused"),
    [
        ("schedule = ['constant', 'cosine']\nwarmup_epochs = {low = 0, high = 40}", True),
        ("schedule = ['constant', 'cosine']\nwarmup_epochs = {low = 0, high = 40, when = {schedule = 'cosine'}}", True),
        (
            "schedule = ['constant', 'cosine']\nwarmup_epochs = {low = 0, high = 40, when = {schedule = 'constant'}}",
            False,
        ),
        ("schedule = ['constant', 'cosine']\nwarmup_epochs = {low = 0, high = 29.5}", False),
        ("schedule = ['constant', 'cosine']\nx = ['a', 'b']\nwarmup_epochs = {choices = [40], when = {x = 'b'}}", True),
    ],
)
def test_a_warm_up_of_a_space_is_looked_at_beside_its_schedules(space: str, is_refused: bool) -> None:
    """The longest with each schedule that it may come with, and with no other."""
    text = f"name = 'mine'\n[search]\nsampler = 'random'\nn_trials = 3\n[space]\nlearning_rate = [0.1]\n{space}"
    parameters = {"learning_rate": float, "x": str}
    if not is_refused:
        bind_parameters(read(text), parameters, frozenset())
        return
    with pytest.raises(SpecError, match=r"^study mine: space\.warmup_epochs must be less .*, but got 40\.$"):
        bind_parameters(read(text), parameters, frozenset())


def test_a_study_without_options_has_none() -> None:
    """The default study trains as it did before there were any."""
    assert StudySpec().options_of({}, ()) == PLAIN
    assert (PLAIN.schedule, PLAIN.optimizer, PLAIN.horizontal_flip) == ("constant", "compiled", "none")
    assert not any((PLAIN.weight_decay, PLAIN.label_smoothing, PLAIN.ema, PLAIN.shift, PLAIN.erase, PLAIN.mixup))


def test_a_study_without_a_teacher_is_what_it_was() -> None:
    """What is stored of it and what its trainings are known by have no word of one."""
    assert "teacher" not in StudySpec().model_dump_json()
    taught = read("[training]\nteacher = 'other'")
    assert read("[training]\nteacher = ''") == StudySpec()
    lines = differences(StudySpec().trained_part(), taught.trained_part())
    given = {"teacher": '"other"', "teacher_temperature": "1", "teacher_weight": "0.9"}
    assert lines == [f"training.{key}: the study has nothing, this run {value}" for key, value in given.items()]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("[training]\nschedule = 'linear'", "training.schedule must be 'constant', 'cosine' or 'one-cycle'"),
        ("[training]\nweight_decay = -0.1", "training.weight_decay must be at least 0, but got -0.1"),
        ("[training]\nlabel_smoothing = 1", "training.label_smoothing must be at most 0.9, but got 1"),
        ("[training]\nlabel_smoothing = nan", "training.label_smoothing must be a finite number, but got nan"),
        ("[augment]\nmixup = nan", "augment.mixup must be a finite number, but got nan"),
        ("[training]\nema = 1.0", "training.ema must be at most 0.999999, but got 1.0"),
        ("[training]\noptimizer = 'lion'", "training.optimizer must be 'compiled', 'adam' or 'sgd'"),
        ("[training]\nteacher = 'a/confirm'", "training.teacher must be the name of a study, or empty, but got 'a/con"),
        ("name = 'mine'\n[training]\nteacher = 'mine'", "training.teacher must be another study, but mine is this one"),
        (
            "[training]\nteacher = 'a'\nteacher_temperature = 0",
            "training.teacher_temperature must be at least 0.1, but got 0",
        ),
        ("[training]\nteacher_weight = 1", "training must name a teacher where it has teacher_weight, but names none"),
        ("[augment]\nshift = 1.5", "augment.shift must be an integer, but got 1.5"),
        ("[augment]\nhorizontal_flip = true", "augment.horizontal_flip must be 'none', 'random' or 'alternating'"),
        ("[augment]\nrotate = 5", "unknown key augment.rotate; known here: horizontal_flip, shift, erase, mixup"),
    ],
)
def test_values_outside_their_range_are_refused(text: str, rule: str) -> None:
    """With the key, the rule and what came."""
    with pytest.raises(SpecError) as error:
        read(text)
    assert rule in str(error.value)


def test_a_grid_may_name_every_option() -> None:
    """A cell's own value goes before that of the study; the others are the study's."""
    spec = read("[training]\nweight_decay = 0.1\nema = 0.5")
    options = spec.options_of({"weight_decay": 0.2, "horizontal_flip": "random", "hidden_size": 8}, DENSE)
    assert (options.weight_decay, options.ema, options.horizontal_flip) == (0.2, 0.5, "random")
    for name, declared in OPTION_TYPES.items():
        values = list(declared[-1:]) if isinstance(declared, tuple) else [1 if name == "teacher_temperature" else 0]
        (value,) = bind(f"{name} = {values!r}", training="[training]\nteacher = 'other'").grid[name]
        assert type(value) is (str if isinstance(declared, tuple) else declared), name


@pytest.mark.parametrize(
    ("grid", "rule"),
    [
        ("ema = [0.5, 1.5]", "study mine: grid.ema must be at most 0.999999, but got 1.5"),
        (
            "schedule = ['cosine', 'linear']",
            "study mine: grid.schedule must be one of 'constant', 'cosine', 'one-cycle'",
        ),
        ("shift = [0.5]", "study mine: grid.shift must be int, but got 0.5"),
        (
            "teacher_weight = [0.5]",
            "study mine: grid.teacher_weight must go with a training.teacher, but the study has",
        ),
        (
            "momentum = [0.8, 0.9]",
            'study mine: grid.momentum must go with optimizer = "sgd", but no cell has that, and all its values would '
            "train the same net; give optimizer, or remove the key.",
        ),
        ("optimizer = ['adam', 'compiled']\nmomentum = [0.8, 0.9]", 'grid.momentum must go with optimizer = "sgd"'),
        ("learning_rate_floor = [0.0, 0.1]", "grid.learning_rate_floor must go with a schedule other than"),
        ("ema_after = ['step', 'epoch']", "grid.ema_after must go with an ema above 0, but no cell has that"),
        ("weight_decays = [0.5]", "a grid may have batch_size and the options of [training] and [augment] as well"),
    ],
)
def test_a_grid_obeys_the_same_rules(grid: str, rule: str) -> None:
    """What [training] and [augment] refuse, a grid may not have."""
    with pytest.raises(SpecError) as error:
        bind(grid)
    assert rule in str(error.value)


@pytest.mark.parametrize(
    ("grid", "training", "note"),
    [
        ("", "momentum = 0.9\nlearning_rate_floor = 0.0", None),
        ("", "momentum = 0.8", 'training.momentum does nothing, as no cell has optimizer = "sgd"'),
        ("", "momentum = 0.8\noptimizer = 'sgd'", None),
        ("optimizer = ['sgd', 'adam']", "momentum = 0.8", None),
        ("momentum = [0.8]", "", 'grid.momentum does nothing, as no cell has optimizer = "sgd"'),
        (
            "optimizer = ['sgd', 'adam']\nmomentum = [0.8, 0.9]",
            "",
            'cells without optimizer = "sgd" are the same for all values of grid.momentum',
        ),
        (
            "",
            "learning_rate_floor = 0.1\nema_after = 'epoch'",
            'training.learning_rate_floor does nothing, as no cell has a schedule other than "constant"; '
            "training.ema_after does nothing, as no cell has an ema above 0",
        ),
        ("schedule = ['constant', 'cosine']", "learning_rate_floor = 0.1", None),
        ("ema = [0.0, 0.9]", "ema_after = 'epoch'", None),
        (
            "",
            "teacher = 'large'\nteacher_weight = 0.0\nteacher_temperature = 2",
            "training.teacher_temperature does nothing, as no cell has a teacher_weight above 0",
        ),
        (
            "teacher_weight = [0.0, 0.9]\nteacher_temperature = [1, 2]",
            "teacher = 'large'",
            "cells without a teacher_weight above 0 are the same for all values of grid.teacher_temperature",
        ),
    ],
)
def test_options_that_do_nothing_are_told(grid: str, training: str, note: str | None) -> None:
    """What was meant to go with them was forgotten, or they are left from another study."""
    assert describe_idle(bind(grid, training=f"[training]\n{training}")) == note


def test_an_option_beside_a_choice_of_its_partner_counts() -> None:
    """As in the examples: the momentum of SGD alone; without SGD it is refused."""
    text = "[search]\nsampler = 'random'\nn_trials = 3\n[space]\nlearning_rate = [0.1]\noptimizer = ['adam', 'sgd']\n"
    text += "momentum = {low = 0.5, high = 0.9, when = {optimizer = 'sgd'}}"
    assert describe_idle(bind_parameters(read(text), DENSE, frozenset())) is None
    with pytest.raises(SpecError, match=r"space\.momentum must go with optimizer = \"sgd\""):
        bind_parameters(read(text.replace("sgd", "compiled")), DENSE, frozenset())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[augment]\nerase = 13", "augment.erase must be at most 12 for images of 14 x 12 pixels, but got 13"),
        ("[augment]\nshift = 12", "augment.shift must be at most 11 for images of 14 x 12 pixels, but got 12"),
        ("[grid]\nerase = [0, 28]", "grid.erase must be at most 12 for images of 14 x 12 pixels, but got 28"),
        ("[augment]\nerase = 12\nshift = 11", None),
        ("[augment]\nerase = 13\n[grid]\nerase = [1]", None),
    ],
)
def test_pictures_are_large_enough_for_what_is_done_to_them(text: str, expected: str | None) -> None:
    """Study, table and key are named; what no cell has is not looked at."""
    spec = read(f"name = 'mine'\n{text}")
    if expected is None:
        check_sides(spec, 14, 12, DENSE)
        return
    with pytest.raises(SpecError) as error:
        check_sides(spec, 14, 12, DENSE)
    assert str(error.value) == f"study mine: {expected}."


def test_a_name_of_the_architecture_means_that() -> None:
    """An architecture with a parameter `weight_decay` keeps it, whatever it takes; [training] means the training."""
    parameters = {**DENSE, "weight_decay": str}
    assert bind("weight_decay = ['much']", parameters).grid["weight_decay"] == ("much",)
    spec = read("[training]\nweight_decay = 0.1")
    assert spec.options_of({"weight_decay": "much"}, parameters).weight_decay == 0.1


def test_an_option_among_the_models_arguments_is_led_home() -> None:
    """[model] has the architecture's arguments; the refusal names the right table."""
    for name, table in (("weight_decay", "training"), ("shift", "augment")):
        with pytest.raises(
            SpecError, match=rf"model\.{name} must be a parameter of dense, .*; give it in \[{table}\]\."
        ):
            bind_parameters(read(f"[model]\n{name} = 1"), DENSE, frozenset())
