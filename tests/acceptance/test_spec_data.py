"""`spec example`, `spec check`, `data fetch` and `data verify`."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from shell import SMALL, Shell

from fmnist_optuna.cli.spec import EXAMPLE
from fmnist_optuna.spec.reading import read_spec
from fmnist_optuna.spec.study_spec import StudySpec

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def test_the_example_is_a_study_file_with_the_defaults(shell: Shell) -> None:
    """`spec example > FILE` is what `run` does without a file, comments aside."""
    example = shell("spec", "example")
    assert (example.code, example.stdout) == (0, EXAMPLE)
    assert read_spec(shell.write("my.toml", example.stdout)) == StudySpec()


def test_check_accepts_the_example_with_27_cells(shell: Shell) -> None:
    """`spec check` builds the smallest cell and counts the grid; it makes no file."""
    shell.write("my.toml", EXAMPLE)
    before = shell.files()
    answer = shell("spec", "check", "my.toml", "--json")
    assert answer.code == 0, answer.stderr
    told = answer.json
    assert (told["schema"], told["ok"], told["study"], told["cells"]) == (1, True, "fashion-mnist", 27)
    assert shell.files() == before


def test_check_tells_how_many_images_are_held_out(shell: Shell) -> None:
    """A fifth of the synthetic garments, where more is asked for."""
    answer = shell("spec", "check", shell.write("small.toml", SMALL), "--json")
    assert answer.code == 0, answer.stderr
    assert answer.json["spec"]["data"] == {"source": "synthetic", "n_validation": 2_400, "split_seed": 0}


def test_check_says_what_a_pruner_costs_a_schedule(shell: Shell) -> None:
    """On stderr, beside the next command and what else is to be known; `run` has it as a warning."""
    options = '[training]\nschedule = "cosine"\nmomentum = 0.8\n'
    study = SMALL.replace("[training]\n", options).replace('"none"', '"ladder"')
    answer = shell("spec", "check", shell.write("falling.toml", study))
    assert answer.code == 0, answer.stderr
    assert any(
        line.startswith('Note: the pruner "ladder" may cut the best cell') for line in answer.stderr.splitlines()
    )
    assert 'Note: training.momentum does nothing, as no cell has optimizer = "sgd".' in answer.stderr.splitlines()


def test_check_refuses_what_run_refuses(shell: Shell) -> None:
    """A wrong value is one line with exit 2."""
    shell.write("bad.toml", SMALL.replace("[0.2]", "[1.5]"))
    answer = shell("spec", "check", "bad.toml")
    assert (answer.code, answer.stdout, answer.errors) == (2, "", answer.stderr.splitlines())
    assert "bad.toml: grid.dropout_rate must be at least 0 and less than 1, but got 1.5" in answer.errors[0]


def test_verify_without_data_exits_4_and_names_fetch(shell: Shell) -> None:
    """Nothing on disk is an error that ends with the command that helps, and no folder is made."""
    answer = shell("data", "verify")
    assert (answer.code, answer.stdout, shell.files()) == (4, "", set())
    assert "fmnist-optuna data fetch" in answer.errors[0]


def test_fetch_without_network_exits_4_and_leaves_no_file(shell: Shell) -> None:
    """Both mirrors and what to do instead are named; no part of a file is left."""
    answer = shell("data", "fetch", "--data-dir", "data")
    assert (answer.code, answer.stdout, len(answer.errors)) == (4, "", 1)
    assert all(word in answer.errors[0] for word in ("storage.googleapis.com", "amazonaws.com", "--data-dir"))
    assert shell.files() <= {"data", "data/.lock"}


@pytest.fixture
def mirror(real_data: Path) -> Iterator[str]:
    """The published files on a web server of this machine."""
    handler = functools.partial(_Quiet, directory=str(real_data))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def test_fetch_from_a_mirror_leaves_four_verified_files(shell: Shell, mirror: str) -> None:
    """When the first mirrors fail the named one serves, and `data verify` agrees with what came."""
    shell = shell.with_variables(no_proxy="127.0.0.1")
    fetched = shell("data", "fetch", "--data-dir", "data", "--mirror", mirror)
    assert (fetched.code, fetched.stdout) == (0, "data\n"), fetched.stderr
    assert shell.files() == {"data", "data/.lock", *(f"data/{name}.gz" for name in NAMES)}
    verified = shell("data", "verify", "--data-dir", "data", "--json")
    assert verified.code == 0, verified.stderr
    told = verified.json
    assert told["ok"] is True
    assert {file["name"]: file["items"] for file in told["files"]} == dict(
        zip(NAMES, (60_000, 60_000, 10_000, 10_000), strict=True)
    )


@pytest.mark.parametrize("fault", ["truncated", "corrupt", "swapped", "missing"])
def test_verify_names_the_one_bad_file(shell: Shell, real_data: Path, fault: str) -> None:
    """Three lines are ok, one is BAD with its cause: exit 4, and no file is changed."""
    folder = shell.folder / "data"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.gz").symlink_to(real_data / f"{name}.gz")
    path = folder / "t10k-labels-idx1-ubyte.gz"
    content = path.read_bytes()
    path.unlink()
    if fault == "truncated":
        path.write_bytes(content[:-100])
    elif fault == "corrupt":
        path.write_bytes(content[:-8] + bytes(8))  # the checksum that ends a .gz
    elif fault == "swapped":
        shutil.copyfile(real_data / "t10k-images-idx3-ubyte.gz", path)
    before = shell.files()
    answer = shell("data", "verify", "--data-dir", "data")
    assert (answer.code, len(answer.errors), shell.files()) == (4, 1, before)
    lines = answer.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["ok", name] for name in NAMES[:3]] + [["BAD", NAMES[3]]]
    words = {"truncated": "cut off", "corrupt": "damaged", "swapped": "swapped", "missing": "missing"}
    assert words[fault] in lines[3]
    assert NAMES[3] in answer.errors[0]


def test_there_is_nothing_to_say_of_the_published_files(shell: Shell, real_data: Path) -> None:
    """So a start need not count: no test image is repeated, and every class has as many images."""
    described = shell("data", "describe", "--data", "fashion-mnist", "--data-dir", str(real_data), "--json")
    assert (described.code, described.json["repeated_test_images"], described.json["warnings"]) == (0, 0, [])
