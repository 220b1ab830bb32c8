"""The container image without an engine: the Dockerfile's own steps are run in a folder, then its own ENTRYPOINT."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfile import Builder, Stage, read_dockerfile

from fmnist_optuna import __version__

ROOT = Path(__file__).parents[2]
HADOLINT = Path(sys.executable).with_name("hadolint")
SHADOWS = ("json", "keras", "numpy", "queue", "random", "rich", "typer")
WHERE = """\
from importlib.metadata import distribution
import fmnist_optuna, mine
print(distribution("fmnist-optuna").locate_file(""), fmnist_optuna.__file__, mine.__file__, sep="\\n")
"""


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    """The stages of the Dockerfile."""
    return read_dockerfile(ROOT / "Dockerfile")


@pytest.fixture(scope="module")
def image(stages: list[Stage], tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """What the Dockerfile makes of the sources."""
    builder = Builder(ROOT, tmp_path_factory.mktemp("image"))
    builder.build(stages)
    return builder


def test_the_image_is_well_made(stages: list[Stage]) -> None:
    """By hadolint; it runs as nobody in particular, has no build tool, and its base can be another."""
    checked = subprocess.run([HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    final = stages[-1]
    assert re.fullmatch(r"[1-9]\d*", final.last("USER").text)
    assert not [step for step in final.instructions if re.search(r"\b(apt-get|pip|gcc)\b", step.text)]
    assert (ROOT / "Dockerfile").read_text().count("FROM ${BASE}") == 2
    assert not re.search(r"python3\.\d", (ROOT / "Dockerfile").read_text())


@pytest.mark.more
def test_the_entrypoint_starts(image: Builder, stages: list[Stage]) -> None:
    """With the CMD of the file and with commands, from an empty folder."""
    entrypoint = stages[-1].last("ENTRYPOINT").words
    assert not list(image.current.iterdir())
    helped, said, example = (
        image.start(*entrypoint, *arguments)
        for arguments in (stages[-1].last("CMD").words, ["--version"], ["spec", "example"])
    )
    assert (helped.returncode, said.stdout) == (0, f"fmnist-optuna {__version__}\n"), helped.stderr + said.stderr
    assert "Usage: fmnist-optuna" in helped.stdout
    assert (example.returncode, example.stdout.startswith("#")) == (0, True), example.stderr


@pytest.mark.more
def test_the_image_has_the_wheel(image: Builder) -> None:
    """Package and metadata are those that were built; a module of the user's own is found in the folder /study."""
    (image.root / "study" / "mine.py").touch()
    asked = image.start("python", "-c", WHERE)
    assert asked.returncode == 0, asked.stderr
    (site,) = (image.root / "opt" / "venv").glob("lib/python*/site-packages")
    expected = [site, site / "fmnist_optuna" / "__init__.py", image.root / "study" / "mine.py"]
    assert [Path(line) for line in asked.stdout.splitlines()] == expected
    assert not (image.root / "opt" / "tools").exists()
    assert {path.name for path in (image.root / "study").glob("*.toml")} == {
        path.name for path in (ROOT / "studies").glob("*.toml")
    }


@pytest.mark.more
def test_the_package_starts_as_a_module(image: Builder) -> None:
    """`python -m fmnist_optuna`, in a folder whose files are named like modules that it needs."""
    for name in SHADOWS:
        (image.current / f"{name}.py").write_text(f"raise SystemExit('{name} of the current folder')")
    said = image.start("python", "-m", "fmnist_optuna", "--version")
    for name in SHADOWS:
        (image.current / f"{name}.py").unlink()
    assert (said.returncode, said.stdout) == (0, f"fmnist-optuna {__version__}\n"), said.stderr
