"""The tables [search], [space] and [[enqueue]] of a study file: what they mean, and what is refused in one line."""

import json
import tomllib

import pytest

from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.space import Dimension
from fmnist_optuna.spec.binding import Declared, bind_parameters
from fmnist_optuna.spec.growth import find_obstacles, grow, is_known, read_space, stage_of
from fmnist_optuna.spec.reading import parse_spec, restore_spec
from fmnist_optuna.spec.study_spec import StudySpec

RANDOM = '[search]\nsampler = "random"\nn_trials = 5\n'
SPACE = '[space]\nact = ["relu", "gelu"]\nalpha = {low = 0.0, high = 1.0, when = {act = "gelu"}}\n'
LIMITS = "low = 1, high = 2"


def read(text: str) -> StudySpec:
    """A study file."""
    return parse_spec(tomllib.loads(text), "study.toml")


def refusal(text: str) -> str:
    """Why it is refused, in the one line that there must be."""
    with pytest.raises(SpecError) as raised:
        read(text)
    (line,) = str(raised.value).splitlines()
    return line


def test_a_space_says_what_it_samples() -> None:
    """Ranges by their ends, with log or step; lists are choices; a condition may be one value or several."""
    spec = read(
        f"{RANDOM}{SPACE}"
        "units = {low = 32, high = 512, step = 32}\n"
        "rate = {low = 1e-4, high = 0.1, log = true}\n"
        'norm = {choices = ["batch", "layer"], when = {act = ["relu", "gelu"]}}\n'
    )
    assert (spec.n_cells, spec.searched, spec.grid) == (5, "space", {})
    assert spec.dimensions == {
        "act": Dimension(choices=("relu", "gelu")),
        "alpha": Dimension(low=0.0, high=1.0, when={"act": ("gelu",)}),
        "units": Dimension(low=32, high=512, step=32),
        "rate": Dimension(low=1e-4, high=0.1, log=True),
        "norm": Dimension(choices=("batch", "layer"), when={"act": ("relu", "gelu")}),
    }
    assert spec.axes["units"] == (32, 512)
    assert spec.axes["act"] == ("relu", "gelu")


def test_what_is_stored_is_what_was_read() -> None:
    """A search in the form that a study keeps, and each stage of it, says the same when it is read again."""
    spec = read(f'{RANDOM}{SPACE}[[enqueue]]\nact = "gelu"\nalpha = 0.0')
    stored = json.loads(spec.model_dump_json())
    assert restore_spec(stored, "test") == spec
    assert "grid" not in stored
    assert read_space(json.loads(json.dumps(stage_of(spec)))) == spec.dimensions


def test_a_study_of_a_grid_is_stored_as_before() -> None:
    """No table more, and the same digest, as the studies that are there were made without."""
    assert StudySpec().digest == "0d50d70be759c849f867531f1c8db49153e749feb9d2c209cfa213e23e3f2ab7"
    assert read('[search]\nsampler = "grid"') == StudySpec()


def test_no_search_changes_what_a_cell_trains() -> None:
    """Sampler and seed must agree between runs, but a training depends on neither; what may grow need not agree."""
    spec = read(f"{RANDOM}{SPACE}")
    assert spec.fixed_part()["search"] == {"sampler": "random", "seed": 0}
    assert not {"search", "space", "enqueue"} & spec.trained_part().keys()
    assert not {"space", "enqueue"} & spec.fixed_part().keys()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RANDOM, 'space must be given with search.sampler = "random"'),
        (
            '[search]\nsampler = "tpe"\n[space]\nx = [1, 2]',
            'search must have n_trials with sampler = "tpe", but has none',
        ),
        (f"{RANDOM.replace('5', '0')}[space]\nx = [1, 2]", "search.n_trials must be at least 1, but got 0"),
        (f"{RANDOM.replace('5', '1.5')}[space]\nx = [1, 2]", "search.n_trials must be an integer, but got 1.5"),
        ("[search]\nn_trials = 5", 'search must have another sampler than "grid" where it has n_trials'),
        ('[search]\nsampler = "cmaes"', "search.sampler must be 'grid', 'random', 'tpe' or 'qmc', but got 'cmaes'"),
        (
            f"{RANDOM.replace('random', 'tpe')}[grid]\nx = [1]\ny = [2]\n[space]\nz = [1, 2]",
            'grid must not be given with search.sampler = "tpe", which takes points of [space]; move x, y there',
        ),
        ("[space]\nx = [1, 2]", 'space must go with search.sampler = "random", "tpe" or "qmc", but has "grid"'),
        ("[[enqueue]]\nx = 1", 'enqueue must go with search.sampler = "random", "tpe" or "qmc", but has "grid"'),
        (f"{RANDOM}[space]\nx = {{{LIMITS}}}\n[model]\nx = 1", "x must be in [space] or in [model], but is in both"),
    ],
)
def test_tables_must_fit_one_another(text: str, expected: str) -> None:
    """A grid with a sampler of a space, a space without one, a number of trials that says nothing."""
    assert refusal(text) == f"study.toml: {expected}."


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("{low = 2, high = 1}", " must have a low of at most its high, but has 2 and 1"),
        ("{low = 0, high = 1, log = true}", " must have a low above 0 with log = true, but has 0"),
        ("{low = 0.0, high = inf}", ".high must be finite, but got inf"),
        ("{low = nan, high = 1}", ".low must be finite, but got nan"),
        ("{low = 1, high = 4, step = 2}", " must have a high that is low and whole steps, but has 1, 4 and step 2"),
        ("{low = 1, high = 4, step = 0}", " must have a step above 0, but has 0"),
        ("{low = 1, high = 4, step = 1, log = true}", " must have log or step, but has both"),
        ("{low = 1}", " must have low and high, or choices, but lacks high"),
        ("{high = 1}", " must have low and high, or choices, but lacks low"),
        ('{low = "a", high = 2}', ".low must be a number, but got 'a'"),
        ("{low = true, high = 2}", ".low must be a number, but got True"),
        ("3", " must be a list of choices, or a table with low and high, but got 3"),
        ("[]", " must have at least one choice, but has none"),
        ("{choices = []}", " must have at least one choice, but has none"),
        ("{choices = [1, 2], low = 1}", " must have choices or a range, but has choices and low"),
        ('["a", 1]', " must be all numbers, all strings or all true / false, but is ['a', 1]"),
        ('["a", "a"]', " must have distinct values, but 'a' is there twice"),
        (f"{{{LIMITS}, when = {{z = 1}}}}", ".when must name other keys of [space], but z is none; it has y, x"),
        (f'{{{LIMITS}, when = {{y = "c"}}}}', ".when must have choices of y, but has 'c'"),
        (f"{{{LIMITS}, when = {{y = []}}}}", ".when must have a value of y, but has none"),
        (f"{{{LIMITS}, when = {{x = 1}}}}", ".when must name keys with choices, but x has a range"),
        (f'{{{LIMITS}, when = "y"}}', ".when must be a table, but got 'y'"),
        (f'{{{LIMITS}, log = "yes"}}', ".log must be true or false, but got 'yes'"),
        (
            "{low = 0.0, high = 1.0, step = 1e-300}",
            " must have at most 2**53 values, but has 0 to 1 in steps of 1e-300",
        ),
        (
            "{low = 0.0, high = 1000.0, step = 1e-6}",
            " must have a step of at least 1e-7 of its farther end, as numbers are rounded, but has 0 to 1000 in steps "
            "of 1e-06",
        ),
        (
            "{low = 0, high = 1e10, step = 1e-300}",
            " must have at most 2**53 values, but has 0 to 1e+10 in steps of 1e-300",
        ),
    ],
)
def test_a_wrong_parameter_is_told_in_one_line(table: str, expected: str) -> None:
    """With the key, what must hold, and what came."""
    assert refusal(f'{RANDOM}[space]\ny = ["a", "b"]\nx = {table}') == f"study.toml: space.x{expected}."


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hidden_size = {low = 0, high = 8}", "hidden_size.low must be an integer of at least 1, but got 0"),
        (
            "hidden_size = {low = 8.0, high = 16.0}",
            "hidden_size must have integers, written without a point, but has 8.0 to 16.0",
        ),
        ("dropout_rate = {low = 0, high = 1}", "dropout_rate.high must be at least 0 and less than 1, but got 1"),
        (
            "learning_rate = {low = 0.0, high = 1.0}",
            "learning_rate.low must be from 1e-12 to 1e+06, but got 0.0",
        ),
        ("x = {low = 1, high = 2, lgo = true}", "x.lgo"),
    ],
)
def test_known_parameters_have_their_own_rules(line: str, expected: str) -> None:
    """Those of a grid hold for the ends of a range as well; a misspelt key is named."""
    text = refusal(f"{RANDOM}[space]\n{line}")
    if "lgo" in line:
        assert text == f"study.toml: unknown key space.{expected}; known here: low, high, log, step, choices, when."
    else:
        assert text == f"study.toml: space.{expected}."


def test_a_circle_of_conditions_is_refused() -> None:
    """None of them could be decided first."""
    first, second = ("{choices = [1, 2], when = {b = 1}}", "{choices = [1, 2], when = {a = 1}}")
    text = refusal(f"{RANDOM}[space]\na = {first}\nb = {second}")
    assert text == "study.toml: space.a, b must not depend on one another in a circle."


@pytest.mark.parametrize(
    ("enqueued", "expected"),
    [
        ("[[enqueue]]\nact2 = 1", "enqueue must name keys of [space], but act2 is none (number 1)"),
        ("[[enqueue]]", "enqueue must have a value for each point, but one is empty (number 1)"),
        ('[[enqueue]]\nact = "tanh"', "enqueue must have a value of space.act, but has 'tanh' (number 1)"),
        ("[[enqueue]]\nact = [1]", "enqueue.act must be numbers, strings or true / false, but got [1]"),
        ('[[enqueue]]\nact = "relu"\n' * 6, "enqueue must have at most search.n_trials points, 5, but has 6"),
    ],
)
def test_wrong_points_to_try_are_told_in_one_line(enqueued: str, expected: str) -> None:
    """Which of them it is, and what it should be."""
    assert refusal(f"{RANDOM}{SPACE}{enqueued}") == f"study.toml: {expected}."


def bind(text: str) -> StudySpec:
    """A study file bound to an architecture of four parameters, one of them without a default."""
    parameters: dict[str, Declared] = {"units": int, "rate": float, "act": ("relu", "gelu"), "is_wide": bool}
    return bind_parameters(read(RANDOM + text), parameters, frozenset({"units"}))


def test_a_space_gets_the_declared_types() -> None:
    """A float's range is one of floats however it was written, and so are its enqueued values."""
    spec = bind("[space]\nunits = {low = 1.0, high = 4.0}\nrate = {low = 0, high = 1}\n[[enqueue]]\nrate = 1")
    assert spec.dimensions["units"].is_integer
    assert repr(spec.dimensions["rate"].ends) == "(0.0, 1.0)"
    assert repr(spec.enqueue[0]["rate"]) == "1.0"


def test_points_to_try_follow_the_declared_types() -> None:
    """Half of a range of floats is one of its values however the ends are written, and of integers it is none."""
    ranges = "[space]\nunits = {low = 0, high = 4}\nrate = {low = 0, high = 1}\n[[enqueue]]\n"
    assert bind(f"{ranges}rate = 0.5").enqueue == ({"rate": 0.5},)
    assert bind(f"{ranges}units = 2.0").enqueue == ({"units": 2},)
    with pytest.raises(SpecError, match=r"enqueue\.units must be int, but got 0\.5"):
        bind(f"{ranges}units = 0.5")


def test_points_to_try_follow_a_range_of_no_type() -> None:
    """Where an architecture declares nothing, a range whose ends are integers is one of integers."""
    text = "[space]\nx = {low = 0, high = 1}\n[[enqueue]]\nx = 0.5"
    with pytest.raises(SpecError, match=r"enqueue must have a value of space\.x, but has 0\.5 \(number 1\)"):
        bind_parameters(read(RANDOM + text), {"x": None}, frozenset())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("units = {low = 1.5, high = 2.5}", "space.units.low must be int, but got 1.5"),
        ("rate = [0.1]", "units must be given in [space] or [model], as dense has no default for it"),
        (
            "units = [1]\nact = {low = 1, high = 2}",
            "space.act must have choices, as each is to be one of 'relu', 'gelu'",
        ),
        ("units = [1]\nis_wide = {low = 0, high = 1}", "space.is_wide must have choices, as each is to be bool"),
        ('units = [1]\nact = ["tanh"]', "space.act must be one of 'relu', 'gelu', but got 'tanh'"),
        ("units = [1]\ndepth = [1]", "space.depth must be a parameter of dense"),
        ("units = [1]\nlabel_smoothing = {low = 0.0, high = 0.95}", "space.label_smoothing must be at most 0.9"),
        (
            'act = ["relu", "gelu"]\nunits = {low = 1, high = 2, when = {act = "relu"}}',
            "space.units must be there whatever else is, without a `when`, as dense has no default for it",
        ),
    ],
)
def test_a_space_must_suit_the_architecture(text: str, expected: str) -> None:
    """Types, names, ranges of options, and no condition on what has no default."""
    with pytest.raises(SpecError) as raised:
        bind(f"[space]\n{text}")
    assert str(raised.value).startswith(f"study fashion-mnist: {expected}")


def stage(n_trials: int, units: str = "low = 32, high = 128, step = 32", enqueued: str = "") -> StudySpec:
    """A stage of one search."""
    return read(f'{RANDOM.replace("5", str(n_trials))}[space]\nunits = {{{units}}}\nact = ["a", "b"]\n{enqueued}')


POINT = "[[enqueue]]\nunits = 64\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (stage(20, enqueued=POINT), []),
        (stage(5, enqueued=POINT), []),
        (stage(10, "low = 0, high = 256, step = 32", POINT), []),
        (stage(12, enqueued=2 * POINT), []),
        (
            stage(10, "low = 64, high = 128, step = 32", POINT),
            [
                "space.units: the study has 32 to 128, step 32, this run 64 to 128, step 32; "
                "a range may become wider, and all else must stay"
            ],
        ),
        (stage(20), ["enqueue: the study has 1 point, with which those of this run must begin"]),
        (
            stage(10, enqueued=2 * POINT),
            [
                "enqueue: each further point must have a cell of its own, but there are 1 for 0 further cells; "
                "set search.n_trials to at least 11"
            ],
        ),
    ],
)
def test_a_search_may_grow_and_not_shrink(given: StudySpec, expected: list[str]) -> None:
    """More trials, wider ranges, further points; what was there must be in it."""
    assert find_obstacles(stage(10, enqueued=POINT), given) == expected


def test_an_earlier_study_file_is_accepted_again() -> None:
    """It asks for nothing new, and the study keeps all that it has."""
    accepted = [stage(10), stage(20, "low = 32, high = 256, step = 32")]
    assert is_known(accepted, stage(10))
    assert grow(accepted, stage(10)) == accepted[-1]
    assert not is_known(accepted, stage(30))
    assert grow(accepted, stage(15, "low = 32, high = 512, step = 32")).n_cells == 20
