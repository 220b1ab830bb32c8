"""The identity and order of cells: every promise of `grid`."""

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmnist_optuna.search.cell import (
    MAX_INTEGER,
    Grid,
    ParamValue,
    canonical_json,
    decode_params,
    make_point,
    make_points,
    trial_seed,
)

VALUES = st.one_of(
    st.booleans(),
    st.integers(-MAX_INTEGER, MAX_INTEGER),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
)


def test_a_cell_id_is_the_sha256_of_its_canonical_json() -> None:
    """Anybody can recompute a cell_id from the parameters alone."""
    text = b'{"dropout_rate":0.2,"hidden_size":64}'
    assert make_point({"hidden_size": 64, "dropout_rate": 0.2}).cell_id == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize("same", [0, 0.0, -0.0])
def test_zero_is_one_value_however_it_is_written(same: float) -> None:
    """0, 0.0 and -0.0 make one cell."""
    assert make_point({"dropout_rate": same}).cell_id == make_point({"dropout_rate": 0}).cell_id


@pytest.mark.parametrize("other", [False, "0", 5e-324])
def test_what_only_looks_like_zero_is_another_value(other: object) -> None:
    """False, "0" and the smallest float are not 0."""
    assert canonical_json({"a": other}) != canonical_json({"a": 0})


@given(st.dictionaries(st.text(max_size=5), VALUES, min_size=2, max_size=5))
def test_the_order_of_names_is_of_no_account(params: dict[str, ParamValue]) -> None:
    """A cell keeps its identity when its parameters are listed in another order."""
    names = list(params)
    random.Random(0).shuffle(names)
    assert make_point({name: params[name] for name in names}).cell_id == make_point(params).cell_id


@given(st.integers(-MAX_INTEGER, MAX_INTEGER))
def test_an_integer_and_its_float_are_one_up_to_2_to_the_53(value: int) -> None:
    """No two integers within the limit share an identity, and each shares it with its float."""
    assert canonical_json(value) == canonical_json(float(value)) == str(value)


def test_values_in_lists_and_tables_are_written_the_same_way() -> None:
    """Normalising goes all the way down."""
    assert canonical_json({"b": [1.0, (2.0,)], "a": {"c": 3.0}}) == '{"a":{"c":3},"b":[1,[2]]}'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_has_no_word_for_is_refused(value: float) -> None:
    """NaN and inf have no canonical form."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": value})


def test_cells_are_the_product_with_the_last_name_fastest() -> None:
    """Parameters keep the order of the grid; the last one's values run fastest."""
    cells = make_points({"b": [1, 2], "a": [10, 20]})
    assert [list(cell.params.items()) for cell in cells] == [[("b", b), ("a", a)] for b in (1, 2) for a in (10, 20)]


def test_the_default_grid_has_27_different_cells() -> None:
    """3 x 3 x 3 values make 27 identities."""
    grid: Grid = {
        "hidden_size": [64, 128, 256],
        "dropout_rate": [0.2, 0.3, 0.5],
        "learning_rate": [0.01, 0.001, 1e-4],
    }
    assert len({cell.cell_id for cell in make_points(grid)}) == 3 * 3 * 3


def test_the_seed_follows_from_study_seed_and_cell_alone() -> None:
    """The seed is the first four bytes of a SHA-256 over both."""
    expected = int.from_bytes(hashlib.sha256(b"7:abc").digest()[:4], "big")
    assert trial_seed(7, "abc") == expected < 2**32


def test_another_study_seed_or_cell_is_another_seed() -> None:
    """Neither half of the seed is ignored."""
    assert len({trial_seed(0, "a"), trial_seed(1, "a"), trial_seed(0, "b")}) == 3


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
def test_parameters_come_back_from_the_ledger_with_their_types(params: dict[str, ParamValue]) -> None:
    """What canonical JSON forgets, 64 or 64.0, the stored JSON keeps."""
    import json

    decoded = decode_params(json.dumps(params))
    assert decoded == params
    assert [type(value) for value in decoded.values()] == [type(value) for value in params.values()]
