"""The Python interface: a study from a dictionary to a loaded model, without the command line.

Its data is scikit-learn's 8x8 digits, given by a function: floats from 0 to 16 where Fashion-MNIST has bytes.
"""

import sys
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
from fmnist_optuna.errors import NotFoundError, SpecError, UsageError
from fmnist_optuna.pages.report import write_report

N_TEST = 450  # of 1,797 images
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS = f"""
from pathlib import Path

import numpy as np

from fmnist_optuna import Dataset, DatasetInfo

def load():
    with np.load(Path(__file__).with_name("digits.npz")) as arrays:
        images, labels = arrays["images"].astype("float32"), arrays["labels"]
    form = images.shape[1:], "float32", (images.min(), images.max())
    info = DatasetInfo("8x8 digits", *form, {NAMES}, is_light_on_dark=True)
    return Dataset(info, images[{N_TEST}:], labels[{N_TEST}:], images[:{N_TEST}], labels[:{N_TEST}])
"""
SPEC = {
    "name": "small",
    "data": {"source": "user_digits:load", "n_validation": 300},
    "grid": {"hidden_size": [8, 32], "dropout_rate": [0.0], "learning_rate": [0.01]},
    "training": {"max_epochs": 3},
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
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A storage in a folder with the module of the data, where this process and its children find it."""
    from sklearn.datasets import load_digits

    folder, digits = tmp_path_factory.mktemp("api"), load_digits()
    np.savez(folder / "digits.npz", images=digits.images, labels=digits.target)
    (folder / "user_digits.py").write_text(DIGITS)
    sys.path.append(str(folder))
    yield f"sqlite:///{folder}/studies.db"
    sys.path.remove(str(folder))


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
    assert (study.name, study.is_demo, study.spec.grid["hidden_size"]) == ("small", False, (8, 32))
    assert (study.dataset.name, study.dataset.form) == ("8x8 digits", "float32 (n, 8, 8)")
    assert (diary.told[0], diary.told[-1]) == ("started small", "finished")
    assert "progressed" in diary.told


def test_trials_are_rows_of_a_table(study: Study) -> None:
    """Flat rows with the same columns, the best first; a curve has an entry for each epoch."""
    rows = study.trials()
    assert {tuple(row) for row in rows} == {tuple(rows[0])}
    assert {row["params_hidden_size"] for row in rows} == {8, 32}
    assert all(isinstance(value, str | int | float | None) for row in rows for value in row.values())
    best = study.best()
    assert (rows[0]["trial"], rows[0]["val_accuracy"]) == (best.trial, best.val_accuracy)
    assert best.evaluation is not None
    curve = study.curve(best.trial)
    assert len(curve) == 3
    assert max(epoch.val_accuracy for epoch in curve) == best.val_accuracy


def test_a_second_run_trains_nothing(study: Study, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It gives the same winner; the bar shows that all is done."""
    with run_study(SPEC, storage=url, observer=ProgressBar()) as again:
        assert (again.best().trial, again.best().val_accuracy) == (study.best().trial, study.best().val_accuracy)
    assert "2/2" in capsys.readouterr().out


def test_a_study_that_follows_is_not_run_as_one_of_a_grid(study: Study, url: str) -> None:
    """Its images may be others; who has its specification is told what goes on with it."""
    spec = study.spec.model_copy(update={"name": "small/all-data"})
    with pytest.raises(
        UsageError, match=r"study small/all-data: must be one of a grid, .* fmnist-optuna confirm small,"
    ):
        run_study(spec, storage=url)


def test_an_opened_study_is_the_same(study: Study, url: str) -> None:
    """Found by name, or as the only one there; another name is said to be unknown."""
    for name in ("small", None):
        with open_study(name, storage=url) as opened:
            assert opened.trials() == study.trials()
    with pytest.raises(NotFoundError, match="There is no study other"):
        open_study("other", storage=url)


@pytest.mark.more
def test_the_digits_are_exported_and_loaded(study: Study, one_thread: None, tmp_path: Path) -> None:
    """The loaded model takes images as the function gives them, names them, and refuses others; its card says which."""
    from sklearn.datasets import load_digits

    exported = export_model(study, tmp_path)
    model, digits = load_exported(exported.folder), load_digits()
    images = digits.images[:N_TEST].astype("float32")
    np.testing.assert_allclose(model.probabilities(images).sum(axis=1), 1, atol=1e-5)
    assert (model.labels, model.info) == (NAMES, study.dataset)
    right = [NAMES[label] == name for label, name in zip(digits.target[:N_TEST], model.predict(images), strict=True)]
    best = study.best()
    assert best.evaluation is not None
    assert np.mean(right) == best.evaluation.accuracy == exported.manifest["test_accuracy"]
    assert np.mean(right) > 0.6  # chance is 0.1
    with pytest.raises(FmnistOptunaError, match=r"images must be float32 of shape \(n, 8, 8\), but are float64"):
        model.predict(digits.images)
    card = (exported.folder / "MODEL_CARD.md").read_text()
    assert "A classifier of grey 8 x 8 pictures into 10 classes" in card
    assert "float32 (n, 8, 8), 0 (black) to 16 (white), light on dark" in card


@pytest.mark.more
def test_the_digits_are_confirmed_and_reported(study: Study, url: str, tmp_path: Path) -> None:
    """An opened study finds its data again; the page shows what was mistaken."""
    confirmed = confirm_study(study, n_cells=1, n_seeds=2, all_data=True, n_workers=2)
    assert confirmed.confirmation.test is not None
    assert confirmed.winner.all_data is not None
    assert confirmed.winner.all_data.test is not None
    with open_study("small", storage=url) as again:
        assert again.best().trial == confirmed.winner.trial
        write_report(again._session, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Its surest mistakes" in page
    assert "Data: 8x8 digits." in page


@pytest.mark.parametrize(
    ("spec", "arguments", "error", "text"),
    [
        ({**SPEC, "gird": {}}, {}, SpecError, "gird"),
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


def test_an_unknown_name_is_no_attribute() -> None:
    """A typing error is found at once."""
    with pytest.raises(AttributeError, match="has no attribute 'run_studdy'"):
        _ = fmnist_optuna.run_studdy
