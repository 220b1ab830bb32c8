"""The device on which TensorFlow trains in this process."""

import os

import tensorflow as tf

CPU = "CPU"
LONGEST = 64  # characters that the list of workers keeps


def describe_device() -> str:
    """What this process trains on: "CPU", or the first GPU that it may use, as "GPU 2: NVIDIA A100".

    The number is the one that `CUDA_VISIBLE_DEVICES` has for it, or 0. No device is used by the question.
    """
    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return CPU
    number = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip() or "0"
    name = tf.config.experimental.get_device_details(devices[0]).get("device_name", "")
    place = f"GPU {number}" if number.isdigit() else number  # or it is named: GPU-8932f937, MIG-...
    return f"{place}: {name}"[:LONGEST].rstrip(": ")
