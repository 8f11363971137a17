"""The command as a whole: help that loads nothing, version, completion, and errors as sentences."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app import __version__
from app.cli import root
from tests.app.cli.test_rules import Run, embeddings, line, new_database, ttcl

__all__ = ["embeddings", "new_database", "ttcl"]

SLOW = ("numpy", "pydantic", "sqlalchemy", "fastapi", "httpx", "faiss", "alembic", "structlog")


def test_help_loads_nothing_that_takes_long() -> None:
    code = (
        "import sys, ttcl\n"
        "sys.argv = ['ttcl', '--help']\n"
        "try: ttcl.main()\n"
        f"finally: print('loaded:', *sorted({set(SLOW)!r} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    assert "namespaces" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_the_version(ttcl: Run) -> None:
    assert ttcl("--version").stdout == f"ttcl {__version__}\n"


@pytest.mark.parametrize(
    ("words", "offered"),
    [("ttcl na", "namespaces"), ("ttcl rules quar", "quarantine"), ("ttcl jobs re", "resume")],
)
def test_completion(
    words: str, offered: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ttcl"])
    monkeypatch.setenv("_TTCL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit):
        root.main()
    assert offered in capsys.readouterr().out.split()


def test_a_misspelt_command_gets_a_hint(ttcl: Run) -> None:
    assert "'rules'" in ttcl("rulse", "list", code=2).stderr


def test_a_full_disk_is_a_sentence(ttcl: Run) -> None:
    ttcl("rules", "import", "-", given=line(1))
    assert "No space left" in ttcl("rules", "export", "/dev/full", code=2).stderr


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "Permission denied", "/data/x"), "ttcl: /data/x: Permission denied"),
        (OSError("no route"), "ttcl: no route"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(
    ttcl: Run, monkeypatch: pytest.MonkeyPatch, error: OSError, sentence: str
) -> None:
    def refuse(name: str) -> None:
        raise error

    monkeypatch.setattr(root, "load", refuse)
    assert ttcl("rules", "list", code=2).stderr.strip() == sentence
