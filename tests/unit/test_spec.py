"""The study file: every promise of `spec`. Errors first: each names the place, the key, the rule and what came."""

import contextlib
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmnist_optuna.errors import SpecError
from fmnist_optuna.search.ladder import LadderRule
from fmnist_optuna.spec.binding import bind_parameters
from fmnist_optuna.spec.reading import parse_spec, read_spec
from fmnist_optuna.spec.study_names import command_of
from fmnist_optuna.spec.study_spec import StudySpec

NAME_RULE = "name must be letters, digits, dots, dashes and underscores, at most 100, the first a letter or digit"
ACCEPTED = "must be a parameter of dense, which accepts dropout_rate, hidden_size, learning_rate"
OF_TRAINING = "; a grid may have batch_size and the options of [training] and [augment] as well"
DENSE = {"hidden_size": int, "dropout_rate": float, "learning_rate": float}


def refusal(text: str) -> str:
    """What is said about a study file with this text."""
    with pytest.raises(SpecError) as error:
        parse_spec(tomllib.loads(text), "study.toml")
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "nmae = 'a'",
            "unknown key nmae; known here: name, data, model, search, space, enqueue, grid, training, augment, "
            "objective, pruner, confirm",
        ),
        (
            "[training]\nepochs = 3",
            "unknown key training.epochs; known here: batch_size, max_epochs, patience, keep_weights, seed, callbacks, "
            "checkpoint_seconds, teacher, threads, class_weight, optimizer, momentum, schedule, warmup_epochs, "
            "learning_rate_floor, weight_decay, label_smoothing, ema, ema_after, teacher_weight, teacher_temperature",
        ),
        (
            "[data]\nsplit = 1",
            "unknown key data.split; known here: source, n_validation, folds, split_seed, size, mode, resize, "
            "skip_broken, test_share, class_names",
        ),
        ("[grid]", "grid must name at least one parameter, but is empty"),
        ("grid = 3", "grid must be a table, but got 3"),
        ("[grid]\nhidden_size = 64", "grid.hidden_size must be a list, but got 64"),
        (
            "[grid]\nhidden_size = {low = 32, high = 64}",
            "grid.hidden_size must be a list, but got a table; a range belongs in [space], beside a [search]",
        ),
        ("[grid]\nhidden_size = []", "grid.hidden_size must have at least one value, but is empty"),
        ("[grid]\nhidden_size = [64, 64.0]", "grid.hidden_size must have distinct values, but 64.0 is there twice"),
        (
            '[grid]\nkind = ["relu", "\\u001b[2Jgelu"]',
            r"grid.kind must be text that can be printed in one line, but got '\x1b[2Jgelu'",
        ),
        ("[grid]\nhidden_size = [0]", "grid.hidden_size must be an integer of at least 1, but got 0"),
        ("[grid]\nhidden_size = [1.5]", "grid.hidden_size must be an integer of at least 1, but got 1.5"),
        ("[grid]\nhidden_size = [true]", "grid.hidden_size must be an integer of at least 1, but got True"),
        ("[grid]\ntraining_seed = [-1]", "grid.training_seed must be an integer of at least 0, but got -1"),
        ("[grid]\nbatch_size = [0]", "grid.batch_size must be an integer of at least 1, but got 0"),
        ("[grid]\ndropout_rate = [1.0]", "grid.dropout_rate must be at least 0 and less than 1, but got 1.0"),
        ("[grid]\ndropout_rate = [-0.1]", "grid.dropout_rate must be at least 0 and less than 1, but got -0.1"),
        ("[grid]\ndropout_rate = ['0.1']", "grid.dropout_rate must be at least 0 and less than 1, but got '0.1'"),
        ("[grid]\nlearning_rate = [0.0]", "grid.learning_rate must be from 1e-12 to 1e+06, but got 0.0"),
        ("[grid]\nlearning_rate = [1e-13]", "grid.learning_rate must be from 1e-12 to 1e+06, but got 1e-13"),
        ("[grid]\nlearning_rate = [1e7]", "grid.learning_rate must be from 1e-12 to 1e+06, but got 10000000.0"),
        ("[grid]\nlearning_rate = [nan]", "grid.learning_rate must be finite, but got nan"),
        ("[grid]\nwidth = [inf]", "grid.width must be finite, but got inf"),
        ("[grid]\nwidth = [1e301]", "grid.width must be at most 1e+300 in size, but got 1e+301"),
        ("[grid]\nwidth = [9007199254740993]", "grid.width must be at most 2**53 in size, but got 9007199254740993"),
        (
            "[grid]\nwidth = [1, true]",
            "grid.width must be all numbers, all strings or all true / false, but is [1, True]",
        ),
        (
            "[grid]\nwidth = [2024-01-01]",
            "grid.width must be numbers, strings or true / false, but got datetime.date(2024, 1, 1)",
        ),
        ("name = ''", f"{NAME_RULE}, but got ''"),
        ("name = 'a/confirm'", f"{NAME_RULE}, but got 'a/confirm'"),
        ("name = 'a/all-data'", f"{NAME_RULE}, but got 'a/all-data'"),
        ("[training]\nkeep_weights = 'first'", "training.keep_weights must be 'best' or 'last', but got 'first'"),
        ("name = 3", "name must be a string, but got 3"),
        (
            "[data]\nsource = 'mnist'",
            'data.source must be "auto", "fashion-mnist", "synthetic", "idx:DIR", "folder:DIR", "npz:FILE", '
            '"keras:NAME" or "package.module:function", but got \'mnist\'',
        ),
        ("[data]\nsource = 'folder:a'\nsize = [3]", "data.size must be height and width, but got [3]"),
        ("[data]\nsource = 'folder:a'\nsize = [3, 0]", "data.size must be at least 1, but got 0"),
        (
            f"[data]\nsource = 'npz:{'x' * 509}'",
            f"data.source must have at most 512 characters, but got 'npz:{'x' * 112}...",
        ),
        ("[data]\nmode = 'grey'", "data.mode must go with a source folder:, but source is 'auto'"),
        (
            "[data]\nsource = 'idx:a'\ntest_share = 0.2",
            "data.test_share must go with a source folder: or npz: or package.module:function, but source is 'idx:a'",
        ),
        ("[data]\nn_validation = 1", "data.n_validation must be at least 2, but got 1"),
        ("[data]\nn_validation = 12000.0", "data.n_validation must be an integer, but got 12000.0"),
        ("data = 3", "data must be a table, but got 3"),
        ("[training]\nmax_epochs = 0", "training.max_epochs must be at least 1, but got 0"),
        ("[training]\nseed = -1", "training.seed must be at least 0, but got -1"),
        ("[training]\ncallbacks = ['f']", "training.callbacks must be \"package.module:function\", but got 'f'"),
        (
            "[model]\narchitecture = 'cnn'",
            'model.architecture must be "dense", "conv", "resnet" or "package.module:function", but got \'cnn\'',
        ),
        (
            "[model]\ndropout_rate = 2.0\n[grid]\nhidden_size = [1]",
            "model.dropout_rate must be at least 0 and less than 1, but got 2.0",
        ),
        ("[model]\nn_hidden_layers = -1", "model.n_hidden_layers must be an integer of at least 0, but got -1"),
        ("[grid]\nn_hidden_layers = [0, -1]", "grid.n_hidden_layers must be an integer of at least 0, but got -1"),
        ("[grid]\nn_hidden_layers = [1.5]", "grid.n_hidden_layers must be an integer of at least 0, but got 1.5"),
        ("[grid]\nn_hidden_layers = [true]", "grid.n_hidden_layers must be an integer of at least 0, but got True"),
        ("[model]\ninput_dropout = 1.0", "model.input_dropout must be at least 0 and less than 1, but got 1.0"),
        ("[grid]\ninput_dropout = [-0.1]", "grid.input_dropout must be at least 0 and less than 1, but got -0.1"),
        (
            "[model]\nhidden_size = 64",
            "hidden_size must be in [grid] or in [model], but is in both, as it is in the default grid; give a [grid]",
        ),
        ("[model]\nx = 1\n[grid]\nx = [1]", "x must be in [grid] or in [model], but is in both"),
        ("[pruner]\nname = 'hyperband'", "pruner.name must be 'ladder', 'median' or 'none', but got 'hyperband'"),
        (
            "[pruner]\nname = 'none'\nn_min_trials = 2",
            'pruner must not be given with name = "none"; remove n_min_trials',
        ),
        ("[pruner]\nn_min_trials = 1", 'pruner must not be given with name = "ladder"; remove n_min_trials'),
        (
            "[pruner]\nname = 'ladder'\nn_min_trials = 2\ninterval_steps = 1",
            'pruner must not be given with name = "ladder"; remove interval_steps, n_min_trials',
        ),
        ("[pruner]\nname = 'ladder'\nfirst_rung = 0", "pruner.first_rung must be at least 1, but got 0"),
        ("[pruner]\nname = 'ladder'\nfirst_rung = 2.0", "pruner.first_rung must be an integer, but got 2.0"),
        ("[pruner]\nname = 'ladder'\nkappa = -0.5", "pruner.kappa must be at least 0, but got -0.5"),
        ("[pruner]\nname = 'ladder'\nkappa = nan", "pruner.kappa must be a finite number, but got nan"),
        ("[pruner]\nname = 'ladder'\nkappa = true", "pruner.kappa must be a number, but got True"),
        ("[pruner]\nname = 'ladder'\nmargin = inf", "pruner.margin must be a finite number, but got inf"),
        ("[pruner]\nname = 'ladder'\nmargin = 1000.5", "pruner.margin must be at most 1000, but got 1000.5"),
        ("[pruner]\nname = 'ladder'\nmargin = '1'", "pruner.margin must be a number, but got '1'"),
        ("[confirm]\nseeds = 1", "confirm.seeds must be at least 2, but got 1"),
    ],
)
def test_a_broken_rule_is_told_in_one_line(text: str, expected: str) -> None:
    """The person sees at once what to change in which file."""
    assert refusal(text) == f"study.toml: {expected}."


@pytest.mark.parametrize(
    ("architecture", "name", "value", "rule"),
    [
        ("conv", "width_1", 0, "be an integer of at least 1"),
        ("conv", "width_2", -8, "be an integer of at least 1"),
        ("conv", "width_3", 2.5, "be an integer of at least 1"),
        ("conv", "logit_scale", 0.0, "be above 0"),
        ("conv", "logit_scale", -1.0, "be above 0"),
        ("resnet", "width", 0, "be an integer of at least 1"),
        ("resnet", "n_blocks", 0, "be an integer of at least 1"),
    ],
)
def test_built_in_architectures_keep_their_ranges(architecture: str, name: str, value: float, rule: str) -> None:
    """What they document is held in [model], in a grid, and at both ends of a range; own architectures are free."""
    said = f"{name} must {rule}, but got {value!r}."
    low, high = sorted((value, 4 if isinstance(value, int) else 4.5))
    search = "[search]\nsampler = 'random'\nn_trials = 2\n[space]\nlearning_rate = [0.1]\n"
    for table, tables in (
        ("model", f"{name} = {value}\n[grid]\nlearning_rate = [0.1]"),
        ("grid", f"[grid]\n{name} = [{value}]"),
        ("space", f"{search}{name} = [{value}]"),
        ("space", f"{search}{name} = {{low = {low}, high = {high}}}"),
    ):
        text = f"[model]\narchitecture = '{architecture}'\n{tables}"
        assert refusal(text) == f"study.toml: {table}.{said}"
        parse_spec(tomllib.loads(text.replace(f"'{architecture}'", "'mine:build'")), "study.toml")


def test_a_grid_beyond_a_million_cells_is_refused() -> None:
    """The number of cells is counted, not built."""
    values = list(range(101))
    with pytest.raises(SpecError, match=r"grid must have at most 1,000,000 cells, but has 1,030,301"):
        parse_spec({"grid": {"a": values, "b": values, "c": values}}, "study.toml")


def test_a_study_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the command that shows an example."""
    with pytest.raises(SpecError, match=r"nowhere.toml: must be a readable study file.*`fmnist-optuna spec example`"):
        read_spec(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"name = 'a'\nname = 'b'"])
def test_a_study_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    """Broken syntax, bytes that are no text, and a key twice."""
    (tmp_path / "study.toml").write_bytes(content)
    with pytest.raises(SpecError, match=r"study\.toml: must be"):
        read_spec(tmp_path / "study.toml")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"grid": {"width": [3]}}, f"grid.width {ACCEPTED}{OF_TRAINING}"),
        ({"model": {"width": 3}}, f"model.width {ACCEPTED}"),
        ({"model": {"batch_size": 3}}, f"model.batch_size {ACCEPTED}"),
        (
            {"grid": {"hidden_size": [64]}},
            "learning_rate must be given in [grid] or [model], as dense has no default for it",
        ),
    ],
)
def test_a_parameter_unknown_to_the_architecture_is_refused(content: dict[str, Any], expected: str) -> None:
    """Grid and model may name what its function accepts; what has no default must be there."""
    with pytest.raises(SpecError) as error:
        bind_parameters(parse_spec(content, "test"), DENSE, frozenset({"learning_rate"}))
    assert str(error.value) == f"study fashion-mnist: {expected}."


@pytest.mark.parametrize(
    ("declared", "value", "name"),
    [
        (int, 1.5, "int"),
        (int, "1", "int"),
        (float, True, "float"),
        (bool, 1, "bool"),
        (str, 1, "str"),
        (int, 1e300, "int"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(declared: type, value: Any, name: str) -> None:
    """What is not exactly a value of the declared type is not bent into one."""
    spec = parse_spec({"grid": {"width": [value]}}, "test")
    with pytest.raises(SpecError) as error:
        bind_parameters(spec, {"width": declared}, frozenset())
    assert str(error.value) == f"study fashion-mnist: grid.width must be {name}, but got {value!r}."


def test_without_any_key_it_is_the_27_cell_study() -> None:
    """An empty file is the default study on Fashion-MNIST."""
    spec = parse_spec({}, "test")
    assert spec == StudySpec()
    assert {name: len(values) for name, values in spec.grid.items()} == {
        "hidden_size": 3,
        "dropout_rate": 3,
        "learning_rate": 3,
    }
    assert (spec.training.batch_size, spec.training.max_epochs, spec.training.patience) == (32, 30, 5)


def test_every_value_gets_its_declared_type() -> None:
    """64.0 becomes 64 for an int, 0 becomes 0.0 for a float, in the grid and in the fixed arguments."""
    content = {"grid": {"hidden_size": [64.0], "dropout_rate": [0]}, "model": {"learning_rate": 1}}
    spec = bind_parameters(parse_spec(content, "test"), DENSE, frozenset())
    values = (*spec.grid["hidden_size"], *spec.grid["dropout_rate"], spec.model.arguments["learning_rate"])
    assert [(type(value), value) for value in values] == [(int, 64), (float, 0.0), (float, 1.0)]


def test_a_parameter_without_a_declared_type_stays_as_written() -> None:
    """A user's function need not annotate."""
    spec = bind_parameters(parse_spec({"grid": {"width": [1, 2.5]}}, "test"), {"width": None}, frozenset())
    assert spec.grid["width"] == (1, 2.5)
    assert isinstance(spec.grid["width"][0], int)


def test_the_command_of_a_study_is_the_one_that_makes_it() -> None:
    """A study with folds is not confirmed: `run` trains its best point on all data."""
    commands = {name: (command_of(name), command_of(name, 3)) for name in ("small", "small/confirm", "small/all-data")}
    assert commands == {
        "small": ("run", "run"),
        "small/confirm": ("confirm small", "run"),
        "small/all-data": ("confirm small --all-data", "run"),
    }


def test_a_specification_cannot_be_changed() -> None:
    """It is what the study was accepted as."""
    with pytest.raises(ValueError, match="frozen"):
        StudySpec().name = "other"


def test_the_rule_of_the_ladder_is_that_of_the_study() -> None:
    """Its rungs lie below the last epoch, its standard errors are those of the validation images."""
    content = {
        "pruner": {"name": "ladder", "first_rung": 3, "kappa": 2, "margin": 0.5},
        "data": {"n_validation": 500},
        "training": {"max_epochs": 13},
    }
    rule = parse_spec(content, "test").ladder_rule()
    assert rule == LadderRule(first_rung=3, kappa=2.0, margin=0.5, n_validation=500, max_epochs=13, keep=3)
    assert rule.rungs() == (3, 6, 12)


NAMES = st.sampled_from(["name", "data", "model", "grid", "training", "pruner", "source", "seed", "x"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
TREES = st.recursive(
    LEAVES, lambda leaf: st.lists(leaf, max_size=3) | st.dictionaries(NAMES, leaf, max_size=4), max_leaves=12
)


@given(TREES)
def test_any_file_gives_a_specification_or_a_spec_error(tree: Any) -> None:
    """No content of a study file ends in a traceback."""
    content = tree if isinstance(tree, dict) else {"grid": tree}
    with contextlib.suppress(SpecError):
        assert isinstance(parse_spec(content, "study.toml"), StudySpec)


@pytest.mark.parametrize(
    "encode", [str.encode, lambda text: text.encode("utf-8-sig"), lambda text: crlf(text).encode()]
)
def test_a_study_file_is_read_as_editors_save_it(tmp_path: Path, encode: Callable[[str], bytes]) -> None:
    """With a byte order mark or without, with the line ends of any system."""
    file = tmp_path / "study.toml"
    file.write_bytes(encode('name = "mine"\n# Größe\n[training]\nmax_epochs = 7\n'))
    spec = read_spec(file)
    assert (spec.name, spec.training.max_epochs) == ("mine", 7)


def crlf(text: str) -> str:
    return text.replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('name = "mine"'.encode("utf-16"), "must be UTF-8, but is UTF-16"),
        ('name = "mine"'.encode("utf-16-be"), "must be UTF-8, but is UTF-16"),
        ('a = 1\n# "größe"'.encode("latin-1"), "must be UTF-8, but has byte 0xf6 in line 2"),
        (b"\x7fELF\0\0", "must be UTF-8, but is UTF-16 or no text"),
        (b"# \n" * 4_000_000, "more than 10,000,000 bytes"),
    ],
)
def test_a_file_that_is_no_text_is_told_so(tmp_path: Path, content: bytes, words: str) -> None:
    """Not as a broken rule of TOML."""
    file = tmp_path / "study.toml"
    file.write_bytes(content)
    with pytest.raises(SpecError, match=words):
        read_spec(file)


def test_what_cannot_be_read_is_no_study_file(tmp_path: Path) -> None:
    """A folder, a name too long, an endless device."""
    for path, words in {
        tmp_path: "Is a directory",
        tmp_path / ("x" * 300): "File name too long",
        Path("/dev/zero"): "more than",
        Path("a\0b"): "null",
    }.items():
        with pytest.raises(SpecError, match=words):
            read_spec(path)
