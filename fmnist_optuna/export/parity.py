"""Does an exported model give the recorded answers? A script for a fresh process with TensorFlow and nothing of ours.

    python parity.py FOLDER ARRAYS.npz BATCH

ARRAYS.npz holds `images` (n, *image_shape), the recorded `probabilities` float32 (n, n_classes) and `labels`, integers
(n,). BATCH images are answered at once, as many as when the answers were recorded. One JSON object on stdout says how
far the model's answers are from them; the caller judges.
"""

import json
import sys

import numpy as np
import tensorflow as tf


def measure(folder: str, arrays_file: str, batch: int) -> dict[str, float | int]:
    """How far the model in a folder is from recorded answers.

    Args:
        batch: Images a call.

    Returns:
        `max_difference` of the probabilities, `n_other_classes`, `accuracy` (0..1) and `n_images`; and `n_odd_batches`:
        answers to batches of 1 and 3 images whose classes or labels are not those of the large batch.
    """
    with np.load(arrays_file) as arrays:
        images, recorded, labels = arrays["images"], arrays["probabilities"], arrays["labels"]
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    answers = [serve(image=tf.constant(images[i : i + batch])) for i in range(0, len(images), batch)]
    probabilities = np.concatenate([answer["probabilities"].numpy() for answer in answers])
    class_ids = np.concatenate([answer["class_id"].numpy() for answer in answers])
    names = np.concatenate([answer["label"].numpy() for answer in answers])
    n_odd = 0
    for size in (1, 3):
        answer = serve(image=tf.constant(images[:size]))
        same = np.array_equal(answer["class_id"].numpy(), class_ids[:size])
        n_odd += not (same and np.array_equal(answer["label"].numpy(), names[:size]))
    return {
        "max_difference": float(np.abs(probabilities - recorded).max()),
        "n_other_classes": int(np.sum(class_ids != recorded.argmax(axis=1))),
        "accuracy": float(np.mean(class_ids == labels)),
        "n_images": len(images),
        "n_odd_batches": n_odd,
    }


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(1)  # as the opening was made
    tf.config.threading.set_inter_op_parallelism_threads(1)
    json.dump(measure(sys.argv[1], sys.argv[2], int(sys.argv[3])), sys.stdout)
