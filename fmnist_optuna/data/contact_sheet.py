"""Some pictures of each class on one sheet, as a model gets them."""

import numpy as np
from PIL import Image

from fmnist_optuna.data.pictures import as_picture
from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import DataError

MOST_ROWS = 50  # classes
MARGIN = 2  # pixels between the pictures
WHITE = 255


def draw_sheet(splits: Splits, n_each: int = 10) -> Image.Image:
    """A picture of the first images to train on of each class, a row a class, of the first MOST_ROWS classes.

    Raises:
        DataError: The images are no pictures.
    """
    info = splits.info
    if not info.is_of_pictures:
        raise DataError(f"A contact sheet must be of pictures, but {splits.source} has {info.kind}.")
    height, width = info.image_shape[0] + MARGIN, info.image_shape[1] + MARGIN
    n_rows, is_colour = min(info.n_classes, MOST_ROWS), info.image_shape[2:] == (3,)
    size = n_each * width + MARGIN, n_rows * height + MARGIN
    white = (WHITE,) * (3 if is_colour else 1)
    sheet = Image.new("RGB" if is_colour else "L", size, white)
    for label in range(n_rows):
        for column, place in enumerate(np.flatnonzero(splits.train_labels == label)[:n_each]):
            picture = Image.fromarray(as_picture(np.asarray(splits.train_images[place]), info))
            sheet.paste(picture, (MARGIN + column * width, MARGIN + label * height))
    return sheet
