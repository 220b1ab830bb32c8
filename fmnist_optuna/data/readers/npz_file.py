"""Arrays of NumPy in one file, as `numpy.savez` or `numpy.savez_compressed` writes it."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fmnist_optuna.data.dataset import Dataset
from fmnist_optuna.data.readers.arrays import make_dataset
from fmnist_optuna.data.readers.memory import refuse_too_large
from fmnist_optuna.errors import DataError
from fmnist_optuna.spec.data_spec import DataSpec
from fmnist_optuna.wording import reason_of


def read_npz(data: DataSpec, place: Path) -> Dataset:
    """Read the arrays of a file; `make_dataset` says what they must be.

    Args:
        place: The file.

    Raises:
        DataError: There is no such file, an array is missing, or is something else.
    """
    return make_dataset(_read(place), data, str(place), Path(data.place).stem)


def _read(place: Path) -> dict[str, NDArray[np.generic]]:
    try:
        refuse_too_large(f"The data of {place}", _bytes_in(place))
        with np.load(place, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"data.source must name an .npz file, but there is no {place}.") from None
    except Exception as error:  # whatever damaged bytes, a password or an unknown compression provoke
        raise DataError(
            f"{place} must be a file as numpy.savez writes it, of numbers and texts, but cannot be read: "
            f"{reason_of(error)}."
        ) from error


def _bytes_in(place: Path) -> int:
    """How many bytes the arrays take when they are unpacked, by their headers."""
    total = 0
    with zipfile.ZipFile(place) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                version = npy.read_magic(stream)
                read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, dtype = read_header(stream)
                if dtype.hasobject:
                    raise DataError(
                        f"{place}: {member.filename.removesuffix('.npy')} must be numbers or texts, but holds Python "
                        'objects, as pandas keeps texts; save it as array.astype("U").'
                    )
                total += int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return total
