"""What pages, confirmation and estimates make of a search that is no grid, cells without a point among its cells."""

from collections.abc import Callable

import pytest
from small_study import (
    FINGERPRINT,
    LADDER,
    MAX_EPOCHS,
    ON_SQLITE,
    begin_trial,
    finish_cell,
    finish_trial,
    ladder_objective,
    search_spec,
    value_of,
    work_off,
)

from fmnist_optuna.bridge.importance import find_importances
from fmnist_optuna.cli.console import out
from fmnist_optuna.cli.parameter_order import make_parameter_order
from fmnist_optuna.cli.trial_tables import print_trials
from fmnist_optuna.pages.figures.parallel_coordinates import draw_parallel_coordinates
from fmnist_optuna.pages.figures.slices import draw_slices
from fmnist_optuna.pages.notes import describe_study
from fmnist_optuna.pages.overview import read_overview
from fmnist_optuna.pages.report import render_report
from fmnist_optuna.pages.time_left import RemainingTime
from fmnist_optuna.results.confirmation import find_confirmation
from fmnist_optuna.running.following import following_spec
from fmnist_optuna.search.cell import TRAINING_SEED
from fmnist_optuna.search.known import KnownTexts
from fmnist_optuna.study.attempts import list_attempts
from fmnist_optuna.study.claiming import Claiming
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session

Sessions = Callable[..., Session]
pytestmark = [pytest.mark.more, ON_SQLITE]


def finish_some(session: Session, n_cells: int) -> None:
    """Complete the next cells."""
    claiming = Claiming(session)
    for _ in range(n_cells):
        claim = claiming.claim(session.ledger.generation() or 0)
        assert claim is not None
        trial_id = begin_trial(session, claim)
        session.optuna_storage.set_trial_user_attr(trial_id, "n_parameters", 1000)
        finish_trial(session, trial_id, value_of(claim.params))
        finish_cell(session, claim, trial_id)


@pytest.fixture
def session(new_session: Sessions) -> Session:
    """TPE with ten of twelve cells done; the other two have no point yet."""
    session = new_session("worker", search_spec("tpe", 12))
    finish_some(session, 10)
    return session


def test_a_report_shows_a_search_as_slices(session: Session) -> None:
    """One picture for each parameter with a point for each cell that has it, and no heat map."""
    overview = read_overview(session)
    page = render_report(overview, None)
    assert "<h2>The search</h2>" in page
    assert "<h2>The grid</h2>" not in page
    figure, _ = draw_slices(overview)
    assert figure is not None
    n_gelu = sum(cell.params.get("act") == "gelu" for cell in overview.cells)
    assert 0 < n_gelu < 10
    assert sorted(len(trace.x) for trace in figure.data if len(trace.x)) == sorted([10, 10, 10, 10, n_gelu])


def test_lines_of_cells_without_a_parameter_begin_below(session: Session) -> None:
    """In the parallel coordinates "none" is a value of its own."""
    figure, _ = draw_parallel_coordinates(read_overview(session))
    assert figure is not None
    (alpha,) = [dimension for dimension in figure.data[0].dimensions if dimension.label == "alpha"]
    assert alpha.ticktext[0] == "none"
    assert min(alpha["values"]) == -1


def test_importances_are_of_parameters_that_all_cells_have(session: Session) -> None:
    """What only some have is left out, and cells without a point do no harm."""
    names = find_importances(session.history.cells()).keys()
    assert names == {"hidden_size", "dropout_rate", "learning_rate", "act"}


def test_importance_says_which_parameters_have_columns(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table of trials keeps the most important one longest; one that not all cells have goes first."""
    monkeypatch.setattr(out, "_width", 55)
    order = make_parameter_order(session, is_wide=False)
    shares = find_importances(session.history.cells())
    ranked = order.sort(["alpha", *shares])
    assert ranked == [*sorted(shares, key=lambda name: -shares[name]), "alpha"]
    print_trials(list_attempts(session), session.record, order)
    named, _, table = capsys.readouterr().out.partition("`--wide` shows all")
    assert " more parameter" in named
    assert named.rstrip("; \n").endswith("alpha")
    assert ranked[0] not in named
    assert ranked[0].split("_")[0] in table


def test_the_note_describes_the_space(session: Session) -> None:
    """Ranges and choices in words, with what they depend on."""
    note = describe_study(session.record, session.history.counts(), None, None)
    assert "| hidden_size | 32 to 512, step 32 |" in note
    assert '| alpha | 1 to 64, log, with act = "gelu" |' in note


def test_time_left_counts_every_cell_of_a_search_alike(new_session: Sessions) -> None:
    """Most have a size of their own, and some none yet, so that sizes would say nothing."""
    session = new_session("worker", search_spec("tpe", 4))
    remaining = RemainingTime(session.history)
    Claiming(session).claim(session.ledger.generation() or 0)
    assert remaining.estimate(session.history.counts(), session.history.running()) is None
    finish_some(session, 2)
    assert remaining.estimate(session.history.counts(), session.history.running()) is not None


def test_a_confirmation_takes_different_points(new_session: Sessions) -> None:
    """Of cells that share a point by chance the best one stands for it, and its seeds are confirmed once."""
    space = {"hidden_size": [32, 64], "act": ["relu", "gelu"], "alpha": {"low": 1, "high": 2, "when": {"act": "gelu"}}}
    session = new_session("worker", search_spec("random", 30, space=space))
    finish_some(session, 30)
    best = session.history.leaders_of_points()[:3]
    assert len({str(sorted(cell.params.items())) for cell in best}) == 3
    points = [{**cell.params, TRAINING_SEED: seed} for seed in (1, 2) for cell in best]
    spec = following_spec(session.record.spec, "small/confirm", points)
    record, n_new = create_or_join(session.storage, spec, FINGERPRINT, points, parent=session.record)
    assert n_new == 6
    confirming = Session(session.storage, record, "confirming")
    finish_some(confirming, 6)
    assert verify_study(confirming).ok
    confirmation = find_confirmation(session)
    assert confirmation is not None
    originals = {candidate.original.cell_id for candidate in confirmation.candidates}
    assert originals == {cell.cell_id for cell in best}
    table = (
        render_report(read_overview(session), None)
        .partition("Confirmation over fresh seeds</h2>")[2]
        .partition("</table>")[0]
    )
    n_columns = {row.count("<th") + row.count("<td") for row in table.split("<tr")[1:]}
    assert len(n_columns) == 1  # a parameter that is not there has an empty cell
    fewer = following_spec(session.record.spec, "small/confirm", points[:3])
    assert create_or_join(session.storage, fewer, FINGERPRINT, points[:3], parent=session.record)[1] == 0


def test_the_ladder_and_tpe_go_together(new_session: Sessions) -> None:
    """Points rest on what cells have at the first rung, and cuts and points are both derived anew."""
    spec = search_spec("tpe", 14, pruner=LADDER, training={"max_epochs": MAX_EPOCHS})
    session = new_session("worker", spec)
    work_off(session, ladder_objective)
    assert verify_study(session).ok
    assert session.history.counts().cut > 0
    known = KnownTexts(session.points.read_fixed()).read(13)
    assert {(number, rung) for number, rung, _ in known.climbing} == {(number, 2) for number in range(13)}
    texts = [text or "" for _, text in sorted(session.points.read_fixed().items())]
    assert [number for number, text in enumerate(texts) if "base" not in text] == [0, 1]  # of which none had come there
    assert all(text.count("[") <= 2 for text in texts)  # one cell more than the time before
