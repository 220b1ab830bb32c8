"""Files of numbers that are no pictures, such as rows of features, as a data set has them."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import DatasetInfo, Images, find_infinite
from fmnist_optuna.errors import DataError
from fmnist_optuna.wording import format_shape, reason_of

ENDINGS = (".csv", ".npy")
FEWEST_COUNTED = 3  # columns that are numbered from 0 by who wrote the table; 0 and 1 are values like any


def read_rows(file: Path, info: DatasetInfo) -> Images:
    """The rows of a file, (n, *image_shape) in the type of the data set.

    Args:
        file: A CSV file of rows of numbers, with or without a line of names above them; or an array of one row or of
            several, as `numpy.save` writes it. Each row has the numbers of one example in the order of the data set.
            A first line of the numbers 0, 1, 2 and so on is refused, as tables are written with such names too.
        info: Of the data set.

    Raises:
        DataError: There is no such file, or it holds something else.
    """
    rule = f"{file} must hold {info.kind}, as .csv or .npy"
    if file.suffix.lower() not in ENDINGS:
        raise DataError(f"{rule}, but is called otherwise.")
    try:
        rows = np.load(file, allow_pickle=False) if file.suffix.lower() == ".npy" else _read_csv(file)
    except FileNotFoundError:
        raise DataError(f"{rule}, but there is no such file.") from None
    except Exception as error:  # ours, and whatever damaged bytes provoke in NumPy
        raise DataError(f"{rule}, but cannot be read: {reason_of(error)}.") from error
    return _as_images(rows, info, rule)


def _read_csv(file: Path) -> NDArray[np.float64]:
    """The numbers of a table (n, columns), without a first line that holds none."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        lines = [(number, row) for number, row in enumerate(csv.reader(stream), start=1) if row]
    first = lines[0][1] if lines else []
    if any(cell.strip() for cell in first) and not any(map(_is_number, first)):
        del lines[0]
    if [cell.strip() for cell in first] == [str(place) for place in range(max(FEWEST_COUNTED, len(first)))]:
        raise ValueError(
            f"its first line counts from 0 to {len(first) - 1}, and may be names of columns or a row; remove it, or "
            "write the row with a point, as 0.0"
        )
    rows: list[list[float]] = []
    for number, row in lines:
        if (wrong := next((place for place, cell in enumerate(row) if not _is_number(cell)), None)) is not None:
            came = f"holds {row[wrong]!r:.40}, which is no number" if row[wrong].strip() else "has an empty cell"
            raise ValueError(f"its line {number} {came}, in place {wrong + 1} of {len(row)}")
        if rows and len(row) != len(rows[0]):
            raise ValueError(f"its line {number} has {len(row)} numbers, and the first {len(rows[0])}")
        rows.append([float(cell) for cell in row])
    return np.array(rows, np.float64)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _as_images(rows: object, info: DatasetInfo, rule: str) -> Images:
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "uifb" or rows.size == 0:
        came = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise DataError(f"{rule}, but holds {came}.")
    rows = np.asarray(rows)
    n_columns = int(np.prod(info.image_shape))
    if rows.shape[-len(info.image_shape) :] != info.image_shape and rows.shape[1:] != (n_columns,):
        raise DataError(f"{rule}, {format_shape(info.image_shape)}, but holds {rows.shape}.")
    images = rows.reshape(-1, *info.image_shape)
    if info.dtype == "uint8" and not np.isin(images, np.arange(256)).all():
        raise DataError(f"{rule}, of whole numbers from 0 to 255, but they go from {images.min()} to {images.max()}.")
    with np.errstate(over="ignore"):  # a double that is too large becomes infinite
        kept: Images = images.astype(info.dtype)
    if fault := find_infinite(kept):
        raise DataError(f"{rule}, of finite numbers, but {fault}.")
    return kept
