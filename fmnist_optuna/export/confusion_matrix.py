"""The confusion matrix as a picture, for readers of an exported model and for a dashboard."""

import math
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageDraw, ImageFont

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.results.evaluation import Evaluation
from fmnist_optuna.wording import WITHOUT_FLIPS, count, format_whole_percent

TILE, LEFT, TOP, BOTTOM, MARGIN, FONT_SIZE = 64, 150, 60, 130, 12, 20  # pixels
LARGEST, LETTERED = 2_048, 40  # pixels: of all tiles side by side, and of the smallest one that has room for a number
DARKEST = (8, 48, 107)  # of a share of 100 %

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def write_confusion_matrix(file: Path | BinaryIO, evaluation: Evaluation, info: DatasetInfo) -> None:
    """Draw which class was taken for which on the test images: a row a true class, shares of it in percent."""
    names, shares = [result.label for result in evaluation.classes], evaluation.confusion_shares()
    tile = min(TILE, LARGEST // len(names))
    font = ImageFont.load_default(min(FONT_SIZE, max(1, tile - 4)))
    left = max(LEFT, math.ceil(max(font.getlength(name) for name in names)) + 2 * MARGIN)
    side, bottom = len(names) * tile, left - LEFT + BOTTOM
    note = info.warning or count(evaluation.n_images, f"test {info.noun}")
    alone = "" if evaluation.flip_accuracy is None else f", {WITHOUT_FLIPS}"
    title = f"{note}{alone}: what each true class (row) was taken for, in percent"
    title_font = ImageFont.load_default(FONT_SIZE)
    title_width = math.ceil(title_font.getlength(title))
    width = max(left + side + 20, title_width + 2 * MARGIN)
    image = Image.new("RGB", (width, TOP + side + bottom), "white")
    draw = ImageDraw.Draw(image)
    draw.text((min(left, width - title_width - MARGIN), 20), title, "black", title_font)
    for row, name in enumerate(names):
        middle = TOP + row * tile + tile // 2
        draw.text((left - MARGIN, middle), name, "black", font, anchor="rm")
        label = Image.new("RGB", (bottom - MARGIN, tile), "white")
        ImageDraw.Draw(label).text((bottom - MARGIN, tile // 2), name, "black", font, anchor="rm")
        image.paste(label.rotate(90, expand=True), (left + row * tile, TOP + side + MARGIN))
        for column, share in enumerate(shares[row]):
            _draw_share(draw, (left + column * tile, TOP + row * tile), tile, float(share), font)
    image.save(file, "PNG")


def _draw_share(draw: ImageDraw.ImageDraw, corner: tuple[int, int], tile: int, share: float, font: Font) -> None:
    """One tile, the darker the larger its share, with its percent where there is room."""
    x, y = corner
    color = tuple(round(255 + share * (end - 255)) for end in DARKEST)
    draw.rectangle((x, y, x + tile - 2, y + tile - 2), color)
    if share and tile >= LETTERED:
        ink = "white" if share > 0.5 else "black"
        draw.text((x + tile // 2, y + tile // 2), format_whole_percent(share), ink, font, anchor="mm")
