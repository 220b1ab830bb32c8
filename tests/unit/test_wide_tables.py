"""Studies of twenty parameters at 80 characters: what has a column, what is folded away, and what `--wide` shows."""

from collections.abc import Sequence

import pytest

from fmnist_optuna.cli.console import header_lines, out, print_params
from fmnist_optuna.cli.parameter_columns import (
    Column,
    ParameterOrder,
    choose_columns,
    make_trials_table,
    print_trials_table,
)
from fmnist_optuna.cli.study_tables import running_table
from fmnist_optuna.cli.trial_tables import print_trials
from fmnist_optuna.cli.winner_tables import print_candidates
from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.ledger.records import Attempt, Cell, TrialAttributes
from fmnist_optuna.ledger.states import State
from fmnist_optuna.results.confirmation import Candidate, Confirmation
from fmnist_optuna.results.seeds import Sample
from fmnist_optuna.search.cell import Params
from fmnist_optuna.search.metric import VAL_ACCURACY, Epoch
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.records import StudyRecord
from fmnist_optuna.wording import format_params, format_some_params, format_value

NAMES = [f"parameter_number_{n}" for n in range(20)]
N_ROWS = 30
SAME = NAMES[3:6]  # every row has them alike
MOST_IMPORTANT = [NAMES[17], NAMES[8]]
INFO = DatasetInfo("made up", (4,), "float32", (0.0, 1.0), ("a", "b"))


def point(row: int) -> Params:
    """A row's parameters; the last one is there in every other row only."""
    values = {name: 0.000123456 * (1 + row + 31 * place) for place, name in enumerate(NAMES)}
    values |= dict.fromkeys(SAME, 0.5)
    return values if row % 2 else {name: value for name, value in values.items() if name != NAMES[19]}


ROWS = [point(row) for row in range(N_ROWS)]
SPACE = {name: {"low": 0.0, "high": 1.0} for name in NAMES}


@pytest.fixture(autouse=True)
def at_80_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "_width", 80)


@pytest.fixture
def record() -> StudyRecord:
    content = {"name": "wide", "search": {"sampler": "random", "n_trials": N_ROWS}, "space": SPACE}
    spec = StudySpec.model_validate(content)
    return StudyRecord(1, "wide", spec, (spec,), "synthetic", "0" * 64, INFO, 0, 0.0)


def attempts(error: str | None = None) -> list[Attempt]:
    """One for each row, the best first; the last one failed if there is an error."""
    made = [Attempt(n, n, f"cell{n}", row, State.COMPLETE, 0.9 - n / 100, n_epochs=9) for n, row in enumerate(ROWS)]
    failed = Attempt(99, 99, "cell99", ROWS[0], State.FAILED, None, TrialAttributes(error=error))
    return [*made, failed] if error else made


def importances() -> dict[str, float]:
    """The study's last parameter but two sets the best cells apart, and one in the middle."""
    return {MOST_IMPORTANT[0]: 0.7, MOST_IMPORTANT[1]: 0.2}


def shown_values(line: str) -> set[str]:
    return set(line.split())


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("error", [None, "ValueError: units must be a number of neurons, and here it was none " * 4])
def test_twenty_parameters_fit_80_characters(
    error: str | None, record: StudyRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every line, with every number whole, the best row first; a long error is wrapped in place of numbers."""
    print_trials(attempts(error), record, ParameterOrder(NAMES, importances))
    lines = printed(capsys)
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if "COMPLETE" in line]
    assert [line.split()[0] for line in rows] == [str(number) for number in range(N_ROWS)]
    for number, line in enumerate(rows):
        score, *important = f"{90 - number:.2f}", *(format_value(ROWS[number][name]) for name in MOST_IMPORTANT)
        assert {score, *important} <= shown_values(line)
    text = " ".join(" ".join(lines).split())
    assert "The same in every row: " + format_params(dict.fromkeys(SAME, 0.5)) in text
    named = text.partition(" more parameters: ")[2].partition("; `--wide` shows all")[0].split(", ")
    assert f" {len(named)} more parameters: " in text
    assert {*named} <= {*NAMES} - {*SAME, *MOST_IMPORTANT}


def test_headers_keep_their_words(record: StudyRecord, capsys: pytest.CaptureFixture[str]) -> None:
    """They stand in as many lines as they have words, none of which is cut."""
    print_trials(attempts(), record, ParameterOrder(NAMES, importances))
    lines = printed(capsys)
    (last,) = [line for line in lines if line.startswith("trial")]
    above = lines[lines.index(last) - 2 : lines.index(last)]
    n_shown = above[0].count("parameter")
    assert n_shown >= 2
    assert above[0].split() == ["parameter"] * n_shown
    assert above[1].split() == ["number"] * n_shown
    assert {"8", "17"} <= {*last.split()}


def test_a_single_letter_has_no_line_of_its_own() -> None:
    """It stands beside the next word of a header, if there is one."""
    assert header_lines("n_hidden_layers") == ["n hidden", "layers"]
    assert header_lines("hidden_size") == ["hidden", "size"]
    assert header_lines("a") == ["a"]
    assert header_lines("") == [""]


def test_wide_shows_every_parameter(record: StudyRecord, capsys: pytest.CaptureFixture[str]) -> None:
    """A row is a line, however long, with the value of each parameter; nothing is said of folding."""
    error = "ValueError: it must be a number " * 5
    print_trials(attempts(error), record, ParameterOrder(NAMES, importances, is_wide=True))
    lines = printed(capsys)
    assert len(lines) == 3 + N_ROWS + 1
    for row, line in zip(ROWS, lines[3:], strict=False):
        assert {format_value(value) for value in row.values()} <= shown_values(line)
    assert error.strip() in lines[-1]


@pytest.mark.parametrize("is_wide", [False, True])
def test_a_confirmation_of_twenty_parameters_fits(
    is_wide: bool, record: StudyRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its numbers are whole and its chosen cell has the star; `--wide` has all parameters here too."""
    candidates = tuple(Candidate(each, Sample((0.91, 0.92), VAL_ACCURACY), 123_456, 0, ()) for each in attempts()[:3])
    order = ParameterOrder(NAMES, importances, is_wide)
    print_candidates(Confirmation(candidates, candidates[1]), record, order)
    lines = printed(capsys)
    rows = lines[-3:]
    assert [line.split()[0] for line in rows] == ["0", "1", "2"]
    assert [line.rstrip().endswith("*") for line in rows] == [False, True, False]
    assert is_wide == (max(map(len, lines)) > 80)
    for line, row in zip(rows, ROWS, strict=False):
        expected = [row[name] for name in (row if is_wide else MOST_IMPORTANT[:1])]
        assert {"123,456", "91.50", "0.71", *map(format_value, expected)} <= shown_values(line)


def test_running_cells_of_twenty_parameters_fit(record: StudyRecord, capsys: pytest.CaptureFixture[str]) -> None:
    """The first parameters of the study file have a column each; how many there are beyond is said."""
    cells = [Cell(f"c{n}", row, State.RUNNING, worker=f"host-{n}", trial_id=n) for n, row in enumerate(ROWS[:2])]
    curves = {n: [Epoch(epoch, 1.0, 0.5, 1.0, 0.5 + epoch / 100, 0.1) for epoch in range(30)] for n in range(2)}
    out.print(running_table(curves, cells, record))
    lines = printed(capsys)
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if "79.00 %" in line]
    assert [line.split()[0] for line in rows] == ["0", "1"]
    for line, row in zip(rows, ROWS, strict=False):
        assert {format_value(row[NAMES[0]]), "30"} <= shown_values(line)
    assert " more parameters of each cell not shown" in lines[-1]


def test_running_cells_of_few_parameters_are_short(record: StudyRecord, capsys: pytest.CaptureFixture[str]) -> None:
    """Their values stand in one column, as before."""
    cells = [Cell("c", {"size": 64, "rate": 0.2}, State.RUNNING, worker="host-1", trial_id=1)]
    out.print(running_table({}, cells, record))
    assert [line.split() for line in printed(capsys)] == [
        ["worker", "cell", "epoch", "val", "acc", "curve"], ["1", "64", "0.2", "0", "-"],
    ]  # fmt: skip


def test_few_parameters_all_have_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    """Where they fit, nothing is folded, not even what is the same everywhere, and nobody asks for importances."""

    def refuse() -> dict[str, float]:
        raise AssertionError("importances take time")

    rows: Sequence[Params] = [{"size": 64, "rate": 0.1}, {"size": 64, "rate": 0.2}]
    order = ParameterOrder(["size", "rate"], refuse)
    table, choice = make_trials_table([Column("trial", ["0", "1"])], rows, [Column("epochs", ["3", "4"])], order)
    print_trials_table(table, choice, order)
    assert [line.split() for line in printed(capsys)] == [
        ["trial", "size", "rate", "epochs"], ["0", "64", "0.1", "3"], ["1", "64", "0.2", "4"],
    ]  # fmt: skip


def test_folding_the_same_values_may_be_enough() -> None:
    """Then all others keep their columns, and importances are not asked for."""
    rows = [{"a": "x" * 40, "b": 1, "c": 2}, {"a": "x" * 40, "b": 2, "c": 3}]
    choice = choose_columns(rows, ParameterOrder(["a", "b", "c"]), room=10, gap=2)
    assert (choice.names, choice.same, choice.left_out) == (["b", "c"], {"a": "x" * 40}, ())


def test_without_importances_the_last_parameters_go() -> None:
    """In the order of the study file, whatever the order in the rows."""
    rows = [{"c": 1000, "b": 1000, "a": 1000}, {"c": 2000, "b": 2000, "a": 2000}]
    choice = choose_columns(rows, ParameterOrder(["a", "b", "c"]), room=12, gap=2)
    assert (choice.names, choice.left_out) == (["b", "a"], ["c"])


def test_no_parameter_has_a_column_before_a_more_important_one() -> None:
    """One that would fit beside it waits, though there is room for it."""
    rows = [{"a": 1, "b": 10**8, "c": 1}, {"a": 2, "b": 10**9, "c": 2}]
    choice = choose_columns(rows, ParameterOrder(["a", "b", "c"]), room=14, gap=2)
    assert (choice.names, choice.left_out) == (["a"], ["b", "c"])


def test_a_value_wider_than_the_room_leaves_it_to_others() -> None:
    """The most important parameter has no column if it fits nowhere; the next ones have."""
    rows = [{"a": "x" * 40, "b": 1}, {"a": "y" * 40, "b": 2}]
    choice = choose_columns(rows, ParameterOrder(["a", "b"], lambda: {"a": 1.0}), room=10, gap=2)
    assert (choice.names, choice.left_out) == (["b"], ["a"])


def test_a_name_stands_beside_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters that take several lines are parted between two of them, and what follows ends the last line."""
    print_params(ROWS[1], ", seed 7")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.startswith("  parameter_number_") for line in lines)
    assert " ".join(map(str.strip, lines)) == f"{format_params(ROWS[1])}, seed 7"


def test_a_line_names_the_first_parameters() -> None:
    """As many as fit, and how many there are beyond; all of them where they fit."""
    params = {"hidden_size": 128, "dropout_rate": 0.2, "learning_rate": 0.001}
    assert format_some_params(params) == format_params(params)
    assert format_some_params(params, 40) == "hidden_size 128 and 2 more"
    assert format_some_params(params, 45) == "hidden_size 128, dropout_rate 0.2 and 1 more"
    assert format_some_params(params, 3) == "hidden_size 128 and 2 more"
    assert format_some_params({}) == ""
