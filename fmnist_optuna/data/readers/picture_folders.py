"""A folder of pictures for each class: PNG, JPEG, WebP or BMP, prepared as `predict` prepares a photograph."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fmnist_optuna.data.dataset import Dataset, DatasetInfo
from fmnist_optuna.data.pictures import fit, flatten, read_image
from fmnist_optuna.data.readers.background import are_light_on_dark
from fmnist_optuna.data.readers.labels import encode, refuse_share, take_test
from fmnist_optuna.data.readers.memory import refuse_too_large
from fmnist_optuna.errors import DataError
from fmnist_optuna.processes.cores import usable_cores
from fmnist_optuna.spec.data_spec import DataSpec
from fmnist_optuna.wording import count, reason_of

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
IGNORED = ("Thumbs.db", "desktop.ini")  # what systems leave in a folder of pictures, beside hidden files
ROLES = ("train", "test")
NAMES_OF_ROLES = {*ROLES, "val", "valid", "validation"}  # folders that are hardly classes where there are no others
TRAIN = {"train", "training"}
WORDS_OF_ROLES = {*TRAIN, *NAMES_OF_ROLES, "testing"}  # in names of such folders, as `seg_train` or `Testing`
GREY_MODES = ("1", "L", "LA", "I;16", "I;16L", "I;16B", "I", "F")
TURNED = (5, 6, 7, 8)  # orientations in EXIF that lie on their side
ORIENTATION = 0x0112
EXIF_OF_PNG = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # where Pillow looks for an orientation
N_NAMED = 3  # broken files in one message

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Found:
    """One picture before it is read whole.

    Args:
        file: Where it is.
        label: Name of its class.
        size: Height and width, in pixels.
        is_grey: Whether it has no colours.
    """

    file: Path
    label: str
    size: tuple[int, int]
    is_grey: bool


def read_folder(data: DataSpec, place: Path) -> Dataset:
    """Read the pictures of a folder.

    Args:
        place: With a folder for each class; or with a folder `train` that has those, and perhaps one `test`. Without
            the latter a share of each class is kept out as the test.

    Raises:
        DataError: There is no such folder, a class is missing or empty, a file is no picture, or the sizes differ.
    """
    if not place.is_dir():
        raise DataError(f"data.source must name a folder with a folder for each class, but {place} is none.")
    roots = _find_roots(place)
    with ThreadPoolExecutor(usable_cores()) as pool:
        looked_at = [_find(root, data.skip_broken, pool) for root in roots]
        folders = [pictures for pictures, _ in looked_at]
        form = _choose_form(data, [picture for folder in folders for picture in folder])
        refuse_too_large(f"The pictures of {place}", sum(map(len, folders)) * form.n_bytes)
        parts = [form.read_all(folder, data.skip_broken, pool) for folder in folders]
    n_read = sum(len(names) for names, _ in parts)
    n_skipped = sum(n_broken for _, n_broken in looked_at) + sum(map(len, folders)) - n_read
    for root, (names, _) in zip(roots, parts, strict=True):
        _refuse_empty(root, set(names))
    labels, arrays = [np.array(names) for names, _ in parts], [array for _, array in parts]
    if len(parts) == 1:
        kept, held_out = take_test(labels[0], data, f"{place}: the folders of classes")
        arrays, labels = [arrays[0][kept], arrays[0][held_out]], [labels[0][kept], labels[0][held_out]]
    else:
        refuse_share(data, str(place))
    encoded = encode(labels[0], labels[1], f"{place}: the folders of classes")
    info = DatasetInfo(
        name=Path(data.place).name or data.source,
        image_shape=arrays[0].shape[1:],
        dtype="uint8",
        value_range=(0, 255),
        class_names=encoded.class_names,
        is_light_on_dark=are_light_on_dark(arrays[0]),
        resize=data.resize,
    )
    return Dataset(info, arrays[0], encoded.train, arrays[1], encoded.test, n_skipped=n_skipped)


def _find_roots(place: Path) -> list[Path]:
    """The folders `train` and perhaps `test` of classes, where there are such; else the one that holds the classes."""
    names = {folder.name for folder in _classes_in(place)}
    of_roles = {role: place / role for role in ROLES if role in names and _classes_in(place / role)}
    flat = [role for role in ROLES if role in names and role not in of_roles]
    if flat and (of_roles or names <= NAMES_OF_ROLES):
        raise DataError(f"{place / flat[0]} must hold a folder for each class, but holds none.")
    if not of_roles:
        _refuse_other_roles(place, names)
        return [place]
    others = sorted(names - of_roles.keys())
    if "train" not in of_roles or others:
        came = ", ".join([*of_roles, *others])
        raise DataError(
            f"{place} must hold train, perhaps test, and no other folder, or the classes alone, but holds {came}; "
            "images to validate on are taken from train."
        )
    return list(of_roles.values())


def _refuse_other_roles(place: Path, names: Collection[str]) -> None:
    """Refuse folders such as `Training` and `Testing` that hold folders: their pictures would be of two classes."""
    words = [set(re.split(r"[ ._-]", name.casefold())) for name in names]
    is_of_roles = all(each & WORDS_OF_ROLES for each in words) and sum(bool(each & TRAIN) for each in words) == 1
    if len(names) > 1 and is_of_roles and all(_classes_in(place / name) for name in names):
        raise DataError(
            f"{place} must hold a folder for each class, or train and perhaps test with such folders, but holds "
            f"{', '.join(sorted(names))}; rename these to train and test."
        )


def _find(root: Path, skips_broken: bool, pool: ThreadPoolExecutor) -> tuple[list[Found], int]:
    """The pictures of each class, in the order of their paths; and how many other files are skipped."""
    classes = _classes_in(root)
    if not classes:
        raise DataError(f"{root} must hold a folder for each class, but holds none.")
    _refuse_loose(root)
    files = [(file, folder.name) for folder in classes for file in _files_in(folder)]
    looked_at = list(pool.map(_look, *zip(*files, strict=True))) if files else []
    faults = [entry for entry in looked_at if isinstance(entry, str)]
    _refuse_broken(faults, skips_broken)
    return [entry for entry in looked_at if isinstance(entry, Found)], len(faults)


def _classes_in(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _refuse_loose(root: Path) -> None:
    """Refuse pictures beside the folders of the classes: they are of none, and would be left out without a word."""
    loose = [path for path in sorted(root.iterdir()) if path.suffix.lower() in ENDINGS and not path.is_dir()]
    if loose := [path for path in loose if not path.name.startswith(".")]:
        more = f" and {len(loose) - 1:,} more lie" if len(loose) > 1 else " lies"
        raise DataError(
            f"{root} must hold pictures in the folders of their classes alone, but {loose[0]}{more} beside these; move "
            "what is to be used into a folder of its class, and the rest elsewhere."
        )


def _refuse_broken(faults: Sequence[str], skips_broken: bool) -> None:
    if faults and not skips_broken:
        more = f" and {len(faults) - N_NAMED} more" if len(faults) > N_NAMED else ""
        raise DataError(
            f"A folder of a class must hold pictures alone ({', '.join(ENDINGS)}), but {'; '.join(faults[:N_NAMED])}"
            f"{more}; remove what is none, or leave it out with data.skip_broken = true."
        )


def _refuse_empty(root: Path, labels: Collection[str]) -> None:
    for folder in _classes_in(root):
        if folder.name not in labels:
            raise DataError(f"{folder} must hold pictures of the class {folder.name}, but holds none.")


def _files_in(folder: Path) -> Iterator[Path]:
    """All that may be pictures, but for hidden files and folders, in which some programs keep copies.

    Links are among them wherever they lead: one to nothing, or to a folder, would else be left out without a word.
    """
    for file in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if (file.is_file() or file.is_symlink()) and not is_hidden and file.name not in IGNORED:
            yield file


def _look(file: Path, label: str) -> Found | str:
    """A picture by its header, or what is wrong with the file."""
    if file.suffix.lower() not in ENDINGS:
        return f"{file} is {'a link to a folder' if file.is_dir() else 'called otherwise'}"
    try:
        with Image.open(file) as image:
            width, height = image.size
            # To look for EXIF in a PNG that has none before its pixels, Pillow would unpack all of it.
            has_exif = image.format != "PNG" or not EXIF_OF_PNG.isdisjoint(image.info)
            is_turned = has_exif and image.getexif().get(ORIENTATION) in TURNED
            size = (width, height) if is_turned else (height, width)
            return Found(file, label, size, image.mode in GREY_MODES or _has_grey_palette(image))
    except Exception as error:  # whatever damaged bytes provoke in Pillow
        return f"{file} cannot be read: {reason_of(error)}"


def _has_grey_palette(image: Image.Image) -> bool:
    """Whether a picture is of a palette, as programs write that make files small, and all of its colours are greys."""
    if image.mode != "P" or image.palette is None:
        return False
    order, colours = image.palette.getdata()  # "RGB", or of a BMP "BGRX"
    shades = np.frombuffer(colours, np.uint8).reshape(-1, len(order))[:, :3]
    return bool((shades == shades[:, :1]).all())


@dataclass(frozen=True)
class Form:
    """What the pictures are made.

    Args:
        size: Height and width, in pixels.
        is_grey: Whether they have one channel, which is then no axis.
        resize: How another size is fitted.
    """

    size: tuple[int, int]
    is_grey: bool
    resize: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one picture."""
        return self.size if self.is_grey else (*self.size, 3)

    @property
    def n_bytes(self) -> int:
        """Of one picture."""
        return int(np.prod(self.shape))

    def read_all(
        self, pictures: Sequence[Found], skips_broken: bool, pool: ThreadPoolExecutor
    ) -> tuple[list[str], Bytes]:
        """Labels and pixels (n, *shape) of all that can be read.

        Raises:
            DataError: One cannot, and is not to be left out.
        """
        array, labels, faults = np.empty((len(pictures), *self.shape), np.uint8), list[str](), list[str]()
        for picture, pixels in zip(pictures, pool.map(self._read, pictures), strict=True):
            if isinstance(pixels, str):
                faults.append(pixels)
                continue
            array[len(labels)] = pixels
            labels.append(picture.label)
        _refuse_broken(faults, skips_broken)
        return labels, array[: len(labels)]

    def _read(self, picture: Found) -> Bytes | str:
        """Its pixels, or what is wrong with the file."""
        try:
            image = flatten(read_image(picture.file), "L" if self.is_grey else "RGB")
        except Exception as error:  # whatever damaged bytes provoke in Pillow
            return f"{picture.file} cannot be read: {reason_of(error)}"
        height, width = self.size
        return np.asarray(fit(image, (width, height), self.resize), np.uint8)


def _choose_form(data: DataSpec, pictures: Sequence[Found]) -> Form:
    is_grey = data.mode == "grey" or (data.mode == "as-they-are" and all(picture.is_grey for picture in pictures))
    if data.size:
        height, width = data.size
        return Form((height, width), is_grey, data.resize)
    sizes = Counter(picture.size for picture in pictures)
    if len(sizes) > 1:
        usual, other = (size for size, _ in sizes.most_common(2))
        example = next(picture.file for picture in pictures if picture.size == other)
        raise DataError(
            f"The pictures of {data.place} must be of one size where data.size names none, but are of "
            f"{count(len(sizes), 'size')}: mostly {usual[0]} x {usual[1]} pixels, and {example} of {other[0]} x "
            f"{other[1]}; give data.size = [height, width]."
        )
    return Form(next(iter(sizes), (1, 1)), is_grey, data.resize)
