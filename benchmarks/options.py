"""What each option of a training adds to an epoch, beside the same by layers and steps of Keras.

    python benchmarks/options.py [--repeats 5] [--clock wall|cpu] [--only class_weight --only teacher]

The net is one that such options are for: three layers of 1,024 units with batch normalisation, batches of 128 of 48,000
images; one thread. Epochs of all variants take turns, medians are given. For augmentation the naive form is Keras' own
layers in front of the same net, RandomFlip and RandomTranslation, in the same compiled epoch.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read at TensorFlow's import

import keras
import numpy as np
from databases import describe_machine
from floor import CLOCKS, load_data
from tables import print_machine, print_table

from fmnist_optuna.spec.options import Options
from fmnist_optuna.training.engine import TrainingPass, use_threads
from fmnist_optuna.training.resident_data import ResidentData

BATCH_SIZE, UNITS, N_LAYERS, MAX_EPOCHS = 128, 1024, 3, 60
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "schedule": {"schedule": "cosine", "warmup_epochs": 3},
    "weight_decay": {"weight_decay": 0.01},
    "label_smoothing": {"label_smoothing": 0.1},
    "ema": {"ema": 0.999},
    "horizontal_flip": {"horizontal_flip": "alternating"},
    "flip and shift": {"horizontal_flip": "alternating", "shift": 1},
    "flip, shift, erase": {"horizontal_flip": "alternating", "shift": 1, "erase": 8},
    "mixup": {"mixup": 0.2},
    "sgd": {"optimizer": "sgd"},
}
N_CLASSES = 10
# Variants by what the data have besides images and labels: weights of all classes, and a teacher's probabilities.
DATA: dict[str, Callable[[ResidentData], ResidentData]] = {
    "class_weight": lambda data: data.weighted("balanced"),
    "teacher": lambda data: data.with_soft_labels(
        np.full((data.train_images.shape[0], N_CLASSES), 1 / N_CLASSES, np.float32)
    ),
}
LAYERS: dict[str, Callable[[], list[keras.layers.Layer]]] = {
    "RandomFlip": lambda: [keras.layers.RandomFlip("horizontal")],
    "RandomFlip, RandomTranslation": lambda: [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomTranslation(1 / 28, 1 / 28, fill_mode="constant", interpolation="nearest"),
    ],
}
NAMES = (*VARIANTS, *DATA, *LAYERS)


def make_model(before: list[keras.layers.Layer]) -> keras.Model:
    """The net, with layers on the images before it."""
    keras.utils.set_random_seed(0)
    layers: list[Any] = [keras.Input((28, 28), dtype="uint8"), keras.layers.Rescaling(1 / 255)]
    if before:
        layers += [keras.layers.Reshape((28, 28, 1)), *before]
    layers.append(keras.layers.Flatten())
    for _ in range(N_LAYERS):
        layers += [
            keras.layers.Dense(UNITS, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.1),
        ]
    model = keras.Sequential([*layers, keras.layers.Dense(10, activation="softmax")])
    model.compile(optimizer=keras.optimizers.Adam(0.001), loss="sparse_categorical_crossentropy")
    return model


def make_pass(name: str, data: ResidentData) -> TrainingPass:
    """An epoch of a variant."""
    model = make_model(LAYERS[name]() if name in LAYERS else [])
    seen = DATA[name](data) if name in DATA else data
    return TrainingPass(model, seen, BATCH_SIZE, Options.model_validate(VARIANTS.get(name, {})), MAX_EPOCHS)


def main() -> None:
    parser = argparse.ArgumentParser(description="What each option of a training adds to an epoch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument(
        "--only",
        action="append",
        choices=NAMES,
        help="a variant beside plain; all of them where it is not given",
    )
    options = parser.parse_args()
    use_threads()
    print_machine(describe_machine() | {"clock": options.clock, "date": time.strftime("%Y-%m-%d")})
    _, data = load_data()
    names = ["plain", *options.only] if options.only else NAMES
    passes, clock = {name: make_pass(name, data) for name in names}, CLOCKS[options.clock]
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for epoch in range(options.repeats + 1):
        for name, run_epoch in passes.items():
            began = clock()
            run_epoch(epoch, 0)
            if epoch:  # the first traces
                seconds[name].append(clock() - began)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    print_table(
        f"Seconds of an epoch of training ({options.clock} time, medians of {options.repeats}), and over plain.",
        ("variant", "seconds", "over plain"),
        [(name, f"{median:.2f}", f"{median / medians['plain']:.3f}") for name, median in medians.items()],
    )


if __name__ == "__main__":
    main()
