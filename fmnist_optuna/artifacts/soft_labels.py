"""The answers of a teacher as a file: probabilities of all images that its student may train on, with a hash."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

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
    """Where the answers lie; it travels to children.

    Args:
        path: Of the file.
        sha256: Of its content.
    """

    path: Path
    sha256: str

    def load(self) -> NDArray[np.float32]:
        """Probabilities (n, n_classes): of the training images of the split in their order, then of the validation's.

        Raises:
            MismatchError: The file is not there, or was altered.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise MismatchError(
                f"The soft labels of the study must be at {self.path}, but {error.strerror or error}; bring the file "
                "back, and let every machine with workers share the folder of the artifacts."
            ) from error
        if (found := hash_soft_labels(content)) != self.sha256:
            raise MismatchError(
                f"The soft labels {self.path} must have SHA-256 {self.sha256}, but have {found}; they were altered: "
                "bring the file back, or train the study again under another name."
            )
        labels: NDArray[np.float32] = np.load(io.BytesIO(content), allow_pickle=False)
        return labels
