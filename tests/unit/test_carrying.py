"""Which of the user's files travel to another machine."""

from pathlib import Path

import pytest

from fmnist_optuna.errors import UsageError
from fmnist_optuna.user_modules import carrying
from fmnist_optuna.user_modules.carrying import carry_modules

FILES = {
    "mine_a.py": "import numpy\nimport mine_b\nfrom mine_package.part import thing\n",
    "mine_b.py": "def later():\n    import mine_c\n",
    "mine_c.py": "",
    "mine_package/__init__.py": "",
    "mine_package/part.py": "thing = 1\n",
    "mine_package/table.csv": "1,2\n",
    "mine_package/__pycache__/part.pyc": "",
    "mine_package/.secret": "",
    "mine_other.py": "",
    "mine_space/inner/code.py": "import mine_c\n",
    "mine_space/inner/data.csv": "",
}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's on Python's path."""
    folder = tmp_path / "source"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def carry(folder: Path, *names: str) -> set[str]:
    """The files that are in a folder afterwards."""
    folder.mkdir()
    carry_modules(names, folder)
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_a_module_reaches_is_carried(source: Path, tmp_path: Path) -> None:
    """Modules wherever they are imported, a package whole; neither what is installed nor what nobody imports."""
    (source / "mine_package" / "gone.csv").symlink_to(source / "nowhere")
    found = carry(tmp_path / "target", "mine_a")
    assert found == {
        "mine_a.py", "mine_b.py", "mine_c.py",
        "mine_package/__init__.py", "mine_package/part.py", "mine_package/table.csv",
    }  # fmt: skip


def test_a_package_without_a_file_is_carried_by_its_modules(source: Path, tmp_path: Path) -> None:
    """What else lies in its folder may be anything."""
    assert carry(tmp_path / "target", "mine_space.inner.code") == {"mine_space/inner/code.py", "mine_c.py"}


def test_installed_code_is_not_carried(tmp_path: Path) -> None:
    """Every node has it, as it has TensorFlow."""
    assert carry(tmp_path / "target", "pluggy", "json", "no_such_module") == set()


def test_a_package_with_data_of_its_own_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text names the folder and what to do."""
    (source / "mine_package" / ".secret").write_text("not carried, and so not counted")
    monkeypatch.setattr(carrying, "MOST_BYTES", 100)
    assert carry(tmp_path / "small", "mine_package.part") >= {"mine_package/part.py"}
    monkeypatch.setattr(carrying, "MOST_BYTES", 3)
    with pytest.raises(UsageError, match=r"mine_package has more; keep data elsewhere, or install"):
        carry(tmp_path / "target", "mine_package.part")
