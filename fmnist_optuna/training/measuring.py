"""A metric of any images, as the validation of a training measures it."""

import keras
import numpy as np
import tensorflow as tf

from fmnist_optuna.data.dataset import DatasetInfo, Images, Labels
from fmnist_optuna.search.metric import Metric
from fmnist_optuna.training.engine import ValidationPass
from fmnist_optuna.training.metrics import ModelMetrics


def measure(model: keras.Model, images: Images, labels: Labels, metric: Metric, info: DatasetInfo) -> float:
    """What `model.evaluate` gives of it, with the weights that the model has now.

    Args:
        images: (n, *image_shape).
        labels: (n,).
        metric: One that the model measures.
        info: What the images are.

    Raises:
        SpecError: It does not measure it.
    """
    metrics = ModelMetrics(model, info.n_classes)
    metrics.check_objective(metric, f"the model {type(model).__name__}")
    model.reset_metrics()
    score = ValidationPass(model, tf.constant(images), tf.constant(labels.astype(np.int32)), metrics.update)()
    return metrics.read(metric, score.accuracy, score.loss)
