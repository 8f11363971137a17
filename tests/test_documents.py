"""README and docs/ name files, modules, classes, functions and settings that are really there."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("app", "rules_store", "benchmarks", "prompts", "tests", "docs")
SOURCES = (".py", ".md", ".yaml", ".yml", ".html", ".toml", ".js", ".css", ".jsonl", ".mk")
ELSEWHERE = {
    # Names of other projects' settings, metrics and files.
    "max_model_len",
    "pg_stat_database",
    "PIP_EXTRA_INDEX_URL",
}
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_PATH = re.compile(rf"(?:{'|'.join(FOLDERS)})/[\w./*@-]*")
_FILE = re.compile(r"[\w-]+\.(?:py|md|yaml|yml|toml|jsonl)")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\(\))?")


@cache
def words_of_the_project() -> frozenset[str]:
    """Every word of the sources; documents are none, they must not vouch for each other."""
    words: set[str] = set()
    for folder in (*FOLDERS, "."):
        if folder == "docs":
            continue
        pattern = "*" if folder == "." else "**/*"
        for path in (ROOT / folder).glob(pattern):
            # What npm installs for the tests is not the project's.
            if not path.is_file() or path == Path(__file__) or "node_modules" in path.parts:
                continue
            if folder == "." and path.suffix == ".md":
                continue
            if path.suffix in SOURCES or path.name in ("Makefile", "Dockerfile"):
                words |= set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    return frozenset(words)


@cache
def files_of_the_project() -> frozenset[str]:
    found = {path.name for folder in FOLDERS for path in (ROOT / folder).glob("**/*")}
    return frozenset(found | {path.name for path in ROOT.iterdir()})


def _known(word: str, words: frozenset[str]) -> bool:
    # A setting is a field of the same name.
    return word in words or word.removeprefix("TTCL_").lower() in words


def code_in(document: Path) -> list[str]:
    """What stands between single backticks outside fenced blocks."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    return _CODE.findall(text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_are_there(document: Path) -> None:
    missing = [
        code
        for code in code_in(document)
        if _PATH.fullmatch(code)
        and not (any(ROOT.glob(code)) if "*" in code else (ROOT / code).exists())
    ]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_are_there(document: Path) -> None:
    """Those that are named without their folder, too; files that a run writes are in the code."""
    known = files_of_the_project()
    words = words_of_the_project()
    missing = [
        code
        for code in code_in(document)
        if _FILE.fullmatch(code) and code not in known and code.split(".")[0] not in words
    ]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_names_are_in_the_code(document: Path) -> None:
    """Names of classes, functions, modules, settings and reasons: what holds an underscore, a dot
    or a capital within."""
    words = words_of_the_project()
    missing = [
        code
        for code in code_in(document)
        if _NAME.fullmatch(code)
        and re.search(r"[_.]|[a-z][A-Z]", code)
        and not _FILE.fullmatch(code)
        and not all(_known(part, words) for part in re.findall(r"\w+", code))
        and code not in ELSEWHERE
    ]
    assert missing == []


def test_every_link_within_the_project_leads_somewhere() -> None:
    broken = [
        f"{document.name}: {target}"
        for document in DOCUMENTS
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_modules_that_are_run_can_be_run(document: Path) -> None:
    """`python -m MODULE`, in fenced blocks too."""
    text = document.read_text(encoding="utf-8")
    modules = re.findall(r"python3? -m ((?:app|benchmarks|rules_store)[\w.]*\w)", text)
    assert [module for module in modules if not _runs(module)] == []


def _runs(module: str) -> bool:
    path = ROOT / module.replace(".", "/")
    if path.is_dir():
        return (path / "__main__.py").is_file()
    file = path.with_suffix(".py")
    return file.is_file() and '__name__ == "__main__"' in file.read_text(encoding="utf-8")
