"""What `stop` and `retry` say, of studies that nobody trains."""

from collections.abc import Callable

import pytest
from small_study import ON_SQLITE

from fmnist_optuna.cli import managing
from fmnist_optuna.cli.options import Common
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
