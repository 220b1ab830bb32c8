"""How the outputs of a model are meant: as probabilities or as logits. Imports no Keras.

The end of the model and its loss decide, not the values of the moment: untrained weights give the same answer.
"""

import numpy as np
from numpy.typing import NDArray

from fmnist_optuna.errors import SpecError

NORMALIZING = ("softmax", "sparsemax")  # activations whose outputs are not negative and sum to one
UNBOUNDED = ("linear", "log_softmax")  # activations whose outputs nobody takes for anything but logits
TOLERANCE = 0.01  # of a sum: of ten outputs in half precision, bfloat16 included
RULE = "model.architecture must end in probabilities, or in logits with a loss that has from_logits=True, but"


def reads_as_logits(activation: str | None, from_logits: bool | None, outputs: NDArray[np.floating]) -> bool:
    """Whether the softmax still has to be put on the outputs of a model.

    Args:
        activation: Keras' name of the function that the model ends in; None for one of the user's own, or for a model
            whose layers cannot be seen.
        from_logits: What the loss says; None for a loss that says nothing.
        outputs: Of some images of noise, (n, n_classes).

    Raises:
        SpecError: There is no reading, or more than one.
    """
    sums = outputs.sum(axis=1)
    is_distribution = bool(np.min(outputs) >= 0 and np.abs(sums - 1).max() < TOLERANCE)
    is_unknown = not np.isfinite(outputs).all()  # of weights that were lost in training; its end is what it was
    if (activation in NORMALIZING and (is_distribution or is_unknown)) or (activation is None and is_distribution):
        if from_logits:
            raise SpecError(
                f"{RULE} its outputs sum to one, as probabilities do, and its loss takes them for logits; leave out "
                "the softmax, or from_logits=True."
            )
        return False
    if from_logits:
        return True
    if from_logits is None and (activation in UNBOUNDED or (activation is None and np.min(outputs) < 0)):
        return True
    how = "" if activation is None else f", a {activation},"
    sum_of_one = f"the outputs of its end{how} are no probabilities: on noise they sum to {sums[0]:.3g}"
    if from_logits is None:
        raise SpecError(f"{RULE} {sum_of_one}, and its loss does not say what they are; end in a softmax.")
    raise SpecError(
        f"{RULE} {sum_of_one}, while its loss takes them for probabilities; end in a softmax, or give the loss "
        "from_logits=True."
    )
