"""From a name in the study file to a compiled model: the dense one, a user's own, and what is refused before a run."""

from typing import Any

import pytest
from rehearsing import prepare_spec
from users_modules import MakeModule

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.reading import parse_spec
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.spec.values import RULES, RULES_OF_BUILT_IN
from fmnist_optuna.training.architecture import BUILT_IN, build_model, load_architecture
from fmnist_optuna.training.cell_training import build_cell
from fmnist_optuna.training.rehearsal import smallest_cell
from fmnist_optuna.training.user_code import UserCode
from fmnist_optuna.user_modules.search_path import describe_places

pytestmark = pytest.mark.usefixtures("one_thread")


def make_spec(**tables: Any) -> StudySpec:
    return parse_spec({"name": "mine", **tables}, "mine.toml")


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_number_of_ours_has_its_range(name: str) -> None:
    """A number without a rule would be trained as whatever Keras makes of it."""
    declared = load_architecture(name).parameters
    numbers = {parameter for parameter, kind in declared.items() if kind in (int, float)}
    assert numbers - RULES.keys() == RULES_OF_BUILT_IN[name].keys()


COLOURS = DatasetInfo("colours", (12, 10, 3), "float32", (0, 1), ("red", "green", "blue"))


# A user's own

USER_MODULE = """
import keras

def net(hidden_size: int, learning_rate: float = 0.001, *, activation: str = "relu", bias: bool = True, other=None):
    model = keras.Sequential([
        keras.Input((28, 28), dtype="uint8"), keras.layers.Flatten(), keras.layers.Rescaling(1 / 255),
        keras.layers.Dense(hidden_size, activation=activation, use_bias=bias), keras.layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy")
    return model

def loose(hidden_size: int, **further):
    assert not further, further
    return net(hidden_size)

def odd(hidden_size: "NoSuchType"):
    return net(hidden_size)

def raising(hidden_size: int):
    raise ValueError("no such\\nsecond line")

def silent(hidden_size: int):
    raise RuntimeError

def number(hidden_size: int):
    return 3

def nothing(hidden_size: int):
    pass

def not_compiled(hidden_size: int):
    return keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10)])

def wide(hidden_size: int):
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(11, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model

def unflattened(hidden_size: int):
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model

def two_outputs(hidden_size: int):
    image = keras.Input((28, 28))
    flat = keras.layers.Flatten()(image)
    model = keras.Model(image, {"a": keras.layers.Dense(10)(flat), "b": keras.layers.Dense(10)(flat)})
    model.compile("adam", "sparse_categorical_crossentropy")
    return model

def flat_input(hidden_size: int):
    model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model

def no_number(hidden_size: int):
    model = net(hidden_size)
    model.layers[-1].bias.assign([float("nan")] * 10)
    return model

NOT_A_FUNCTION = 3
"""


@pytest.fixture
def user(make_module: MakeModule) -> str:
    return make_module("user_architectures", USER_MODULE)


def user_spec(user: str, function: str, grid: dict[str, list[Any]] | None = None, **fixed: Any) -> StudySpec:
    model = {"architecture": f"{user}:{function}", **fixed}
    return make_spec(model=model, grid=grid or {"hidden_size": [4]})


def test_users_parameters_and_types(user: str) -> None:
    """A user's function accepts what it names, in its declared types; those without a default are required."""
    net = load_architecture(f"{user}:net")
    types = {"hidden_size": int, "learning_rate": float, "activation": str, "bias": bool, "other": None}
    assert net.parameters == types
    assert net.required == {"hidden_size"}


def test_variable_arguments_name_no_parameter(user: str) -> None:
    """**kwargs accept nothing from a grid, so that a misspelt name is never swallowed."""
    loose = load_architecture(f"{user}:loose")
    assert (loose.parameters, set(loose.required)) == ({"hidden_size": int}, {"hidden_size"})
    with pytest.raises(SpecError, match=r"grid\.dropuot must be a parameter of user_architectures:loose"):
        prepare_spec(user_spec(user, "loose", {"hidden_size": [4], "dropuot": [0.5]}))


def test_unresolved_annotations_declare_nothing(user: str) -> None:
    """An annotation that cannot be resolved leaves the parameter without a type."""
    assert load_architecture(f"{user}:odd").parameters == {"hidden_size": None}


def test_values_take_their_declared_types(user: str) -> None:
    """64.0 becomes 64 for an int, 1 becomes 1.0 for a float, in grid and fixed arguments; batch_size is an int."""
    grid = {"hidden_size": [4.0, 8], "batch_size": [16.0]}
    bound = UserCode(user_spec(user, "net", grid, learning_rate=1, activation="tanh", bias=False), FASHION_MNIST).bind()
    assert bound.grid == {"hidden_size": (4, 8), "batch_size": (16,)}
    assert bound.model.arguments == {"learning_rate": 1.0, "activation": "tanh", "bias": False}
    values = [*bound.grid["hidden_size"], *bound.grid["batch_size"], bound.model.arguments["learning_rate"]]
    assert [type(value) for value in values] == [int, int, int, float]


def test_build_gives_grid_and_fixed_arguments(user: str) -> None:
    """The function gets the cell's parameters and the fixed ones; batch_size is the training's."""
    spec = user_spec(user, "net", {"hidden_size": [5], "batch_size": [16]}, bias=False)
    model = build_model(
        load_architecture(spec.model.architecture), spec, {"hidden_size": 5, "batch_size": 16}, FASHION_MNIST
    )
    assert model.count_params() == 784 * 5 + 5 * 10 + 10


def test_smallest_cell_is_built() -> None:
    """The pre-flight build takes the smallest numbers, the first name of the alphabet first."""
    spec = make_spec(grid={"learning_rate": [0.1, 0.01], "hidden_size": [64, 8], "dropout_rate": [0.5, 0.2]})
    assert smallest_cell(spec).params == {"dropout_rate": 0.2, "hidden_size": 8, "learning_rate": 0.01}


@pytest.mark.parametrize(
    ("architecture", "text"),
    [
        (
            "no_such_module_here:net",
            "model.architecture must name an importable module, but no_such_module_here: there is no module "
            "no_such_module_here in PLACES; set PYTHONPATH to its folder, if it lies elsewhere.",
        ),
        (
            "user_architectures:missing",
            "model.architecture must name a function, but module user_architectures has no function missing.",
        ),
        (
            "user_architectures:NOT_A_FUNCTION",
            "model.architecture must name a function, but module user_architectures has no function NOT_A_FUNCTION.",
        ),
        (
            "user_architectures:raising",
            "model.architecture must return a model, but user_architectures:raising(hidden_size=4) raised "
            "ValueError: no such second line (user_architectures.py, line 19).",
        ),
        (
            "user_architectures:silent",
            "model.architecture must return a model, but user_architectures:silent(hidden_size=4) raised RuntimeError "
            "(user_architectures.py, line 22).",
        ),
        (
            "user_architectures:number",
            "model.architecture must return a keras.Model, but user_architectures:number(hidden_size=4) returned int.",
        ),
        (
            "user_architectures:nothing",
            "model.architecture must return a keras.Model, but user_architectures:nothing(hidden_size=4) returned "
            "NoneType.",
        ),
        (
            "user_architectures:not_compiled",
            "model.architecture must return a compiled model, but user_architectures:not_compiled(hidden_size=4) "
            "returned one without compile().",
        ),
        (
            "user_architectures:wide",
            "model.architecture must take uint8 images (n, 28, 28) and give (n, 10), but user_architectures:wide "
            "gives (n, 11).",
        ),
        (
            "user_architectures:no_number",
            "model.architecture must have a finite loss before any training, but that of user_architectures:no_number "
            "is nan on images of 0 to 255.",
        ),
    ],
    ids=lambda value: value.partition(":")[2] if value.startswith("user") and len(value) < 40 else "",
)
def test_refused_architectures(user: str, architecture: str, text: str) -> None:
    """What no trial could train is refused before any starts, with what must hold and what came."""
    module, _, function = architecture.partition(":")
    with pytest.raises(SpecError) as caught:
        prepare_spec(user_spec(module, function))
    assert str(caught.value) == text.replace("PLACES", describe_places())


@pytest.mark.parametrize("function", ["unflattened", "two_outputs", "flat_input"])
def test_models_of_another_form_are_refused(user: str, function: str) -> None:
    """A model of another input, output or kind of label is refused with the rule and its name."""
    with pytest.raises(SpecError) as caught:
        prepare_spec(user_spec(user, function))
    rule = "model.architecture must take uint8 images (n, 28, 28) and give (n, 10), but user_architectures:"
    assert str(caught.value).startswith(f"{rule}{function} ")


OTHER_DATA = """
import keras
from fmnist_optuna import DatasetInfo

def net(shape, n_classes, dtype="float32"):
    layers = [keras.layers.Flatten(), keras.layers.Dense(n_classes, "softmax")]
    model = keras.Sequential([keras.Input(shape, dtype=dtype), *layers])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model

def fitting(units: int, about: DatasetInfo): return net(about.image_shape, about.n_classes)
def with_axis(units: int): return net((12, 10, 3, 1), 3)
def bytes_in(units: int): return net((12, 10, 3), 3, "uint8")
def other_size(units: int): return net((28, 28), 3)
def more_classes(units: int): return net((12, 10, 3), 10)
"""


@pytest.mark.parametrize(
    ("function", "came"),
    [
        ("fitting", None),
        ("with_axis", None),
        ("bytes_in", "takes uint8 (n, 12, 10, 3)."),
        ("other_size", "takes float32 (n, 28, 28)."),
        ("more_classes", "gives (n, 10)."),
    ],
)
def test_a_model_must_fit_its_data(make_module: MakeModule, function: str, came: str | None) -> None:
    """Shape, type and number of classes, which a function may take from the data; both are named where they differ."""
    name = make_module("user_other_data", OTHER_DATA)
    code = UserCode(user_spec(name, function, {"units": [1]}), COLOURS)
    if came is None:
        assert build_cell(code, {"units": 1}, 0).output_shape == (None, 3)
        assert set(code.architecture.parameters) == {"units"}
        return
    with pytest.raises(SpecError) as caught:
        build_cell(code, {"units": 1}, 0)
    rule = "model.architecture must take float32 images (n, 12, 10, 3) and give (n, 3)"
    assert str(caught.value) == f"{rule}, but user_other_data:{function} {came}"


def test_module_that_fails_on_import(make_module: MakeModule) -> None:
    """A module that cannot be imported is refused with its own error."""
    name = make_module("user_broken", "raise OSError('no licence')")
    with pytest.raises(SpecError, match="user_broken: OSError: no licence"):
        load_architecture(f"{name}:net")


# Parameters against the architecture


@pytest.mark.parametrize(
    ("grid", "fixed", "text"),
    [
        (
            {"hiden_size": [64]},
            {},
            "study mine: grid.hiden_size must be a parameter of dense, which accepts activation, batch_norm, "
            "dropout_rate, hidden_size, input_dropout, learning_rate, n_hidden_layers, residual, standardize; a grid "
            "may have batch_size and the options of [training] and [augment] as well.",
        ),
        (
            {"hidden_size": [64], "dropout_rate": [0.2], "learning_rate": [0.1]},
            {"weight_decay": 0.1},
            "study mine: model.weight_decay must be a parameter of dense, which accepts activation, batch_norm, "
            "dropout_rate, hidden_size, input_dropout, learning_rate, n_hidden_layers, residual, standardize; give it "
            "in [training].",
        ),
        (
            {"hidden_size": [64]},
            {"dropout_rate": 0.2},
            "study mine: learning_rate must be given in [grid] or [model], as dense has no default for it.",
        ),
        (
            {"batch_size": [64]},
            {},
            "study mine: dropout_rate, hidden_size, learning_rate must be given in [grid] or [model], "
            "as dense has no default for it.",
        ),
        (
            {"n_hidden_layers": [1, 1.5], "hidden_size": [64], "dropout_rate": [0.2]},
            {"learning_rate": 0.1},
            "mine.toml: grid.n_hidden_layers must be an integer of at least 0, but got 1.5.",
        ),
    ],
    ids=["unknown-in-grid", "unknown-fixed", "missing-one", "missing-three", "half-a-layer"],
)
def test_refused_parameters(grid: dict[str, list[Any]], fixed: dict[str, Any], text: str) -> None:
    """A parameter that the architecture does not accept, lacks or types otherwise is refused by study and key."""
    with pytest.raises(SpecError) as caught:
        prepare_spec(make_spec(grid=grid, model=fixed))
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("name", "value", "declared"),
    [
        ("learning_rate", "a", "float"),
        ("activation", 3, "str"),
        ("bias", 1, "bool"),
        ("hidden_size", True, "int"),
        ("hidden_size", "64", "int"),
        ("hidden_size", 64.5, "int"),
    ],
)
def test_values_of_another_type_are_refused(user: str, name: str, value: Any, declared: str) -> None:
    """A value that is not of the declared type is refused, in the study file or against the architecture."""
    grid = {"hidden_size": [4]} if name != "hidden_size" else {"bias": [True]}
    with pytest.raises(SpecError, match=name) as caught:
        prepare_spec(user_spec(user, "net", grid, **{name: value}))
    assert repr(value) in str(caught.value)
    if name not in ("hidden_size", "learning_rate"):  # these two have a rule of their own in the study file
        assert str(caught.value) == f"study mine: model.{name} must be {declared}, but got {value!r}."
