"""What figures make of names that look like something else."""

from fmnist_optuna.pages.figures.confusion_matrix import draw_confusion_matrix
from fmnist_optuna.results.evaluation import ClassResult, Evaluation


def test_classes_named_by_digits_are_all_on_the_axes() -> None:
    """Names such as "7" are names: no axis of numbers, on which every other one would be missing."""
    classes = tuple(ClassResult(str(number), 1, 1.0, 1.0) for number in range(10))
    confusion = tuple(tuple(int(row == column) for column in range(10)) for row in range(10))
    figure = draw_confusion_matrix(Evaluation(1.0, (0.7, 1.0), 10, classes, confusion))
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        assert (axis.type, axis.dtick) == ("category", 1)
