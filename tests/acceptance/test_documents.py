"""What the documents say is so: commands exist, shell blocks run, and generated parts are up to date."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import (
    LANGUAGES,
    PAGES,
    ROOT,
    Block,
    all_blocks,
    inline_commands,
    own_arguments,
    parse_command,
    read_blocks,
    simple_commands,
    write_files,
)
from shell import Shell

PACKAGE = ROOT / "fmnist_optuna"
README_LINES = 130
MORE_SECONDS = 600.0  # the default study, on two busy cores
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
MACHINE_PATHS = re.compile(r"(?<![\w`.])/(?:root|home|work|tmp)/\w")


def test_shell_blocks_are_fenced_as_such() -> None:
    """A block says its language, and no command hides in a block of another one."""
    hidden = re.compile(r"^(\$ |fmnist-optuna |make |pip |docker )", re.MULTILINE)
    for block in all_blocks():
        assert block.language in LANGUAGES, block.place
        assert block.language == "sh" or not hidden.search(block.text), block.place


def test_a_block_that_nobody_runs_says_why() -> None:
    """A mark names either the command that runs the block or a reason of some words."""
    for block in all_blocks():
        if block.mark == "run":
            assert re.fullmatch(r"make test-slow(, exit status \d+)?", block.note), block.place
        elif block.mark:
            assert len(block.note.split()) >= 3, block.place


def test_every_command_in_a_block_can_be_parsed() -> None:
    """Commands, options and values in shell blocks are those of the program."""
    n_parsed = 0
    for block in all_blocks():
        for words in block.commands() if block.language == "sh" else ():
            if (arguments := own_arguments(words)) is not None:
                n_parsed += 1
                try:
                    parse_command(arguments)
                except Exception as error:
                    raise AssertionError(f"{block.place}: {' '.join(words)}: {error}") from error
    assert n_parsed > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_the_text_can_be_parsed(page: Path) -> None:
    """So are those that stand within a sentence."""
    for arguments in inline_commands(page):
        parse_command(arguments)


def test_a_wrong_option_in_a_document_is_noticed() -> None:
    """The parser of the tests refuses what the program refuses."""
    for line in ("fmnist-optuna run --worker 4", "fmnist-optuna confrim", "fmnist-optuna run --pruner best"):
        ((_, *arguments),) = simple_commands(line)
        with pytest.raises(Exception, match=r"(?i)no such|invalid value|'best'"):
            parse_command(arguments)


def test_every_make_target_in_the_documents_exists() -> None:
    """`make NAME` in a block or in the text names a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
        assert named <= targets, page.name


def test_every_check_is_run_on_the_public_host() -> None:
    """What CONTRIBUTING tells a person to run, the workflow runs; all but the two that write or list."""
    block = (
        (ROOT / "CONTRIBUTING.md").read_text().partition("## Commands")[2].partition("```sh\n")[2].partition("```")[0]
    )
    told = {name for line in block.splitlines() for name in line.partition("#")[0].split()[1:]}
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    run = set(re.findall(r"make ([a-z-]+)", workflow)) | ({"test-wheel"} if "tests/wheel/run" in workflow else set())
    assert told - {"docs-pages", "help"} <= run


def test_the_generated_parts_are_up_to_date() -> None:
    """The keys of a study file and the help of every command are what the program has; else run `make docs-pages`."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    stale = [page.name for page, text in generate.render().items() if page.read_text(encoding="utf-8") != text]
    assert stale == []


def test_what_a_call_takes_and_raises_is_a_list() -> None:
    """Each argument, attribute and error of the Python interface is an entry of its own, whatever its docstring has."""
    page = (ROOT / "docs" / "api.md").read_text()
    lists = re.findall(r"^\*\*(?:Args|Attributes|Raises)\.\*\*\n\n(.+?)\n\n", page, re.MULTILINE | re.DOTALL)
    assert len(lists) > 30
    assert [
        line for entries in lists for line in entries.splitlines() if not re.match(r"- `\w+`(, `\w+`)*: ", line)
    ] == []


def test_every_page_is_in_the_navigation() -> None:
    """A reader of the built pages finds each of them, and one that went leaves the list."""
    listed = re.findall(r"^  - [^:\n]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_readme_can_be_read_in_one_sitting() -> None:
    """It has at most 130 lines; the rest is in docs/."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_no_path_of_one_machine(page: Path) -> None:
    """Pasted output comes without the folders of whoever pasted it."""
    assert MACHINE_PATHS.findall(page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """A path in the text, from the repository's top or from the package's, leads to a file or a folder."""
    named = re.findall(
        r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|toml|md|yml|lock)|(?:tests|benchmarks|deploy)/[\w/]+)`", page.read_text()
    )
    assert [name for name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()] == []


def test_the_architecture_page_has_every_room() -> None:
    """Its table has the rooms of the package, each once, from the command line down."""
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    rows = re.findall(r"^\| \d+ \| (.+?) \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    listed = [room for row in rows for room in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted(rooms - {"__init__", "__main__"})


def test_the_architecture_page_has_every_table() -> None:
    """Its list has the tables of the ledger, each once."""
    from fmnist_optuna.ledger.tables import metadata

    page = (ROOT / "docs" / "architecture.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", page.partition("## Tables")[2], re.MULTILINE)
    assert sorted(listed) == sorted(metadata.tables)


def test_cheap_blocks_do_what_they_say(smoke_copy: Shell) -> None:
    """Every shell block without a mark runs on a finished study, each command with exit status 0."""
    blocks = [block for block in all_blocks() if block.is_cheap]
    assert blocks
    for block in blocks:
        for words in block.commands():
            assert words[0] == "fmnist-optuna", f"{block.place}: mark the block, as {words[0]} is not tried here"
            answer = smoke_copy(*words[1:])
            assert answer.code == 0, f"{block.place}: {' '.join(words)}: {answer.stderr}"


def run_blocks(page: Path, folder: Path) -> None:
    """Run all blocks of a page that are run at all, in their order, by a shell that stops at the first error."""
    shell = Shell(folder, {name: os.environ[name] for name in ("FMNIST_OPTUNA_DATA",) if name in os.environ})
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    write_files(page, folder)
    for block in read_blocks(page):
        if block.is_run:
            _run_block(block, folder, {**shell.environment, "PATH": path})


def _run_block(block: Block, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-eu", "-c", block.text], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=MORE_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == block.exit_status, (
        f"{block.place}:\n{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    )


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who has followed the quickstart: the default study is finished there."""
    folder = tmp_path_factory.mktemp("quickstart")
    run_blocks(ROOT / "docs" / "quickstart.md", folder)
    return folder


@pytest.mark.slow
def test_the_quickstart_leaves_what_it_promises(quickstart: Path) -> None:
    """From an empty folder: a finished study, its report and its model."""
    assert (quickstart / "studies" / "studies.db").is_file()
    assert list(quickstart.glob("*-report.html"))
    assert list(quickstart.glob("models/*/1/saved_model.pb"))


OTHERS = [page for page in PAGES if page.name != "quickstart.md" and any(block.is_run for block in read_blocks(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", OTHERS, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page: Path, quickstart: Path) -> None:
    """After the quickstart, in its folder, every other page's blocks run one after the other."""
    run_blocks(page, quickstart)


@pytest.mark.more
def test_the_pages_are_built_and_fetch_nothing(tmp_path: Path) -> None:
    """mkdocs finds every link, and no page loads a script, a style, a font or a picture from elsewhere."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    loads = r"<(?:script|img|iframe)[^>]+src=\"?https?:|<link[^>]+rel=\"?(?:stylesheet|preconnect)[^>]+https?:"
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 10
    assert [page.name for page in pages if re.search(loads, page.read_text())] == []


def test_the_workflow_is_one_that_the_host_accepts() -> None:
    """Its keys are those of the published schema."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_the_workflow_names_actions_by_their_commit() -> None:
    """A tag may be moved to other code; a commit may not."""
    uses = re.findall(r"uses: (\S+)", WORKFLOW.read_text())
    assert uses
    assert [use for use in uses if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", use)] == []
