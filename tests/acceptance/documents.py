"""The documents as tests see them: their blocks, the shell commands in them, and what is said about running them.

A shell block is run by the default tests unless the line before it says something else:

- ``<!-- run: make test-slow -->``: it is run by the tests marked `slow`, and ends with exit status 0, or with another
  that the mark names: ``<!-- run: make test-slow, exit status 7 -->``;
- ``<!-- not run: REASON -->``: nobody runs it, for a reason.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LANGUAGES = {"sh", "text", "python", "toml"}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!-- (not run|run): (.+?) -->\n\s*$")
FILE_NAME = re.compile(r"# (\S+\.(?:py|toml))\n")
SEPARATORS = {"|", "||", "&&", ";", ">", "<"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Args:
        page: File name of the page.
        line: Of its first line.
        mark: "not run" or "run", if the line before the block says so.
        note: Why it is not run, or which command runs it.
    """

    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    note: str = ""

    @property
    def place(self) -> str:
        """Where a reader finds it."""
        return f"{self.page}:{self.line}"

    @property
    def is_cheap(self) -> bool:
        """Whether the default tests run it."""
        return self.language == "sh" and not self.mark

    @property
    def is_run(self) -> bool:
        """Whether any test runs it."""
        return self.language == "sh" and self.mark != "not run"

    @property
    def exit_status(self) -> int:
        """What the block ends with when it is run."""
        _, _, status = self.note.partition(", exit status ")
        return int(status or 0)

    def commands(self) -> Iterator[list[str]]:
        """The words of each simple command."""
        for line in self.text.replace("\\\n", " ").splitlines():
            yield from simple_commands(line)


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a line of shell; what a redirection names is left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    is_file = False
    for word in lexer:
        if word in SEPARATORS:
            if word not in "<>" and words:
                yield words
                words = []
            is_file = word in "<>"
        elif not is_file:
            words.append(word)
    if words:
        yield words


def read_blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    blocks = []
    for found in FENCE.finditer(text):
        mark = COMMENT.search(text[: found.start()])
        line = text.count("\n", 0, found.start()) + 2
        said = (mark[1], mark[2]) if mark else ("", "")
        blocks.append(Block(page.name, line, found[2], found[3], *said))
    return blocks


def all_blocks() -> list[Block]:
    """The blocks of all pages."""
    return [block for page in PAGES for block in read_blocks(page)]


def write_files(page: Path, folder: Path) -> None:
    """Write the files that a page shows: a block of Python or TOML whose first line is a comment with a file's name."""
    for block in read_blocks(page):
        if block.language in ("python", "toml") and (name := FILE_NAME.match(block.text)):
            (folder / name[1]).write_text(block.text, encoding="utf-8")


def own_arguments(words: list[str]) -> list[str] | None:
    """The arguments of our program in a command, also where a container runs it; None in another command."""
    if words[0] == "fmnist-optuna":
        return words[1:]
    if words[:2] == ["docker", "run"] and "fmnist-optuna" in words:
        return words[words.index("fmnist-optuna") + 1 :]
    if words[:3] == ["docker", "compose", "run"]:
        return words[words.index("init") + 1 :]
    return None


def parse_command(arguments: list[str]) -> dict[str, Any]:
    """Let our own parser read arguments, and run nothing.

    Returns:
        The command's parameters by name.

    Raises:
        TyperException: There is no such command or option, or a value is of the wrong kind.
    """
    import typer

    from fmnist_optuna.cli.main import app

    command: Any = typer.main.get_command(app)
    context = command.make_context("fmnist-optuna", list(arguments))
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    return dict(context.params)


def inline_commands(page: Path) -> Iterator[list[str]]:
    """The commands of ours in a page's running text, with a number in the place of TRIAL."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for found in re.finditer(r"`fmnist-optuna ([^`]+)`", text):
        words = shlex.split(found[1].replace("TRIAL", "1").replace("...", ""))
        if words[0] != "COMMAND":
            yield words
