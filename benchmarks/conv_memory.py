"""Peak memory of one epoch and validation of a convolutional net: this engine beside stock `fit`, a process each.

    python benchmarks/conv_memory.py [--width 32] [--batch-size 128]

The images are random, 4,000 to train on and 12,000 to validate on; a peak is the largest resident size of a process.
"""

import argparse
import resource
import subprocess
import sys

from databases import describe_machine
from tables import print_machine, print_table

N_TRAIN, N_VALIDATION = 4_000, 12_000
WAYS = ("fit", "this engine")


def train(way: str, width: int, batch_size: int) -> None:
    """Train for one epoch in this process, and print its peak in bytes."""
    import numpy as np

    from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
    from fmnist_optuna.settings import prepare_training_environment

    prepare_training_environment()
    import keras

    from fmnist_optuna.training.engine import use_threads
    from fmnist_optuna.training.loop import Training
    from fmnist_optuna.training.resident_data import ResidentData

    use_threads()
    layers = [keras.Input((28, 28), dtype="uint8"), keras.layers.Reshape((28, 28, 1)), keras.layers.Rescaling(1 / 255)]
    for factor in (1, 2):
        for _ in range(2):
            layers += [keras.layers.Conv2D(factor * width, 3, padding="same"), keras.layers.BatchNormalization()]
            layers += [keras.layers.ReLU()]
        layers.append(keras.layers.MaxPooling2D())
    model = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (N_TRAIN + N_VALIDATION, 28, 28), dtype=np.uint8)
    labels = random.integers(0, 10, N_TRAIN + N_VALIDATION).astype(np.uint8)
    ours = images[:N_TRAIN], labels[:N_TRAIN]
    theirs = images[N_TRAIN:], labels[N_TRAIN:]
    if way == "fit":
        model.fit(*ours, batch_size=batch_size, validation_data=theirs, verbose=0)
    else:
        data = ResidentData.from_arrays(FASHION_MNIST, *ours, *theirs)
        training = Training(model, data, batch_size=batch_size, max_epochs=1, patience=1, seed=0)
        training.run()
        training.finish()
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of a convolutional net here and under fit")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--way", choices=WAYS)
    options = parser.parse_args()
    if options.way:
        train(options.way, options.width, options.batch_size)
        return
    given = ["--width", str(options.width), "--batch-size", str(options.batch_size)]
    peaks = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, *given]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks[way] = int(done.stdout.split()[-1])
    print_machine(describe_machine())
    print_table(
        "Peak of the process, MB.", ("way", "peak"), [(way, f"{peak / 1e6:,.0f}") for way, peak in peaks.items()]
    )


if __name__ == "__main__":
    main()
