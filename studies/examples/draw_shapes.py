"""Draw a folder of pictures to train on: four shapes, a folder each, in `train` and `test`.

python draw_shapes.py [FOLDER]     "shapes" without one
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 24  # pixels
N_IMAGES = {"train": 400, "test": 100}  # of each shape
SHAPES = ("disc", "ring", "square", "triangle")
NOISE = 40.0  # standard deviation of every pixel


def draw(shape: str, random: np.random.Generator) -> Image.Image:
    """One shape in some colour, somewhere, of some size, on another colour, under noise."""
    dark, light = random.integers(0, 110, 3), random.integers(130, 256, 3)
    picture = Image.new("RGB", (SIDE, SIDE), tuple(dark.tolist()))
    pen, color = ImageDraw.Draw(picture), tuple(light.tolist())
    radius = int(random.integers(5, 9))
    x, y = (int(place) for place in random.integers(radius, SIDE - radius, 2))
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "disc":
        pen.ellipse(box, fill=color)
    elif shape == "ring":
        pen.ellipse(box, outline=color, width=2)
    elif shape == "square":
        pen.rectangle(box, fill=color)
    else:
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=color)
    noisy = np.asarray(picture) + random.normal(0, NOISE, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def main(folder: Path) -> None:
    """The same pictures each time."""
    for role, n_images in N_IMAGES.items():
        for label, shape in enumerate(SHAPES):
            random = np.random.default_rng([len(role), label])
            place = folder / role / shape
            place.mkdir(parents=True, exist_ok=True)
            for number in range(n_images):
                draw(shape, random).save(place / f"{number:03}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "shapes"))
