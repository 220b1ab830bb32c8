"""The openings of the test set: one set of weights is scored once, by one process, and replayed ever after."""

import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest
from small_study import FINGERPRINT, ON_SQLITE, finish_everything, in_threads, make_spec
from sqlalchemy import select, update

from fmnist_optuna.cli.answers import winner_answer
from fmnist_optuna.cli.winner_tables import print_winner
from fmnist_optuna.errors import StorageError
from fmnist_optuna.ledger import openings as module
from fmnist_optuna.ledger.holders import Process, host_identity
from fmnist_optuna.ledger.openings import Scores
from fmnist_optuna.ledger.tables import openings, predictions
from fmnist_optuna.pages.overview import read_overview
from fmnist_optuna.results.winner import find_winner
from fmnist_optuna.running.following import following_spec
from fmnist_optuna.search.cell import TRAINING_SEED, Params
from fmnist_optuna.spec.study_names import ALL_DATA_SUFFIX, CONFIRMATION_SUFFIX
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session

Sessions = Callable[..., Session]
WEIGHTS = "a" * 64
PROBABILITIES = np.eye(10, dtype=np.float32)[[0, 1, 2, 3]]
LABELS = np.array([0, 1, 2, 9], dtype=np.uint8)  # three of four right


def score() -> Scores:
    return Scores(PROBABILITIES, LABELS)


def never() -> Scores:
    raise AssertionError("scored twice")


def reserve(session: Session, process: Process) -> None:
    """A reservation of another process, which has not recorded anything."""
    opener = json.dumps({**asdict(process), "token": "other"})
    assert session.openings._reserve(1, WEIGHTS, "winner", opener, module.OPENING_SECONDS)


def test_a_failed_score_releases_the_opening(session: Session) -> None:
    """The error is the caller's; the next one may score."""
    with pytest.raises(ZeroDivisionError):
        session.openings.open(1, WEIGHTS, "winner", lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert session.openings.find(WEIGHTS) is None
    assert session.openings.open(1, WEIGHTS, "winner", score).accuracy == 0.75


@ON_SQLITE
def test_a_process_that_never_finishes_is_a_storage_error(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """After twice the time that an opening may take; the weights are named, nothing is scored twice."""
    reserve(session, Process.current())
    monkeypatch.setattr(module, "OPENING_SECONDS", 0.0)
    with pytest.raises(StorageError, match="must finish scoring weights aaaaaaaaaaaa"):
        session.openings.open(1, WEIGHTS, "winner", never)


@ON_SQLITE
def test_weights_that_nobody_opened_are_not_found(session: Session) -> None:
    """None, also while a scoring runs."""
    assert session.openings.find(WEIGHTS) is None
    reserve(session, Process.current())
    assert session.openings.find(WEIGHTS) is None


def test_an_opening_is_recorded_with_its_predictions(session: Session) -> None:
    """Accuracy is derived from them: 3 of 4."""
    opening = session.openings.open(7, WEIGHTS, "winner", score)
    assert (opening.trial_id, opening.weights_sha256, opening.purpose) == (7, WEIGHTS, "winner")
    assert opening.accuracy == 3 / 4
    np.testing.assert_array_equal(opening.probabilities, PROBABILITIES)
    np.testing.assert_array_equal(opening.labels, LABELS)
    assert (opening.probabilities.dtype, opening.labels.dtype) == (np.dtype(np.float32), np.dtype(np.uint8))


def test_answers_to_mirror_images_are_recorded_too(session: Session) -> None:
    """The mean of both is what an exported model answers: here it corrects the one wrong answer."""
    mirrored = np.eye(10, dtype=np.float32)[[0, 1, 2, 9]] * 3
    opening = session.openings.open(7, WEIGHTS, "winner", lambda: Scores(PROBABILITIES, LABELS, mirrored))
    assert (opening.accuracy, opening.scores.flip_accuracy) == (0.75, 1.0)
    assert opening.scores.averaged is not None
    np.testing.assert_array_equal(opening.scores.averaged, (PROBABILITIES + mirrored) / 2)
    assert session.openings.open(7, "b" * 64, "winner", score).scores.flip_accuracy is None


@pytest.mark.parametrize(("measured", "recorded"), [(0.25, 0.25), (None, None), (float("nan"), None)])
@ON_SQLITE
def test_the_metric_of_both_is_recorded_too(session: Session, measured: float | None, recorded: float | None) -> None:
    """Beside that of the plain answers; None where it could not be measured, or is no finite number."""
    scores = Scores(PROBABILITIES, LABELS, PROBABILITIES, 0.5, measured)
    session.openings.open(7, WEIGHTS, "winner", lambda: scores)
    (found,) = session.openings.recorded()
    assert (found.scores.objective, found.scores.flip_objective) == (0.5, recorded)


@ON_SQLITE
def test_an_opening_of_an_earlier_version_has_none(session: Session) -> None:
    """It recorded the answers to mirror images, and no metric of the averaged ones."""
    session.openings.open(7, WEIGHTS, "winner", lambda: Scores(PROBABILITIES, LABELS, PROBABILITIES, 0.5, 0.25))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, probabilities=PROBABILITIES, labels=LABELS, mirrored=PROBABILITIES)
    with session.storage.write() as connection:
        connection.execute(update(predictions).values(predictions=buffer.getvalue()))
    found = session.openings.find(WEIGHTS)
    assert found is not None
    assert (found.scores.flip_accuracy, found.scores.objective, found.scores.flip_objective) == (0.75, 0.5, None)


def test_a_second_opening_is_replayed(session: Session, new_session: Sessions) -> None:
    """By any process, without scoring."""
    first = session.openings.open(7, WEIGHTS, "winner", score)
    again = new_session("other").openings.open(7, WEIGHTS, "winner", never)
    assert (again.accuracy, again.opened_at) == (first.accuracy, first.opened_at)


@ON_SQLITE
def test_other_weights_are_another_opening(session: Session) -> None:
    """One scoring for each set of weights."""
    for weights in (WEIGHTS, "b" * 64):
        session.openings.open(7, weights, "winner", score)
    with session.storage.read() as connection:
        assert len(connection.execute(select(openings)).all()) == 2


def follow(session: Session, suffix: str, points: list[Params]) -> Session:
    """A study that follows from this one."""
    spec = following_spec(session.record.spec, session.record.name + suffix, points)
    record, _ = create_or_join(session.storage, spec, FINGERPRINT, points, parent=session.record)
    return Session(session.storage, record, session.name)


@ON_SQLITE
def test_openings_of_what_follows_are_counted(session: Session, new_session: Sessions) -> None:
    """With the study's own, as the report lists them; neither those of another study nor one that is not recorded."""
    points: list[Params] = [{"hidden_size": 64, "dropout_rate": 0.5, TRAINING_SEED: 1}]
    assert session.openings.count_all() == 0
    family = [session, follow(session, CONFIRMATION_SUFFIX, points), follow(session, ALL_DATA_SUFFIX, points)]
    for n_before, each in enumerate(family):
        assert session.openings.count_all() == n_before
        each.openings.open(7, "b" * 64, "winner", score)
    new_session("other", spec=make_spec(name="other")).openings.open(7, "c" * 64, "winner", score)
    reserve(session, Process.current())
    assert session.openings.count_all() == len(read_overview(session).openings) == 3


@ON_SQLITE
def test_a_winner_says_how_often_the_test_set_was_opened(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """In its table and in its answer."""
    finish_everything(session)
    told = []
    for weights in (WEIGHTS, "b" * 64):
        opening = session.openings.open(7, weights, "winner", score)
        winner = replace(find_winner(session), opening=opening)
        print_winner(session.record, winner, session.history.counts())
        told.append((winner_answer(session.record, winner)["openings"], capsys.readouterr().out))
    assert [number for number, _ in told] == [1, 2]
    for (_, text), times in zip(told, ("once", "2 times"), strict=True):
        assert text.count(f"\n  test set opened      {times}\n") == 1


def test_two_that_open_at_once_score_once(new_session: Sessions) -> None:
    """The second waits, and reads what the first found."""
    sessions = [new_session("a"), new_session("b")]
    scored: list[int] = []
    lock = threading.Lock()

    def slow(number: int) -> Scores:
        with lock:
            scored.append(number)
        threading.Event().wait(0.1)
        return score()

    found = in_threads(2, lambda n: sessions[n].openings.open(7, WEIGHTS, "winner", lambda: slow(n)))
    assert len(scored) == 1
    assert [opening.accuracy for opening in found] == [0.75, 0.75]


def test_the_reservation_of_a_dead_process_is_taken_over(session: Session) -> None:
    """At once, on its own host."""
    reserve(session, Process(host_identity(), 2**22 + 1, 0.0))
    assert session.openings.open(1, WEIGHTS, "winner", score).accuracy == 0.75


def test_an_old_reservation_of_another_host_is_taken_over(session: Session) -> None:
    """A scoring takes a second; after two minutes nobody is waited for."""
    reserve(session, Process("another boot/pid:[1]", 1, 0.0))
    with session.storage.write() as connection:
        connection.execute(update(openings).values(opened_at=session.storage.now - module.OPENING_SECONDS - 1.0))
    assert session.openings.open(1, WEIGHTS, "winner", score).accuracy == 0.75


@ON_SQLITE
def test_a_scoring_may_last_longer_than_is_waited_for(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is recorded all the same, if nobody else took it."""
    monkeypatch.setattr(module, "OPENING_SECONDS", 0.1)

    def slow() -> Scores:
        time.sleep(0.4)
        return score()

    assert session.openings.open(1, WEIGHTS, "winner", slow).accuracy == 0.75


@ON_SQLITE
def test_several_models_are_waited_for_longer(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reservation that is old for one model is not so for three."""
    reserve(session, Process("another boot/pid:[1]", 1, 0.0))
    with session.storage.write() as connection:
        connection.execute(update(openings).values(opened_at=session.storage.now - 2.0))
    monkeypatch.setattr(module, "OPENING_SECONDS", 1.0)
    assert not session.openings._reserve(1, WEIGHTS, "winner", "me", 3.0)
    assert session.openings.open(1, WEIGHTS, "winner", score).accuracy == 0.75


@ON_SQLITE
def test_slow_scorers_do_not_take_turns_for_ever(new_session: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that each take longer than a reservation lasts: both end, and at most one answer is recorded."""
    monkeypatch.setattr(module, "OPENING_SECONDS", 0.3)
    sessions = [new_session("a"), new_session("b")]
    scored: list[int] = []

    def slow(number: int) -> Scores:
        scored.append(number)
        time.sleep(0.5)
        return score()

    def open_it(number: int) -> float | None:
        try:
            return sessions[number].openings.open(7, WEIGHTS, "winner", lambda: slow(number)).accuracy
        except StorageError:
            return None

    assert set(in_threads(2, open_it)) <= {0.75, None}
    assert len(scored) <= 4


def test_one_that_lost_its_reservation_records_nothing(session: Session) -> None:
    """It slept, another scored: everybody has the other's opening."""

    def slept() -> Scores:
        with session.storage.write() as connection:
            connection.execute(update(openings).values(opener=json.dumps({**asdict(Process.current()), "token": "x"})))
        all_right = Scores(PROBABILITIES, PROBABILITIES.argmax(axis=1).astype(np.uint8))
        session.openings._record(WEIGHTS, reservation(session), all_right)
        return score()

    assert session.openings.open(1, WEIGHTS, "winner", slept).accuracy == 1.0


def reservation(session: Session) -> str:
    with session.storage.read() as connection:
        return str(connection.execute(select(openings.c.opener)).scalar_one())
