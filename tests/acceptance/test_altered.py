"""What somebody altered after the training is neither reproduced nor exported, and the answer says so."""

import io
import sqlite3

import numpy as np
import pytest
from shell import Shell

pytestmark = pytest.mark.more


def change(shell: Shell, statement: str, *values: object) -> None:
    connection = sqlite3.connect(shell.database)
    with connection:
        assert connection.execute(statement, values).rowcount > 0
    connection.close()


def test_a_curve_that_was_altered_is_not_reproduced(smoke_copy: Shell) -> None:
    """The first epoch that differs is named, with exit 6."""
    change(smoke_copy, "UPDATE fmnist_epochs SET val_loss = val_loss + 1e-9 WHERE epoch = 1")
    answer = smoke_copy("reproduce", "0")
    assert answer.code == 6
    assert "NOT the same" in answer.stdout
    assert "differ from epoch 2 on" in answer.stdout


def test_another_environment_is_named_when_the_curve_differs(smoke_copy: Shell) -> None:
    """With another version of TensorFlow on record the exit is 1, and the versions are named."""
    change(smoke_copy, "UPDATE fmnist_epochs SET val_loss = val_loss + 1e-9")
    key = "UPDATE trial_user_attributes SET value_json = json_set(value_json, '$.tensorflow', ?) WHERE key = ?"
    change(smoke_copy, key, "2.0.0", "environment")
    answer = smoke_copy("reproduce", "0", "--json")
    assert answer.code == 1
    (difference,) = answer.json["environment_differences"]
    assert difference.startswith("tensorflow: then 2.0.0, now ")


def test_weights_with_another_byte_are_not_exported(smoke_copy: Shell) -> None:
    """Their hash is named, and nothing is left."""
    for file in (smoke_copy.folder / "studies" / "artifacts").iterdir():
        content = bytearray(file.read_bytes())
        content[-1000] ^= 255
        file.write_bytes(content)
    answer = smoke_copy("export")
    assert (answer.code, len(answer.errors)) == (6, 1), answer.stderr
    assert "must have SHA-256" in answer.stderr or "must be readable" in answer.stderr
    assert not (smoke_copy.folder / "models").exists()


def test_a_model_with_other_answers_is_not_exported(smoke_copy: Shell) -> None:
    """The gate compares with what was recorded; what was recorded is altered here."""
    ((packed,),) = smoke_copy.query("SELECT predictions FROM fmnist_predictions")
    arrays = dict(np.load(io.BytesIO(packed)))
    arrays["probabilities"][7] = arrays["probabilities"][7][::-1]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    change(smoke_copy, "UPDATE fmnist_predictions SET predictions = ?", buffer.getvalue())
    answer = smoke_copy("export")
    assert (answer.code, len(answer.errors)) == (6, 1), answer.stderr
    assert "1 of 2,000 images get another class" in answer.stderr
    assert not (smoke_copy.folder / "models").exists()
