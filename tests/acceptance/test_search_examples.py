"""The searches in studies/examples: what their headers say, and that they run, here on drawn garments."""

from pathlib import Path

import pytest
from shell import Shell

EXAMPLES = sorted((Path(__file__).parents[2] / "studies" / "examples").glob("*_dense.toml"))
HEADER = ("# Command:", "# Measured:", "# Time:", "# Machine:", "# Date:")


@pytest.mark.slow
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_finds_a_net_and_can_be_proved(file: Path, shell: Shell) -> None:
    """Every trial has one result, the best one is far better than chance, and every point is derived anew."""
    answer = shell("run", file, "--workers", "2", "--data", "synthetic", "--json")
    assert answer.code == 0, answer.stderr
    assert answer.json["val_accuracy"] > 0.7
    name = answer.json["study"]
    proof = shell("verify", name, "--json").json
    assert (proof["ok"], proof["cells"], proof["results"], proof["unchecked_points"]) == (True, 30, 30, 0)
    assert len(answer.json["params"]) >= 11


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_says_what_was_measured(file: Path) -> None:
    """Command, result, time, machine and date, in this order."""
    lines = [line for line in file.read_text().splitlines() if line.startswith(HEADER)]
    assert [line.partition(":")[0] + ":" for line in lines] == list(HEADER)
    assert str(Path("studies", "examples", file.name)) in lines[0]
