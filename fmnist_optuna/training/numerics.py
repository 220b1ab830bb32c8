"""Settings of Keras and TensorFlow, and variables of the environment, that change the numbers of a training."""

import json
import os
from collections.abc import Mapping

import keras
import tensorflow as tf
from tensorflow.python.framework import config as framework  # the public one cannot say whether operations are so

# Beginnings of names. Not "TF_" alone: Terraform keeps its variables under that, secrets among them.
FAMILIES = (
    *("TF_ENABLE_", "TF_DISABLE_", "TF_USE_", "TF_FORCE_", "TF_XLA_", "TF_DETERMINISTIC_", "TF_AUTO_MIXED_PRECISION_"),
    *("TF_CUDNN_", "TF_CUBLAS_", "TF_CUDA_", "TF_ROCM_", "TF_ONEDNN_", "TF_MKL_", "TF_CPU_", "TF_FP16_", "TF_MLIR_"),
    *("TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_OVERRIDE_", "TF2_BEHAVIOR"),
    *("XLA_", "ONEDNN_", "DNNL_", "CUDNN_", "CUBLAS_", "NVIDIA_TF32_"),
    "PYTHONHASHSEED",  # the order of a set of strings, in which a model may be built
)
HARMLESS = (  # memory, logs and places
    *("TF_FORCE_GPU_ALLOW_GROWTH", "TF_CUDA_PATHS", "TF_CUDA_VERSION", "XLA_PYTHON_CLIENT_"),
    *("ONEDNN_VERBOSE", "DNNL_VERBOSE", "CUDNN_LOG", "CUBLAS_LOG", "CUDNN_PATH", "CUBLAS_PATH"),
)
LONGEST = 200  # characters of a value that are kept


def read_keras_settings() -> dict[str, str]:
    """Keras' settings by name, whether from keras.json, a variable, or the user's module."""
    return {
        "backend": str(keras.config.backend()),
        "dtype_policy": str(keras.config.dtype_policy().name),
        "epsilon": repr(keras.config.epsilon()),
        "floatx": str(keras.config.floatx()),
        "image_data_format": str(keras.config.image_data_format()),
    }


def read_numerics(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Everything by name: Keras' settings, TensorFlow's, its devices, and those variables that are set.

    Oncoming versions bring variables of their own, so that whole families are taken, without those that are known to
    change no number.
    """
    variables = {
        name: value[:LONGEST]
        for name, value in environ.items()
        if name.startswith(FAMILIES) and not name.startswith(HARMLESS)
    }
    threading = tf.config.threading
    return {
        **variables,
        **read_keras_settings(),
        "deterministic_ops": str(framework.is_op_determinism_enabled()),
        "eager_functions": str(tf.config.functions_run_eagerly()),
        "grappler": json.dumps(tf.config.optimizer.get_experimental_options(), sort_keys=True),
        "gpus": ", ".join(_name_gpu(device) for device in tf.config.list_physical_devices("GPU")),
        "jit": str(tf.config.optimizer.get_jit() or "off"),
        "tensor_float_32": str(tf.config.experimental.tensor_float_32_execution_enabled()),
        "tf_threads": (
            f"{threading.get_intra_op_parallelism_threads()} and {threading.get_inter_op_parallelism_threads()}"
        ),
    }


def _name_gpu(device: tf.config.PhysicalDevice) -> str:
    return str(tf.config.experimental.get_device_details(device).get("device_name", device.name))
