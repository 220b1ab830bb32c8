"""The Python interface: a study from a dictionary to a loaded model, without the command line."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fmnist_optuna
from fmnist_optuna import (
    FmnistOptunaError,
    Observer,
    ProgressBar,
    Study,
    confirm_study,
    export_model,
    load_exported,
    open_study,
    run_study,
)
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.synthetic import draw_garments
from fmnist_optuna.errors import NotFoundError, SpecError, UsageError

SPEC = {
    "name": "small",
    "data": {"source": "synthetic", "n_validation": 12_000},
    "grid": {"hidden_size": [8, 16], "dropout_rate": [0.2], "learning_rate": [0.01]},
    "training": {"max_epochs": 1, "batch_size": 1_000},
    "pruner": {"name": "none"},
}


class Diary(Observer):
    """Keeps the names of what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def started(self, study: Study) -> None:
        self.told.append(f"started {study.name}")

    def progressed(self, study: Study) -> None:
        self.told.append("progressed")

    def finished(self, study: Study | None) -> None:
        self.told.append("finished")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('api')}/studies.db"


@pytest.fixture(scope="module")
def diary() -> Diary:
    return Diary()


@pytest.fixture(scope="module")
def study(url: str, diary: Diary) -> Iterator[Study]:
    """Run in a thread, as a program with a loop of its own would."""
    got: list[Study] = []
    thread = threading.Thread(
        target=lambda: got.append(run_study(SPEC, storage=url, n_workers=2, observer=diary)), name="trains"
    )
    thread.start()
    thread.join(120)
    (study,) = got
    yield study
    study.close()


def test_a_study_runs_in_a_thread(study: Study, diary: Diary) -> None:
    """Every cell has its result, and the observer was told of beginning, progress and end."""
    counts = study.status()
    assert (counts.total, counts.complete, counts.is_over) == (2, 2, True)
    assert study.verify().ok
    assert (study.name, study.is_demo, study.spec.grid["hidden_size"]) == ("small", True, (8, 16))
    assert (diary.told[0], diary.told[-1]) == ("started small", "finished")
    assert "progressed" in diary.told


def test_trials_are_rows_of_a_table(study: Study) -> None:
    """Flat rows with the same columns, the best first; a curve has an entry for each epoch."""
    rows = study.trials()
    assert {tuple(row) for row in rows} == {tuple(rows[0])}
    assert {row["params_hidden_size"] for row in rows} == {8, 16}
    assert all(isinstance(value, str | int | float | None) for row in rows for value in row.values())
    best = study.best()
    assert (rows[0]["trial"], rows[0]["val_accuracy"]) == (best.trial, best.val_accuracy)
    assert best.evaluation is not None
    (epoch,) = study.curve(best.trial)
    assert epoch.val_accuracy == best.val_accuracy


def test_a_second_run_trains_nothing(study: Study, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It gives the same winner; the bar shows that all is done."""
    with run_study(SPEC, storage=url, observer=ProgressBar()) as again:
        assert (again.best().trial, again.best().val_accuracy) == (study.best().trial, study.best().val_accuracy)
    assert "2/2" in capsys.readouterr().out


def test_an_opened_study_is_the_same(study: Study, url: str) -> None:
    """Found by name, or as the only one there; another name is said to be unknown."""
    for name in ("small", None):
        with open_study(name, storage=url) as opened:
            assert opened.trials() == study.trials()
    with pytest.raises(NotFoundError, match="There is no study other"):
        open_study("other", storage=url)


def test_the_winner_is_exported_and_loaded(study: Study, tmp_path: Path) -> None:
    """The loaded model names garments, and refuses other arrays."""
    model = load_exported(export_model(study, tmp_path).folder)
    images, labels, _, _ = draw_garments(200, 1)
    given = model.probabilities(images)
    np.testing.assert_allclose(given.sum(axis=1), 1, atol=1e-5)
    assert model.labels == FASHION_MNIST.class_names
    right = [
        FASHION_MNIST.class_names[label] == name for label, name in zip(labels, model.predict(images), strict=True)
    ]
    assert np.mean(right) > 0.3  # chance is 0.1
    with pytest.raises(FmnistOptunaError, match=r"images must be uint8 of shape \(n, 28, 28\), but are float64"):
        model.predict(images / 255)


@pytest.mark.parametrize(
    ("spec", "arguments", "error", "text"),
    [
        ({**SPEC, "gird": {}}, {}, SpecError, "gird"),
        (SPEC, {"n_workers": 0}, UsageError, "n_workers must be greater than 0, but is 0"),
        (SPEC, {"timeout_seconds": float("nan")}, UsageError, "timeout_seconds must be greater than 0"),
        ("missing.toml", {}, FmnistOptunaError, "missing.toml"),
    ],
)
def test_bad_arguments_are_refused(
    spec: object, arguments: dict[str, float], error: type[Exception], text: str, tmp_path: Path
) -> None:
    """In one line, before anything is made."""
    with pytest.raises(error, match=text) as caught:
        run_study(spec, storage=f"sqlite:///{tmp_path}/new.db", **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_confirm_needs_two_seeds(study: Study) -> None:
    """One seed has no spread."""
    with pytest.raises(UsageError, match="n_seeds must be at least 2, but is 1"):
        confirm_study(study, n_seeds=1)


def test_an_unknown_name_is_no_attribute() -> None:
    """A typing error is found at once."""
    with pytest.raises(AttributeError, match="has no attribute 'run_studdy'"):
        _ = fmnist_optuna.run_studdy
