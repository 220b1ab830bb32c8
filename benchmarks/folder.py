"""How long a folder of pictures takes to be read: made once, then looked at, decoded, split, hashed and mapped.

    python benchmarks/folder.py --images 10000 --side 64 --runs 3

The time is that of a study's own call, from the folder to arrays that workers map: the process that reads, which is a
new interpreter, is in it. The pages of the files are in the memory, as they are right after they were written. The
processor's seconds are of that process alone, on all cores together: what others do meanwhile hardly changes them.
"""

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from databases import describe_machine
from PIL import Image
from tables import print_machine, print_table

from fmnist_optuna.spec.data_spec import DataSpec
from fmnist_optuna.work.own_data import load_own


def write_pictures(folder: Path, n_images: int, side: int, n_classes: int = 10) -> int:
    """PNG files in colour of soft noise, as photographs pack; returns their bytes."""
    random = np.random.default_rng(0)
    for number in range(n_images):
        place = folder / f"class-{number % n_classes}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(place / f"{number:06}.png")
    return sum(file.stat().st_size for file in folder.rglob("*.png"))


def processor_seconds() -> float:
    """Of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Make the folder and read it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="folder-") as name:
        n_bytes = write_pictures(Path(name), asked.images, asked.side)
        seconds, processor = [], []
        for _ in range(asked.runs):
            began, before = time.perf_counter(), processor_seconds()
            splits = load_own(DataSpec(source=f"folder:{name}", n_validation=asked.images // 10))
            seconds.append(time.perf_counter() - began)
            processor.append(processor_seconds() - before)
    n_read = sum(len(images) for images in (splits.train_images, splits.validation_images, splits.test_images))
    row = [f"{n_read:,}", f"{asked.side} x {asked.side}", f"{n_bytes / 2**20:.0f} MiB"]
    row += [", ".join(f"{each:.1f}" for each in seconds), f"{statistics.median(processor):.1f}"]
    print_machine(describe_machine())
    print_table(
        "A folder of pictures, read", ["pictures", "pixels", "files", "seconds, each run", "processor's, median"], [row]
    )


if __name__ == "__main__":
    main()
