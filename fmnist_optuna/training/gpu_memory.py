"""How much of a GPU's memory TensorFlow takes in this process."""

import tensorflow as tf

from fmnist_optuna.errors import UsageError

MEBIBYTE = 2**20  # bytes; in which TensorFlow counts the memory of a GPU


def limit_gpu_memory(n_bytes: int) -> None:
    """Let TensorFlow take no more than so many bytes of the GPU of this process; must come before its first operation.

    Several workers may then share a GPU, each with a part of its memory.

    Raises:
        UsageError: There is no GPU, or the part is smaller than a mebibyte.
    """
    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        raise UsageError(
            "--gpu-memory must have a GPU to be a part of, but TensorFlow sees none here; leave it out, or see "
            "CUDA_VISIBLE_DEVICES and the driver's libraries."
        )
    if n_bytes < MEBIBYTE:
        raise UsageError(f"--gpu-memory must be at least 1m, but got {n_bytes} bytes.")
    limit = tf.config.LogicalDeviceConfiguration(memory_limit=n_bytes // MEBIBYTE)
    tf.config.set_logical_device_configuration(devices[0], [limit])
