"""What `stop` and `retry` say, of studies that nobody trains."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from small_study import ON_SQLITE, begin_trial, claim_cell, finish_cell, finish_trial

from fmnist_optuna.cli import managing
from fmnist_optuna.cli.options import Common
from fmnist_optuna.origins import PACKAGE
from fmnist_optuna.pages.notes import describe_study
from fmnist_optuna.results.winner import find_winner
from fmnist_optuna.study.session import Session


@ON_SQLITE
@pytest.mark.parametrize(
    ("act", "next_command"),
    [
        (managing.stop, "fmnist-optuna status {name}"),
        (managing.retry, "fmnist-optuna run, with the study's file if it has one, or fmnist-optuna worker {name}"),
    ],
)
def test_the_next_command_is_about_this_study(
    act: Callable[..., None], next_command: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the storage has several, and where `run` without a file would begin the default study."""
    said: list[str] = []
    monkeypatch.setattr(managing, "open_session", lambda common, study: session)
    monkeypatch.setattr(managing, "say", said.append)
    act(common=Common(None, 1.0, "text", 20))
    (line,) = said
    assert line.endswith(f": 0. Next: {next_command.format(name=session.record.name)}")


def test_run_is_named_with_the_file() -> None:
    """Where a study is there, `run` alone would begin the default one; where there is none, it is the way to begin."""
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.jinja")]
    told = [tail for file in files for tail in re.findall(r"fmnist-optuna run\b(?:`|</code>)?(.*)", file.read_text())]
    fitting = re.compile(r",? with the study's file|.* makes one\.| \S+\.toml| \{file\}| --workers 4")
    assert len(told) > 5
    assert [tail for tail in told if not fitting.match(tail)] == []


@ON_SQLITE
def test_a_confirmation_names_its_own_command(session: Session) -> None:
    """In its note; that of the study beside it says which file is meant."""
    claim = claim_cell(session)
    trial_id = begin_trial(session, claim)
    finish_trial(session, trial_id, 0.5)
    finish_cell(session, claim, trial_id)
    winner, counts = find_winner(session), session.history.counts()
    for name, command in {"small": "run", "small/confirm": "confirm small"}.items():
        record = replace(session.record, name=name)
        note = describe_study(record, counts, None, winner)
        file = ", with the study's file if it has one" if command == "run" else ""
        assert f"began it again: `fmnist-optuna {command}`{file}.\n" in note
