"""The answers of a teacher as a file: probabilities of all images that its student may train on, with a hash."""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.errors import MismatchError


def pack_soft_labels(probabilities: NDArray[np.float32]) -> bytes:
    """The content of a file; float32, as a temperature would make much of what float16 takes for 0."""
    packed = io.BytesIO()
    np.save(packed, probabilities.astype("<f4"), allow_pickle=False)
    return packed.getvalue()


def hash_soft_labels(content: bytes) -> str:
    """SHA-256 of the content of a file, 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class SoftLabels:
    """The file with the answers as it was read; it travels to children.

    Args:
        name: Where it lies: a path or a URL.
        content: Of the file.
        sha256: Of the content that the study was made with.
    """

    name: str
    content: bytes
    sha256: str

    def load(self) -> NDArray[np.float32]:
        """Probabilities (n, n_classes): of the training images of the split in their order, then of the validation's.

        Raises:
            MismatchError: The file was altered.
        """
        if (found := hash_soft_labels(self.content)) != self.sha256:
            raise MismatchError(
                f"The soft labels {self.name} must have SHA-256 {self.sha256}, but have {found}; they were altered: "
                "bring the file back, or train the study again under another name."
            )
        labels: NDArray[np.float32] = np.load(io.BytesIO(self.content), allow_pickle=False)
        return labels


def describe_missing(name: str, reason: str) -> MismatchError:
    """The error of soft labels that cannot be read.

    Args:
        name: Where they should lie.
    """
    return MismatchError(
        f"The soft labels of the study must be at {name}, but {reason}; bring the file back, and let every machine "
        "with workers share the folder of the artifacts, or keep them in a bucket (--artifacts)."
    )
