"""The confirmed seeds trained on all data: how long, on what, and what is read of them."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from confirmed_study import grow
from small_study import (
    FINGERPRINT,
    ON_SQLITE,
    POSTGRES_MORE,
    begin_trial,
    claim_cell,
    epoch_of,
    finish_cell,
    finish_everything,
    finish_trial,
    make_spec,
    prune_trial,
)
from sqlalchemy import update

from fmnist_optuna.cli.answers import winner_answer
from fmnist_optuna.cli.winner_tables import print_what_follows
from fmnist_optuna.data.fashion_mnist import FASHION_MNIST
from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import JoinRefusedError, MismatchError, NotFoundError, UsageError
from fmnist_optuna.export.source import choose_source
from fmnist_optuna.ledger.codes import describe_refusal
from fmnist_optuna.ledger.openings import Scores
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.tables import cells
from fmnist_optuna.pages.figures.heat_map import draw_heat_map
from fmnist_optuna.pages.notes import describe_study
from fmnist_optuna.pages.overview import read_overview
from fmnist_optuna.pages.report import render_report
from fmnist_optuna.results.all_data import find_all_data, open_all_data
from fmnist_optuna.results.confirmation import Confirmation, find_confirmation
from fmnist_optuna.results.evaluation import hash_together
from fmnist_optuna.results.winner import find_winner
from fmnist_optuna.running.all_data import count_epochs
from fmnist_optuna.running.following import following_spec, seeds_missing
from fmnist_optuna.running.options import RunOptions
from fmnist_optuna.search.cell import TRAINING_SEED, Grid
from fmnist_optuna.study.deletion import delete_study
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.study.studies import list_studies
from fmnist_optuna.study.verification import verify

if TYPE_CHECKING:
    from fmnist_optuna.training.resident_data import ResidentData

pytestmark = pytest.mark.more

POINT = {"hidden_size": 128, "dropout_rate": 0.5}  # the best of the small study
BEST_EPOCHS = (3, 8, 4, 5)  # of its seeds, as people count them
LAST: dict[str, Any] = {"max_epochs": 5, "keep_weights": "last"}


def follow(session: Session, suffix: str, n_seeds: int, training: dict[str, object] | None = None) -> Session:
    """Create or join a study that follows."""
    points = [{**POINT, TRAINING_SEED: seed} for seed in range(1, n_seeds + 1)]
    spec = following_spec(session.record.spec, session.record.name + suffix, points, training)
    record, _ = create_or_join(session.storage, spec, FINGERPRINT, points, parent=session.record)
    return Session(session.storage, record, "following")


def finish(following: Session, failing: int = 0, n_epochs: int = LAST["max_epochs"]) -> None:
    """Give each seed a result with weights of its own, after some epochs; one may diverge."""
    while following.history.counts().waiting:
        claim = claim_cell(following)
        trial_id, seed = begin_trial(following, claim), int(claim.params[TRAINING_SEED])
        noted = {"n_parameters": 1000, "best_epoch": BEST_EPOCHS[seed - 1], "seed": seed}
        for name, value in {**noted, "weights_sha256": f"{following.record.kind} {seed}"}.items():
            following.optuna_storage.set_trial_user_attr(trial_id, name, value)
        for epoch in range(n_epochs):
            following.ledger.record_epoch(claim, trial_id, epoch_of(epoch, 0.9))
        if seed == failing:
            prune_trial(following, trial_id, 0.1)
        else:
            finish_trial(following, trial_id, 0.9 + seed / 1000)
        finish_cell(following, claim, trial_id)


def confirm(session: Session, n_seeds: int = 3) -> Confirmation:
    """A finished study, confirmed."""
    finish_everything(session)
    finish(follow(session, "/confirm", n_seeds))
    confirmation = find_confirmation(session)
    assert confirmation is not None
    return confirmation


def open_all(session: Session, hashes: dict[str, float], purpose: str) -> None:
    """Openings of the test set with as many hits of 1,000 as an accuracy says."""
    for weights, accuracy in hashes.items():
        labels = np.zeros(1000, np.uint8)
        answers = np.eye(10, dtype=np.float32)[(np.arange(1000) >= 1000 * accuracy).astype(int)]
        session.openings.open(1, weights, purpose, lambda answers=answers, labels=labels: Scores(answers, labels))  # type: ignore[misc]


@ON_SQLITE
@pytest.mark.parametrize(
    ("schedule", "n_seeds", "n_epochs"), [("constant", 3, 4), ("constant", 4, 5), ("cosine", 3, 30)]
)
def test_epochs_follow_from_the_confirmation(session: Session, schedule: str, n_seeds: int, n_epochs: int) -> None:
    """A schedule is trained to its end; with a constant rate it is the median of the best epochs, the larger of two."""
    runs = confirm(session, n_seeds).chosen.runs
    spec = make_spec(training={"schedule": schedule})
    assert count_epochs(spec, FASHION_MNIST, runs) == n_epochs


@ON_SQLITE
def test_a_schedule_of_the_grid_counts(session: Session) -> None:
    """The chosen cell has its own."""
    scheduled = tuple(
        replace(run, params={**run.params, "schedule": "one-cycle"}) for run in confirm(session).chosen.runs
    )
    assert count_epochs(make_spec(training={"max_epochs": 7}), FASHION_MNIST, scheduled) == 7


@POSTGRES_MORE
def test_all_seeds_are_read_with_their_openings(session: Session) -> None:
    """Once each confirmed seed has its own; until then there is nothing, and a seed that diverged leaves it so."""
    confirmation = confirm(session)
    assert find_all_data(session, confirmation) is None
    following = follow(session, "/all-data", 3, LAST)
    assert following.record.is_on_all_data
    assert find_all_data(session, confirmation) is None
    finish(following)
    found = find_all_data(session, confirmation)
    assert found is not None
    assert (found.study, found.n_epochs, found.test) == ("small/all-data", 5, None)
    assert [run.params[TRAINING_SEED] for run in found.runs] == [1, 2, 3]
    open_all(following, {f"all-data {seed}": 0.9 + seed / 1000 for seed in (1, 2, 3)}, "all-data")
    tested = find_winner(session).all_data
    assert tested is not None
    assert tested.test is not None
    assert tested.test.values == (0.901, 0.902, 0.903)
    assert tested.figures()["test_mean"] == pytest.approx(0.902)
    assert verify(following.storage, following.optuna_storage, following.record.study_id).ok


@ON_SQLITE
def test_a_seed_that_diverged_leaves_no_mean(session: Session) -> None:
    """A mean over those that did not would flatter."""
    confirmation = confirm(session)
    finish(follow(session, "/all-data", 3, LAST), failing=2)
    assert find_all_data(session, confirmation) is None


@ON_SQLITE
def test_seeds_that_were_confirmed_later_are_missed(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """What two seeds had is no mean of three: in its place stands how many there are, and the command that goes on."""
    confirm(session, n_seeds=2)
    finish(follow(session, "/all-data", 2, LAST))
    assert find_winner(session).n_on_all_data == 2
    again = r"`fmnist-optuna confirm small --seeds 3 --all-data` confirms more\.$"
    with pytest.raises(UsageError, match=again):
        choose_source(session, None, True, 3)
    finish(follow(session, "/confirm", 3))
    winner = find_winner(session)
    assert (winner.all_data, winner.n_on_all_data) == (None, 2)
    assert winner_answer(session.record, winner)["seeds_on_all_data"] == 2
    print_what_follows(session.record, winner)
    told = "2 of 3 seeds trained; `fmnist-optuna confirm small --all-data` goes on"
    assert told in " ".join(capsys.readouterr().out.split())
    page = render_report(read_overview(session), None)
    assert "2 of 3 seeds trained; <code>fmnist-optuna confirm small --all-data</code> goes on" in page


@ON_SQLITE
def test_what_is_not_opened_names_its_command(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """With the name of the study, as a storage may have several."""
    confirm(session)
    finish(follow(session, "/all-data", 3, LAST))
    print_what_follows(session.record, find_winner(session))
    assert "not opened yet: `fmnist-optuna confirm small --all-data` does" in capsys.readouterr().out


@ON_SQLITE
def test_refusals_name_the_command_that_goes_on(session: Session) -> None:
    """Other code is wanted with --all-data again."""
    refused = describe_refusal("small/confirm", ["model.units: 8, here 9"], "small/all-data")
    assert "the cells to confirm were trained with other code" in refused
    assert "fmnist-optuna confirm small --all-data --accept-code" in refused
    joined = {name: describe_refusal(name, []) for name in ("small", "small/confirm", "small/all-data")}
    assert ["--name NEW" in text for text in joined.values()] == [True, False, False]
    assert "fmnist-optuna run STUDY.toml --accept-code" in joined["small"]
    assert "fmnist-optuna confirm small --accept-code" in joined["small/confirm"]
    assert "fmnist-optuna confirm small --all-data --accept-code" in joined["small/all-data"]


@ON_SQLITE
@pytest.mark.parametrize(
    ("ending", "advice"),
    [
        ("failed", "`fmnist-optuna retry small/all-data` lets the failed ones wait again, once the cause is mended"),
        ("diverged", "`fmnist-optuna trials small/all-data` shows which diverged"),
    ],
)
def test_a_seed_without_a_result_is_told(session: Session, ending: str, advice: str) -> None:
    """With what helps: one that failed may be tried again, one that diverged would do so again."""
    confirm(session)
    following = follow(session, "/all-data", 3, LAST)
    finish(following, failing=2)
    if ending == "failed":
        diverged = (cells.c.study_id == following.record.study_id) & (cells.c.result == State.PRUNED.optuna_name)
        with session.storage.write() as connection:
            connection.execute(update(cells).where(diverged).values(state=State.FAILED, result=None))
    assert str(find_winner(session).unsettled) == f"2 of 3 seeds trained; {advice}"
    options = RunOptions(session.storage.options)
    assert str(seeds_missing(session, options, following, "a rule")).endswith(f"; {advice}.")


@ON_SQLITE
def test_a_seed_that_ended_early_opens_nothing(session: Session) -> None:
    """What ended it has seen the images: it is neither shown nor exported, and the text says how to train it anew."""
    confirmation = confirm(session)
    following = follow(session, "/all-data", 3, LAST)
    finish(following, n_epochs=4)
    rule = r"study small/all-data: every seed must be trained for 5 epochs, but trial 0 was for 4; .* confirm small --"
    for refused in (
        lambda: open_all_data(session, confirmation, None),
        lambda: choose_source(session, None, True, None),
    ):
        with pytest.raises(MismatchError, match=rule):
            refused()
    assert following.openings.recorded("all-data") == []


@ON_SQLITE
def test_ensembles_are_shown_once_they_are_scored(session: Session) -> None:
    """Of the first seeds, in their order; those on all data come last."""
    runs = confirm(session).chosen.runs
    confirming, following = follow(session, "/confirm", 3), follow(session, "/all-data", 3, LAST)
    finish(following)
    assert find_winner(session).ensembles == ()
    all_data = find_all_data(session, find_confirmation(session))
    assert all_data is not None
    open_all(following, {hash_together(all_data.runs[:2]): 0.95}, "ensemble")
    open_all(confirming, {hash_together(runs): 0.94, hash_together(runs[:2]): 0.93}, "ensemble")
    open_all(confirming, {hash_together(runs[::-1]): 0.1}, "ensemble")  # another order is another ensemble
    found = find_winner(session).ensembles
    assert [(each.n_members, each.is_on_all_data, each.evaluation.accuracy) for each in found] == [
        (2, False, 0.93), (3, False, 0.94), (2, True, 0.95),
    ]  # fmt: skip
    purposes = [opening.purpose for opening in read_overview(session).openings]
    assert purposes == ["ensemble"] * 4


@ON_SQLITE
def test_what_was_seen_names_no_winner(session: Session) -> None:
    """Neither a trial of its own, nor one of the search; its note says so."""
    confirm(session)
    following = follow(session, "/all-data", 3, LAST)
    finish(following)
    with pytest.raises(
        UsageError, match="study small/all-data: has no winner, as its validation images are trained on"
    ):
        find_winner(following)
    overview = read_overview(following)
    assert overview.winner is None
    colorbars = [trace.colorbar.title.text for trace in draw_heat_map(overview)[0].data]
    assert "seen acc, %" in colorbars
    assert "val acc" not in render_report(overview, None).partition("<script>")[0]
    note = describe_study(following.record, overview.counts, None, None)
    assert "The validation images are trained on here" in note
    assert "give the command that began it again: `fmnist-optuna confirm small --all-data`." in note


@ON_SQLITE
def test_another_number_of_epochs_is_refused(session: Session) -> None:
    """A study on all data has one; the command that makes room for another is named."""
    confirm(session)
    follow(session, "/all-data", 3, LAST)
    with pytest.raises(JoinRefusedError, match=r"training\.max_epochs: the study has 5, this run 6") as caught:
        follow(session, "/all-data", 3, {**LAST, "max_epochs": 6})
    assert str(caught.value).endswith(
        "Keep its report, as its openings of the test set go with it, then remove it: "
        "fmnist-optuna delete small/all-data"
    )


@ON_SQLITE
def test_a_grid_that_grew_comes_before_all_data(session: Session) -> None:
    """Which is refused until the new cells are done."""
    confirm(session)
    follow(session, "/all-data", 3, LAST)
    unsettled = find_winner(grow(session)).unsettled
    assert str(unsettled) == (
        "0 of 3 seeds trained; `fmnist-optuna run`, with the study's file if it has one, goes on with the cells of the "
        "study that are not done, then `fmnist-optuna confirm small --all-data` with these"
    )


@ON_SQLITE
def test_all_that_follows_is_deleted_with_its_study(session: Session) -> None:
    """Confirmation and training on all data."""
    confirm(session)
    follow(session, "/all-data", 3, LAST)
    assert len(list_studies(session.storage)) == 3
    delete_study(session.storage, session.record)
    assert list_studies(session.storage) == []


@ON_SQLITE
def test_exports_take_the_first_seeds(session: Session) -> None:
    """Whatever the test set says of them; what is missing is named with the command that makes it."""
    finish_everything(session)
    with pytest.raises(NotFoundError, match=r"must be confirmed first, but is not: fmnist-optuna confirm small$"):
        choose_source(session, None, False, 2)
    confirm(session)
    with pytest.raises(NotFoundError, match=r"all data first, but is not: fmnist-optuna confirm small --all-data$"):
        choose_source(session, None, True, None)
    following = follow(session, "/all-data", 3, LAST)
    finish(following)
    single, together = choose_source(session, None, True, None), choose_source(session, None, False, 2)
    assert [run.params[TRAINING_SEED] for run in (*single.attempts, *together.attempts)] == [1, 1, 2]
    assert (single.session.record.name, together.session.record.name) == ("small/all-data", "small/confirm")
    assert (single.purpose, together.purpose, single.params) == ("export", "ensemble", POINT)
    with pytest.raises(UsageError, match=r"ensemble \(--ensemble\) must be 2 to 3, as so many seeds were confirmed"):
        choose_source(session, None, False, 4)
    with pytest.raises(UsageError, match="small/all-data is a training on all data"):
        choose_source(following, None, False, None)


@ON_SQLITE
def test_its_checkpoints_are_those_of_no_confirmation(session: Session, few_garments: "ResidentData") -> None:
    """Cells, seeds and the rest of the training may be the same, but the images are more."""
    from fmnist_optuna.work.objective import KerasObjective

    studies = [follow(session, suffix, 2, LAST) for suffix in ("/confirm", "/all-data")]
    assert studies[0].record.spec.trained_part() == studies[1].record.spec.trained_part()
    first, second = (KerasObjective(study, few_garments) for study in studies)
    assert first._fingerprint != second._fingerprint


def test_it_is_a_plain_training_on_the_joined_images(garments: Splits, one_thread: None, tmp_path: Path) -> None:
    """A worker gives the very weights that all epochs on all images end with, though the patience was one epoch."""
    from trained_studies import all_trials, open_study, run_worker
    from trained_studies import make_spec as make_garments

    from fmnist_optuna.training.cell_training import build_cell
    from fmnist_optuna.training.loop import Training
    from fmnist_optuna.training.resident_data import ResidentData
    from fmnist_optuna.training.user_code import UserCode
    from fmnist_optuna.training.weights import hash_weights
    from fmnist_optuna.work.order import WorkerOrder
    from fmnist_optuna.work.splits import find_place
    from fmnist_optuna.work.worker import load_resident

    grid: Grid = {"hidden_size": [16], "dropout_rate": [0.2], "learning_rate": [0.03]}
    session = open_study(tmp_path, make_garments(grid, {"patience": 1}), garments.fingerprint)
    point = {"hidden_size": 16, "dropout_rate": 0.2, "learning_rate": 0.03, TRAINING_SEED: 1}
    training = {"max_epochs": 3, "keep_weights": "last"}
    spec = following_spec(session.record.spec, "garments/all-data", [point], training)
    record, _ = create_or_join(session.storage, spec, garments.fingerprint, [point], parent=session.record)
    following = Session(session.storage, record, "worker-1")
    following.presence.register("worker-1", fresh_seconds=60.0)
    order = WorkerOrder(session.storage.options, record.name, "worker-1", record.generation, None)
    run_worker(following, load_resident(order, record))
    (trial,) = all_trials(following)

    images = np.concatenate([garments.train_images, garments.validation_images])
    labels = np.concatenate([garments.train_labels, garments.validation_labels])
    data = ResidentData.from_arrays(FASHION_MNIST, images, labels, garments.test_images, garments.test_labels)
    code, seed = UserCode(session.record.spec, FASHION_MNIST), trial.user_attrs["seed"]
    model = build_cell(code, point, seed)
    code.set_seeds(seed)
    plain = Training(model, data, batch_size=32, max_epochs=3, patience=3, seed=seed)
    plain.run()
    assert hash_weights(model) == trial.user_attrs["weights_sha256"]
    assert [epoch.train_loss for epoch in plain.epochs] == [
        epoch.train_loss for epoch in following.history.curve(trial._trial_id)
    ]
    assert trial.user_attrs["best_epoch"] == 3
    assert len(find_place(record, None).load().train_labels) == 12_000
