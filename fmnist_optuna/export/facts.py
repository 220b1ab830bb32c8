"""All that an export says of itself, gathered once: its manifest has it as JSON, its card in words."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.export.source import Source
from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.results.confirmation import Confirmation
from fmnist_optuna.results.evaluation import Evaluation
from fmnist_optuna.results.seeds import figures_of_repeats
from fmnist_optuna.search.cell import TRAINING_SEED
from fmnist_optuna.study.records import StudyRecord
from fmnist_optuna.study.teacher import Teacher


@dataclass(frozen=True)
class Parity:
    """What a process with TensorFlow alone measured of a SavedModel on the test images.

    Args:
        max_difference: Of a probability from the recorded one.
        n_other_classes: Images that get another class than the recorded one.
        accuracy: 0..1.
        n_images: Test images.
        n_odd_batches: Of two small batches, those that get other answers than in a large one.
    """

    max_difference: float
    n_other_classes: int
    accuracy: float
    n_images: int
    n_odd_batches: int


@dataclass(frozen=True)
class Facts:
    """What an export is and where it comes from.

    Args:
        record: Of the study that was searched.
        source: Whose weights were exported.
        evaluation: The recorded score of these weights on the test images.
        n_cells: Of the study.
        formats: "savedmodel" and "keras".
        ends_in_logits: Whether the Keras model does; a SavedModel always gives probabilities.
        parity: Of the SavedModel; None without one.
    """

    record: StudyRecord
    source: Source
    evaluation: Evaluation
    n_cells: int
    weights_sha256: str
    formats: tuple[str, ...]
    ends_in_logits: bool
    parity: Parity | None

    @property
    def attempt(self) -> Attempt:
        """Whose weights were exported; of an ensemble the first."""
        return self.source.attempts[0]

    @property
    def confirmation(self) -> Confirmation | None:
        """What chose the attempt over fresh seeds; None if nothing did."""
        return self.source.confirmation

    @property
    def val_accuracy(self) -> float | None:
        """On the validation images, 0..1; None where these were trained on, and for an ensemble."""
        is_known = not self.source.is_on_all_data and not self.source.is_ensemble
        return self.attempt.val_accuracy if is_known else None

    @property
    def value(self) -> float | None:
        """Of what the study compares by, on the same images; None likewise."""
        return None if self.val_accuracy is None else self.attempt.value

    @property
    def teacher(self) -> Teacher | None:
        """Whose answers the exported weights learned from; None for nobody's."""
        return self.record.teacher_of(self.source.params)

    @property
    def has_saved_model(self) -> bool:
        """Whether a SavedModel was written; a Keras model gives the outputs of the net and nothing else."""
        return "savedmodel" in self.formats

    @property
    def flip(self) -> bool:
        """Whether the SavedModel averages its answers over an image and its mirror image."""
        return self.has_saved_model and self.source.session.record.spec.confirm.flip

    @property
    def info(self) -> DatasetInfo:
        """What the images are that the model takes."""
        return self.record.info

    @property
    def architecture(self) -> Mapping[str, Json]:
        """Name and fixed arguments of the architecture."""
        return {"name": self.record.spec.model.architecture, **self.record.spec.model.arguments}

    def to_manifest(self, files: Mapping[str, str]) -> dict[str, Json]:
        """The content of manifest.json.

        Args:
            files: SHA-256 of every other file, by its path in the folder.
        """
        source = self.source
        return {
            "schema": 1,
            "study": self.record.name,
            "trial": None if source.is_ensemble else self.attempt.number,
            "trial_study": source.session.record.name,
            "ensemble": [_describe_member(attempt) for attempt in source.attempts] if source.is_ensemble else None,
            "params": source.params,
            "architecture": self.architecture,
            "synthetic": self.info.is_demo,
            "data": {"source": self.record.data_source, "fingerprint": self.record.data_fingerprint},
            "teacher": None if self.teacher is None else self.teacher.to_content(),
            **self._figures(),
            "weights_sha256": self.weights_sha256,
            "formats": list(self.formats),
            "keras_model_ends_in": "logits" if self.ends_in_logits else "probabilities",
            "labels": list(self.info.class_names),
            "dataset": self.info.to_content(),
            "parity": None if self.parity is None else asdict(self.parity),
            "trained_with": self.attempt.attributes.environment,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": files,
        }

    def _figures(self) -> dict[str, Json]:
        """Every score, in the manifest."""
        source = self.source
        return {
            "objective": self.record.metric.answer(self.value),
            "test_objective": self.evaluation.value_of(self.record.metric),
            "test_objective_with_flip": self.evaluation.flip_value_of(self.record.metric),
            "val_accuracy": self.val_accuracy,
            "trained_on_validation": source.is_on_all_data,
            "test_accuracy": self.evaluation.accuracy,
            "test_interval": list(self.evaluation.interval),
            "flip": self.flip,
            "test_accuracy_with_flip": self.evaluation.flip_accuracy,
            "n_test_images": self.evaluation.n_images,
            "n_cells": self.n_cells,
            "repeats": figures_of_repeats(source.repeats),
            "folds": None if source.folds is None else source.folds.figures(),
            "confirmed": None if self.confirmation is None else self.confirmation.figures(),
            "all_data": None if source.all_data is None else source.all_data.figures(),
        }


def _describe_member(attempt: Attempt) -> dict[str, Json]:
    return {
        "trial": attempt.number,
        "training_seed": attempt.params[TRAINING_SEED],
        "weights_sha256": attempt.attributes.weights_sha256,
    }
