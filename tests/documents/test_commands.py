"""Every command that README and docs/ print is run by a test or says what it needs, and whatever
names a command, an option, a target or a module names one that is there."""

from __future__ import annotations

import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from app.cli.root import app
from tests.documents.pages import PAGES, ROOT, Block, blocks, inline

# Commands outside of `bash` blocks, and who runs them.
RUN_BY = {
    "make run": "tests/documents/test_first_run.py",
    "make demo": "tests/app/cli/test_demo.py",
    "TTCL_UPSTREAM_BASE_URL=http://127.0.0.1:8000/v1 .venv/bin/ttcl serve": "tests/e2e/service.py",
    "ttcl upgrade": "tests/app/cli/test_upgrade.py",
    "OPENAI_API_KEY=unused lm_eval run": "tests/clients/test_lm_eval.py",
}
NO_COMMANDS = {"text", "json", "yaml", "python", "js"}
ALL_BLOCKS = [block for page in PAGES for block in blocks(page)]


def told(block: Block) -> str:
    return f"{block.page.name}: {block.text[:60]!r}"


@pytest.mark.parametrize("block", ALL_BLOCKS, ids=told)
def test_a_block_is_run_or_says_what_it_needs(block: Block) -> None:
    if block.language in NO_COMMANDS or block.language == "bash" or block.needs:
        return
    assert block.language == "sh", "is it typed (bash), or what does it need (sh)?"
    for command in block.commands:
        (test,) = [path for known, path in RUN_BY.items() if command.startswith(known)]
        assert (ROOT / test).is_file()


def test_pages_have_no_other_blocks() -> None:
    """Four blanks are one as well, but nobody sees what is in it."""
    indented = re.compile(r"(?<=\n\n) {4}(?:ttcl|make|python3?|pip|curl|docker) .*")
    found = [f"{page.name}: {hit}" for page in PAGES for hit in indented.findall(page.read_text())]
    assert found == []


def printed() -> list[tuple[str, str]]:
    """Page and command, of blocks and of text alike."""
    typed = [(block.page.name, command) for block in ALL_BLOCKS for command in block.commands]
    return typed + [(page.name, code) for page in PAGES for code in inline(page)]


def calls_of(program: str) -> list[tuple[str, list[str]]]:
    """The words that follow `program` wherever it is called."""
    found = []
    for page, command in printed():
        for match in re.finditer(rf"(?:^|[ (/=]){program} (?=[a-z-])", command):
            words = re.split(r" (?:[|>&;]|&&|>/dev/null)", command[match.end() :])[0]
            found.append(
                (page, shlex.split(words.replace('"$', "$").replace("'", "").replace('"', "")))
            )
    return found


def find(words: list[str]) -> tuple[Any, list[str]]:
    """The command that these words name, and what is left of them."""
    command: Any = typer.main.get_command(app)
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        context = command.context_class(command)
        # The outermost imports its commands only once they are asked for.
        _, below, words = command.resolve_command(context, words)
        command = below
    return command, words


@pytest.mark.parametrize(("page", "words"), calls_of("ttcl"), ids=str)
def test_commands_and_their_options_are_there(page: str, words: list[str]) -> None:
    command, rest = find(words)
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    # What follows a bare -- is handed on to another program.
    own = rest[: rest.index("--")] if "--" in rest else rest
    asked = {word.partition("=")[0] for word in own if word.startswith("--")}
    assert asked <= known | {"--help", "--version"}, page


@cache
def targets() -> set[str]:
    text = (ROOT / "Makefile").read_text() + (ROOT / "Makefile.engine.mk").read_text()
    return set(re.findall(r"^([a-z][a-z-]*):", text, re.M))


def test_make_has_every_target() -> None:
    asked = {words[0] for _, words in calls_of("make")}
    assert {"run", "demo"} <= asked <= targets()


def test_modules_have_every_option() -> None:
    for page, words in calls_of("python3? -m"):
        if not words[0].startswith(("app", "benchmarks", "rules_store")):
            continue
        path = ROOT / words[0].replace(".", "/")
        sources = (
            [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else path.glob("*.py")
        )
        text = "".join(source.read_text() for source in sources)
        for word in words:
            if word.startswith("--"):
                name = word.partition("=")[0].removeprefix("--")
                assert f"--{name}" in text or name.replace("-", "_") in text, (page, words)


def test_shell_lines_can_be_read() -> None:
    """Those that nobody runs, too."""
    for block in ALL_BLOCKS:
        if block.language == "sh":
            done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
            assert done.returncode == 0, (told(block), done.stderr)


def test_extras_that_are_named_are_there() -> None:
    import tomllib

    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for page in PAGES:
        for extras in re.findall(r"(?:ttcl|\.whl|'\.)\[([a-z,-]+)\]", Path(page).read_text()):
            assert set(extras.split(",")) <= set(told), (page, extras)
