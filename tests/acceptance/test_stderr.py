"""What commands say beside their answers: nothing with -q, JSON lines with --log-format json."""

import json
from functools import partial

import pytest
from shell import FinishedStudy, Shell, two_at_a_time

CHATTY = {  # each has something to say on a finished study, and answers all the same
    "run": ("run", "smoke.toml"),
    "worker": ("worker", "smoke"),
    "report": ("report", "--out", "page.html"),
    "stop": ("stop",),
    "retry": ("retry",),
    "example": ("spec", "example"),
}


@pytest.mark.more
def test_quiet_commands_say_nothing_but_errors(smoke_copy: Shell) -> None:
    """No progress, no hint, no record: `worker` keeps to it as all do; an error is one line."""
    answers = two_at_a_time({name: partial(smoke_copy, *typed, "-q") for name, typed in CHATTY.items()})
    assert {name: (answer.code, answer.stderr) for name, answer in answers.items()} == dict.fromkeys(CHATTY, (0, ""))
    assert answers["run"].stdout.startswith("Winner of smoke")
    refused = smoke_copy("status", "none", "-q")
    assert (refused.code, refused.stderr.splitlines()) == (3, refused.errors)


@pytest.mark.parametrize("typed", [("spec", "example"), ("status", "none"), ("status", "none", "--debug")])
def test_stderr_is_json_lines_where_asked(smoke: FinishedStudy, typed: tuple[str, ...]) -> None:
    """Hints and errors too; a traceback is a field of its line."""
    lines = [json.loads(line) for line in smoke.shell(*typed, "--log-format", "json").stderr.splitlines()]
    (line,) = lines
    assert line["event"] == "message"
    assert (line["level"], line["message"].split()[0]) in (("info", "Next:"), ("error", "Error:"))
    assert ("exception" in line) == ("--debug" in typed)
