"""Files of rows that a model of features is asked about: what is read, and the one line for what is wrong."""

from pathlib import Path

import numpy as np
import pytest

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.data.rows import read_rows
from fmnist_optuna.errors import DataError

INFO = DatasetInfo("flowers", (3,), "float32", (0, 1), ("iris", "rose"))
ROWS = [[1.0, 2.0, 3.0], [4.0, 5.5, -6.0]]


@pytest.mark.parametrize("head", ["", "length,width,depth\n"])
def test_a_table_of_numbers_is_read(tmp_path: Path, head: str) -> None:
    """With names above its columns or without, with a byte order mark, with an empty line; beyond the range as well."""
    file = tmp_path / "new.csv"
    file.write_text("\ufeff" + head + "1,2,3\n\n4,5.5,-6\n", encoding="utf-8")
    rows = read_rows(file, INFO)
    assert (rows.dtype.name, rows.tolist()) == ("float32", ROWS)


def test_a_row_that_counts_is_read_with_a_point(tmp_path: Path) -> None:
    """As the error about a first line of 0, 1, 2 says; in other places it is a row like any."""
    (tmp_path / "new.csv").write_text("0.0,1,2\n0,1,2\n")
    assert read_rows(tmp_path / "new.csv", INFO).tolist() == [[0.0, 1.0, 2.0]] * 2


@pytest.mark.parametrize("shape", [(2, 3), (6,)])
def test_an_array_has_one_row_or_several(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Of as many axes as an example has, or with one more before them."""
    info = INFO if shape == (2, 3) else DatasetInfo("cubes", (3, 2, 1, 1), "float32", (0, 1), ("a", "b"))
    np.save(tmp_path / "new.npy", np.array(ROWS).reshape(1, 6) if shape == (6,) else np.array(ROWS))
    assert read_rows(tmp_path / "new.npy", info).reshape(-1).tolist() == [1.0, 2.0, 3.0, 4.0, 5.5, -6.0]
    np.save(tmp_path / "one.npy", np.zeros(info.image_shape, np.int64))
    assert read_rows(tmp_path / "one.npy", info).shape == (1, *info.image_shape)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1,2\n", r"must hold rows of 3 numbers, as .csv or .npy, \(n, 3\), but holds \(1, 2\)"),
        ("1,2,3\n4,5\n", "its line 2 has 2 numbers, and the first 3"),
        ("a,b,c\n1,x,3\n", "its line 2 holds 'x', which is no number, in place 2 of 3"),
        ("a,b,c\n1,2,3\n4,,6\n", "its line 3 has an empty cell, in place 2 of 3"),
        ("1,2,nan\n", "of finite numbers, but the row 0 holds nan in its column 2"),
        ("1,2,1e300\n", "of finite numbers, but the row 0 holds inf in its column 2"),
        ("a,b,c\n", r"but holds float64 \(0,\)"),
        (",,\n1,2,3\n", "its line 1 has an empty cell, in place 1 of 3"),
        ("0,1,2\n7,8,9\n", "its first line counts from 0 to 2, and may be names of columns or a row; remove it"),
        ("", "but holds"),
    ],
)
def test_another_table_is_refused(tmp_path: Path, content: str, words: str) -> None:
    """The file, what it must hold and what it holds."""
    (tmp_path / "new.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        read_rows(tmp_path / "new.csv", INFO)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    """A picture, a file that is not there, an array of texts."""
    with pytest.raises(DataError, match=r"a.png must hold rows of 3 numbers, as .csv or .npy, but is called otherwise"):
        read_rows(tmp_path / "a.png", INFO)
    with pytest.raises(DataError, match="but there is no such file"):
        read_rows(tmp_path / "a.csv", INFO)
    np.save(tmp_path / "a.npy", np.array(["x"]))
    with pytest.raises(DataError, match=r"but holds <U1 \(1,\)"):
        read_rows(tmp_path / "a.npy", INFO)


def test_bytes_are_not_cut_off(tmp_path: Path) -> None:
    """A model of bytes is not given what would be another number as a byte."""
    info = DatasetInfo("bytes", (3,), "uint8", (0, 255), ("a", "b"))
    (tmp_path / "new.csv").write_text("1,2,255\n")
    assert read_rows(tmp_path / "new.csv", info).tolist() == [[1, 2, 255]]
    (tmp_path / "new.csv").write_text("1,2,0.5\n")
    with pytest.raises(DataError, match=r"of whole numbers from 0 to 255, but they go from 0\.5 to 2"):
        read_rows(tmp_path / "new.csv", info)
