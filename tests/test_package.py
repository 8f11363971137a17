"""What a release says of itself, as far as it can be seen without building one (`make release`)."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from app import __version__

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "Makefile"]


def test_every_release_has_an_entry_in_the_changelog() -> None:
    assert PROJECT["project"]["version"] == __version__
    entries = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert entries[0] == __version__
    assert len(entries) == len(set(entries))


def test_extras_that_are_named_are_there() -> None:
    extras = set(PROJECT["project"]["optional-dependencies"])
    for path in DOCUMENTS:
        for named in re.findall(r"ttcl\[([a-z,-]+)\]", path.read_text("utf-8")):
            assert set(named.split(",")) <= extras, path.name


@pytest.mark.parametrize("package", ["app", "rules_store"])
def test_types_are_published(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"][package]


def test_a_source_archive_has_what_is_beside_the_packages() -> None:
    listed = (ROOT / "MANIFEST.in").read_text("utf-8")
    for path in ROOT.iterdir():
        named = path.suffix in (".md", ".txt", ".mk", ".yml") or path.name.startswith("Makefile")
        if named and path.name != "README.md" and not path.name.startswith("requirements-"):
            assert path.name in listed, path.name
    for folder in ("docs", "tests"):
        assert f"graft {folder}" in listed
