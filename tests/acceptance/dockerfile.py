"""The Dockerfile without an engine: its instructions read, and run in a folder that stands for the root of a stage.

Three things differ from a build. Absolute paths begin with that folder. Locked dependencies are those of the present
environment, after their versions were compared with the lock. A RUN that makes a user is left out, as it needs root.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from string import Template

from packaging.requirements import Requirement

REMOVED = ("PIP_", "PYTHON", "FMNIST_", "VIRTUAL_ENV", "XDG_", "KERAS")
INSTALL_LOCKED = re.compile(r"pip (?:--python (?P<python>\S+) )?install --require-hashes -r (?P<lock>\S+)")
ABSOLUTE = re.compile(r"(?<![\w.*/$)}-])/(?=\w)")  # where an absolute path begins
RUN_SECONDS = 120.0


@dataclass(frozen=True)
class Instruction:
    """One instruction: `COPY --from=wheel /wheel /opt/venv`."""

    keyword: str
    flags: dict[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments; those of the JSON form too."""
        return [str(word) for word in json.loads(self.text)] if self.text.startswith("[") else shlex.split(self.text)


@dataclass(frozen=True)
class Stage:
    """What follows a FROM: the name or number of the stage and what it begins with."""

    name: str
    base: str
    instructions: list[Instruction]

    def last(self, keyword: str) -> Instruction:
        """The instruction that counts, where only the last of its kind does."""
        return [instruction for instruction in self.instructions if instruction.keyword == keyword][-1]


def read_dockerfile(file: Path) -> list[Stage]:
    """The stages, variables of ARG at their defaults.

    Raises:
        ValueError: An instruction that this reader does not know.
    """
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.MULTILINE))
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        keyword, _, text = line.partition(" ")
        flags = dict(re.findall(r"--(\w+)=(\S+) ", (re.match(r"(?:--\w+=\S+ +)*", text) or [""])[0]))
        instruction = Instruction(keyword, flags, re.sub(r"^(?:--\w+=\S+ +)*", "", text).strip())
        if keyword == "ARG" and not stages:
            name, _, value = instruction.text.partition("=")
            arguments[name] = value
        elif keyword == "FROM":
            base, *named = re.split(r" AS ", Template(instruction.text).substitute(arguments))
            stages.append(Stage(named[0] if named else str(len(stages)), base, []))
        elif keyword in {"RUN", "COPY", "ENV", "WORKDIR", "USER", "ENTRYPOINT", "CMD"}:
            stages[-1].instructions.append(instruction)
        else:
            raise ValueError(f"{keyword} is not among the instructions that this reader knows: {line}")
    return stages


@dataclass
class Builder:
    """Runs stages one after another.

    Args:
        context: The folder whose files COPY takes, as far as its .dockerignore lets them.
        folder: Of the stages; `root` within it is that of the stage at work, the last one in the end.
    """

    context: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    current: Path = field(default_factory=Path)

    @property
    def root(self) -> Path:
        """What stands for /. Its name is the same for every stage, as scripts of virtual environments hold it."""
        return self.folder / "root"

    def build(self, stages: list[Stage]) -> None:
        """Run all instructions of all stages."""
        made: dict[str, tuple[dict[str, str], Path]] = {}
        for stage in stages:
            if stage.base in made:
                shutil.copytree(self.folder / stage.base, self.root, symlinks=True)
                self.environment, self.current = made[stage.base]
            else:
                (self.root / "tmp").mkdir(parents=True)
                self.environment, self.current = self._make_base(), self.root
            for instruction in stage.instructions:
                getattr(self, f"_{instruction.keyword.lower()}")(instruction)
            if stage is not stages[-1]:
                made[stage.name] = (dict(self.environment), self.current)
                self.root.rename(self.folder / stage.name)

    def _make_base(self) -> dict[str, str]:
        """The variables of the base image: a Python on the PATH, nothing of ours; pip has no network."""
        programs = self.folder / "base" / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        if not (python := programs / "python3").exists():
            python.symlink_to(Path(sys.executable).resolve())
        clean = {key: value for key, value in os.environ.items() if not key.startswith(REMOVED)}
        return {**clean, "PATH": f"{programs}:/usr/bin:/bin", "PIP_NO_INDEX": "1"}

    def place(self, text: str) -> str:
        """A text with its absolute paths under the root."""
        return ABSOLUTE.sub(f"{self.root}/", text)

    def _env(self, instruction: Instruction) -> None:
        for word in instruction.words:
            key, _, value = word.partition("=")
            self.environment[key] = Template(self.place(value)).substitute(self.environment)

    def _workdir(self, instruction: Instruction) -> None:
        self.current = Path(self.place(instruction.text))
        self.current.mkdir(parents=True, exist_ok=True)

    def _copy(self, instruction: Instruction) -> None:
        *sources, target = instruction.words
        to = self.current / self.place(target)
        if stage := instruction.flags.get("from"):
            (source,) = sources
            shutil.copytree(self.folder / stage / source.lstrip("/"), to, symlinks=True, dirs_exist_ok=True)
            return
        for pattern in sources:
            found = [path for path in sorted(self.context.glob(pattern)) if not self._is_ignored(path)]
            assert found, f"COPY finds no {pattern}, or .dockerignore leaves it out"
            for path in found:
                if path.is_dir():
                    shutil.copytree(path, to, dirs_exist_ok=True, ignore=self._ignored_names)
                else:
                    is_folder = target.endswith("/")
                    (to if is_folder else to.parent).mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, to / path.name if is_folder else to)

    def _ignored_names(self, folder: str, names: list[str]) -> set[str]:
        return {name for name in names if self._is_ignored(Path(folder, name))}

    def _is_ignored(self, path: Path) -> bool:
        """By .dockerignore, where the last pattern that matches a path or a folder of it decides."""
        relative = path.relative_to(self.context)
        names = [str(part) for part in (relative, *relative.parents)][:-1]
        answer = False
        for line in (self.context / ".dockerignore").read_text().splitlines():
            pattern = line.removeprefix("!").removeprefix("**/")
            candidates = relative.parts if "**/" in line else names
            if line and not line.startswith("#") and any(fnmatch.fnmatch(name, pattern) for name in candidates):
                answer = not line.startswith("!")
        return answer

    def _run(self, instruction: Instruction) -> None:
        if instruction.text.startswith("useradd "):
            return
        if locked := INSTALL_LOCKED.fullmatch(instruction.text):
            self._install_present(locked["lock"], locked["python"] or "/opt/tools/bin/python")
        else:
            assert "--require-hashes" not in instruction.text
            done = subprocess.run(
                ["/bin/sh", "-c", self.place(instruction.text)], cwd=self.current, env=self.environment,
                capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"RUN {instruction.text}\n{done.stdout}\n{done.stderr}"

    def _install_present(self, lock: str, python: str) -> None:
        """Show the packages of the present environment to a virtual environment, if they are those of the lock."""
        for line in (self.current / lock).read_text().splitlines():
            if "==" in line and not line.startswith(" "):
                wanted = Requirement(line.removesuffix("\\"))
                if wanted.marker is None or wanted.marker.evaluate():
                    assert wanted.specifier.contains(version(wanted.name)), f"{wanted}: {version(wanted.name)} is here"
        (site,) = Path(self.place(python)).parents[1].glob("lib/python*/site-packages")
        here = [path for path in sys.path if path.endswith("site-packages")]
        (site / "present.pth").write_text("\n".join(here) + "\n")

    def _user(self, instruction: Instruction) -> None:
        """The user stays the one of the tests."""

    def _entrypoint(self, instruction: Instruction) -> None:
        """Called by the tests."""

    _cmd = _entrypoint

    def start(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in what was built, as an engine would."""
        found = shutil.which(command[0], path=self.environment["PATH"])
        assert found, f"{command[0]} must be on the PATH of the image: {self.environment['PATH']}"
        return subprocess.run(
            [found, *command[1:]], cwd=self.current, env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
        )  # fmt: skip
