"""`worker`: with which status it ends, and that it builds what the workers of `run` build."""

import json
from pathlib import Path

import pytest
from shell import SMALL, Shell, make_paced

OWN = SMALL.replace("dropout_rate = [0.2]\n", "").replace("[grid]", '[model]\narchitecture = "mine:build"\n[grid]')
MODEL = """
from pathlib import Path

import keras

def build(hidden_size: int, learning_rate: float) -> keras.Model:
    if learning_rate == 0.01 and Path("broken").exists():
        raise RuntimeError("the weather is bad")
    kinds = {"relu", "elu", "gelu", "selu", "silu", "tanh", "sigmoid", "softplus"}
    layers = [keras.layers.Dense(hidden_size, kind) for kind in kinds]
    model = keras.Sequential([
        keras.Input((28, 28), dtype="uint8"), keras.layers.Flatten(), keras.layers.Rescaling(1 / 255),
        *layers, keras.layers.Dense(10, "softmax"),
    ])
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy")
    return model
"""
RESTARTED = "--restarted-on-failure"


def make_own(shell: Shell) -> None:
    """A study of two cells whose model is built in the order of a set; with the file `broken` one of them fails."""
    shell.write("mine.py", MODEL)
    made = shell("init", shell.write("small.toml", OWN))
    assert made.code == 0, made.stderr


@pytest.mark.more
def test_failed_cells_are_no_reason_to_start_again(shell: Shell) -> None:
    """A worker ends with 6 where a cell has failed; one that would be started again says so and ends with 0."""
    make_own(shell)
    shell.write("broken", "")
    first, again = shell("worker"), shell("worker", RESTARTED)
    assert [first.code, again.code] == [6, 0], first.stderr + again.stderr
    assert "1 of 2 cells are done" in again.stderr
    assert shell("status", "--json").json["cells"]["failed"] == 1


@pytest.mark.more
def test_a_stopped_worker_is_not_started_again(tmp_path: Path) -> None:
    """Of two workers that `stop` ends, the one that would be started again ends with 0, the other with 7."""
    shell = make_paced(tmp_path / "stopped", 4.0)  # one ends no cell before the other begins
    made = shell("init", "study.toml")
    assert made.code == 0, made.stderr
    with shell.start("worker", RESTARTED) as restarted, shell.start("worker") as other:
        shell.wait_for("SELECT * FROM fmnist_cells WHERE state = 'running'", 2)
        assert shell("stop").code == 0
        answers = [restarted.wait(20), other.wait(20)]
    assert [answer.code for answer in answers] == [0, 7], answers
    assert ["This worker left before all cells were done" in answer.stderr for answer in answers] == [True, True]
    assert [len(answer.errors) for answer in answers] == [0, 1]


@pytest.mark.more
def test_a_worker_past_its_memory_is_started_again(shell: Shell) -> None:
    """It leaves after a cell, and the rest of the study needs another."""
    assert shell("init", shell.write("small.toml", SMALL)).code == 0
    answer = shell("worker", RESTARTED, "--memory-limit", "1m")
    assert (answer.code, len(answer.errors)) == (7, 1), answer.stderr


@pytest.mark.more
def test_a_worker_builds_what_init_has_built(shell: Shell) -> None:
    """The order of a set of strings is the same in both, though no variable says so; the study has it recorded."""
    shell = shell.with_variables(PYTHONHASHSEED="")
    make_own(shell)
    answer = shell("worker")
    assert answer.code == 0, answer.stderr
    ((environment,),) = shell.query("SELECT environment FROM fmnist_codes")
    assert json.loads(environment)["PYTHONHASHSEED"] == "0"
