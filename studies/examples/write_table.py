"""Write a table of features to train on: scikit-learn's 569 measured tumours as arrays in an .npz file.

python write_table.py [FILE.npz]     "tumours.npz" without one
"""

import sys

import numpy as np
from sklearn.datasets import load_breast_cancer


def main(file: str) -> None:
    """Rows of 30 numbers, whose scales differ by a factor of a million, and labels as words."""
    found = load_breast_cancer()
    np.savez_compressed(file, x=found.data, y=found.target_names[found.target])


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tumours.npz")
