"""Observers of a program, and what becomes of the end of a run when they fail."""

import pytest
from small_study import ON_SQLITE

from fmnist_optuna import Observer, ProgressBar, Study, run_study
from fmnist_optuna.api.observer import Told, telling
from fmnist_optuna.errors import StoppedError, StorageError
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.session import Session


class Clumsy(Observer):
    """Keeps what it was told, and fails at the end."""

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def failed(self, error: BaseException) -> None:
        self.told.append(f"failed: {error}")

    def finished(self, study: Study | None) -> None:
        self.told.append("finished")
        raise ValueError("no room for a diary")


@pytest.fixture
def told(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a clumsy observer was told during a run that is stopped, and when its study was closed."""
    told: list[str] = []

    def stop(spec: StudySpec, options: object, observer: Told) -> None:
        observer.study = Study(session)
        raise StoppedError("The time is over.")

    monkeypatch.setattr("fmnist_optuna.running.study.run_study", stop)
    monkeypatch.setattr(Study, "close", lambda study: told.append("closed"))
    return told


@ON_SQLITE
def test_an_observer_does_not_hide_why_a_run_ended(session: Session, told: list[str]) -> None:
    """What it raises is a note on the run's own error; it is told while the study is still open."""
    with pytest.raises(StoppedError, match="The time is over") as caught:
        run_study(StudySpec(), storage=session.storage.options.url, observer=Clumsy(told))
    assert told == ["failed: The time is over.", "finished", "closed"]
    (note,) = caught.value.__notes__
    assert note.startswith("The observer was told of it and raised ValueError: no room for a diary")


def test_an_observer_may_fail_where_nothing_else_does() -> None:
    """Its error is that of the run then."""
    told: list[str] = []
    with pytest.raises(ValueError, match="no room for a diary"), telling(Told(Clumsy(told))):
        pass
    assert told == ["finished"]


@ON_SQLITE
def test_a_bar_asks_no_storage_that_failed(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays as it was drawn last, and gives the terminal back at once."""
    bar, study = ProgressBar(), Study(session)
    told = Told(bar)
    told.study = study
    bar.started(study)
    monkeypatch.setattr(Study, "status", lambda study: pytest.fail("It must not be asked any more."))
    with pytest.raises(StorageError, match=r"^gone$"), telling(told):
        raise StorageError("gone")
    assert not bar._bar.live.is_started


@ON_SQLITE
def test_a_bar_that_cannot_be_drawn_ends(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves the terminal also where the last look at the study fails."""

    def fail(study: Study) -> None:
        raise StorageError("gone")

    bar, study = ProgressBar(), Study(session)
    bar.started(study)
    monkeypatch.setattr(Study, "status", fail)
    with pytest.raises(StorageError, match=r"^gone$"):
        bar.finished(study)
    assert not bar._bar.live.is_started
