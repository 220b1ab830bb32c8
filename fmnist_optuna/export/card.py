"""What goes with an exported model for its readers: a card in Markdown and the confusion matrix as a picture.

Source of the card's form: Mitchell et al. (2019), Model Cards for Model Reporting, arXiv:1810.03993.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageDraw, ImageFont

from fmnist_optuna.results.evaluation import ClassResult, Evaluation
from fmnist_optuna.wording import format_interval, format_percent, format_points

TILE, LEFT, TOP, BOTTOM, FONT_SIZE = 64, 150, 60, 130, 20  # pixels
DARKEST = (8, 48, 107)  # of a share of 100 %

CARD = """\
# {study}, trial {trial}{synthetic_title}

A classifier of grey 28 x 28 pictures of clothing into ten classes, found by a search over a grid of hyperparameters.
{synthetic_warning}
## Model

| | |
|---|---|
| architecture | {architecture} |
| parameters | {params} |
| input | `image`: uint8 (n, 28, 28), light on dark, any n |
| output | `probabilities`: float32 (n, 10); `class_id`: int64 (n,); `label`: string (n,) |
| weights, SHA-256 | `{weights_sha256}` |

## Data

{data}

## How it was chosen

{chosen}

## Results

| | accuracy |
|---|---|
| validation images | {val_accuracy} |
| {n_test_images:,} test images | {test_accuracy} (95 % interval {test_interval}) |
{confirmed}
No trial saw the test images; they were scored once with these very weights, and the score was recorded.{parity}

| class | images | recall | precision |
|---|---:|---:|---:|
{classes}

![Confusion matrix on the test images]({picture})

## Limits

- It knows ten kinds of clothing, photographed alone, centred, on a plain background and shrunk to 28 x 28 grey pixels.
  Of anything else it names one of the ten all the same.
- Probabilities are those of the softmax; they were not calibrated.
- {weakest} is found least often: {weakest_recall} of its test images.
- The intervals are about other test images of the same kind{seeds_note}; pictures from elsewhere do worse.

## Licence of the data

{licence}

## Provenance

`manifest.json` has all figures, versions and a SHA-256 of every file. To train it again:
`fmnist-optuna reproduce {trial} {study}`.
"""
FASHION_MNIST = """\
Fashion-MNIST (Zalando SE): 60,000 training images, of which validation images were held out, stratified by label, and
10,000 test images. Fingerprint of data and split: `{fingerprint}`."""
SYNTHETIC = """\
SYNTHETIC garments: shapes drawn by a program in place of Fashion-MNIST, to try the software without data. Fingerprint:
`{fingerprint}`."""
WARNING = """
**Trained on SYNTHETIC garments, not on Fashion-MNIST: of no use on pictures of real clothing.**
"""


def write_card(file: Path, manifest: Mapping[str, Any], evaluation: Evaluation, picture: str) -> None:
    """Write the card of an exported model.

    Args:
        manifest: What the export says of itself.
        picture: File name of the confusion matrix, beside the card.
    """
    is_synthetic = manifest["synthetic"]
    weakest = min(evaluation.classes, key=lambda result: result.recall)
    card = CARD.format(
        study=manifest["study"],
        trial=manifest["trial"],
        synthetic_title=" (SYNTHETIC)" if is_synthetic else "",
        synthetic_warning=WARNING if is_synthetic else "",
        architecture=_pairs(manifest["architecture"]),
        params=_pairs(manifest["params"]),
        weights_sha256=manifest["weights_sha256"],
        data=(SYNTHETIC if is_synthetic else FASHION_MNIST).format(fingerprint=manifest["data"]["fingerprint"]),
        chosen=_how_chosen(manifest),
        val_accuracy=format_percent(manifest["val_accuracy"]),
        n_test_images=manifest["n_test_images"],
        test_accuracy=format_percent(manifest["test_accuracy"]),
        test_interval=format_interval(manifest["test_interval"]),
        confirmed=_confirmed(manifest["confirmed"]),
        parity=" The SavedModel gave the same\nanswers in a process that has TensorFlow alone."
        if manifest["parity"]
        else "",
        classes="\n".join(_class_row(result) for result in evaluation.classes),
        picture=picture,
        weakest=weakest.label,
        weakest_recall=format_percent(weakest.recall),
        seeds_note="" if manifest["confirmed"] else " and about one seed",
        licence="None: the garments are drawn." if is_synthetic else "MIT, copyright 2017 Zalando SE.",
    )
    file.write_text(card, encoding="utf-8")


def _class_row(result: ClassResult) -> str:
    cells = (result.label, f"{result.n_images:,}", format_percent(result.recall), format_percent(result.precision))
    return f"| {' | '.join(cells)} |"


def _how_chosen(manifest: Mapping[str, Any]) -> str:
    if manifest["confirmed"]:
        return (
            f"The best of {manifest['n_cells']} cells by validation accuracy were trained again over "
            f"{manifest['confirmed']['seeds']} fresh seeds each. This is the smallest model whose mean lies within one "
            "standard error of the best mean, in its original training."
        )
    return f"One of {manifest['n_cells']} cells of the grid, by validation accuracy; not confirmed over seeds."


def _confirmed(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return ""
    lines = [f"| validation, mean of {figures['seeds']} fresh seeds | {_mean(figures, '')} |"]
    if figures["test_mean"] is not None:
        lines.append(f"| test, mean of {figures['seeds']} fresh seeds | {_mean(figures, 'test_')} |")
    return "\n".join(lines) + "\n"


def _mean(figures: Mapping[str, Any], prefix: str) -> str:
    mean = format_percent(figures[f"{prefix}mean"])
    interval, sd = format_interval(figures[f"{prefix}interval"]), format_points(figures[f"{prefix}sd"])
    return f"{mean} (95 % interval {interval}, sd {sd})"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} `{value}`" for name, value in values.items())


def write_confusion_matrix(file: Path | BinaryIO, evaluation: Evaluation, is_synthetic: bool) -> None:
    """Draw which class was taken for which on the test images: a row a true class, shares of it in percent."""
    n_classes, shares = len(evaluation.classes), evaluation.confusion_shares()
    image = Image.new("RGB", (LEFT + n_classes * TILE + 20, TOP + n_classes * TILE + BOTTOM), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(FONT_SIZE)
    note = "SYNTHETIC garments" if is_synthetic else f"{evaluation.n_images:,} test images"
    draw.text((LEFT, 20), f"{note}: what each true class (row) was taken for, in percent", "black", font)
    for row, result in enumerate(evaluation.classes):
        middle = TOP + row * TILE + TILE // 2
        draw.text((LEFT - 12, middle), result.label, "black", font, anchor="rm")
        label = Image.new("RGB", (BOTTOM - 12, TILE), "white")
        ImageDraw.Draw(label).text((BOTTOM - 12, TILE // 2), result.label, "black", font, anchor="rm")
        image.paste(label.rotate(90, expand=True), (LEFT + row * TILE, TOP + n_classes * TILE + 12))
        for column, share in enumerate(shares[row]):
            left, top = LEFT + column * TILE, TOP + row * TILE
            color = tuple(round(255 + float(share) * (end - 255)) for end in DARKEST)
            draw.rectangle((left, top, left + TILE - 2, top + TILE - 2), color)
            if share:
                text = f"{100 * share:.0f}" if share >= 0.01 else "<1"
                ink = "white" if share > 0.5 else "black"
                draw.text((left + TILE // 2, middle), text, ink, font, anchor="mm")
    image.save(file, "PNG")
