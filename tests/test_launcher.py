"""The command beside a project whose packages have the names of ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ttcl
from app.engine.supervisor import EngineSupervisor

PATHS = (Path("app") / "__init__.py", Path("prompts") / "__init__.py", Path("app.py"))


def theirs(folder: Path, path: Path) -> None:
    """A project as many are: an `app` that does something when it is imported."""
    file = folder / path
    file.parent.mkdir(exist_ok=True)
    file.write_text("raise RuntimeError('this is another project')\n")


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("by_path", [True, False])
def test_a_package_that_hides_ours_is_named(tmp_path: Path, path: Path, by_path: bool) -> None:
    theirs(tmp_path, path)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "ttcl", "--help"]
    if by_path:
        command.insert(1, "-P")
        environment["PYTHONPATH"] = "."
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    hiding = path.parent if path.name == "__init__.py" else path
    assert f"ttcl: {tmp_path / hiding} hides ttcl's own package" in sentence
    assert ("unset PYTHONPATH" in sentence) == by_path


def test_the_model_server_is_ours_wherever_it_is_started(tmp_path: Path) -> None:
    theirs(tmp_path, PATHS[0])
    model = tmp_path / "none.gguf"
    engine = EngineSupervisor(backend="llama", model=str(model), data_dir=tmp_path)
    command = engine._command(port=1)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        assert f"{model} does not exist" in process.stderr.read()


def test_ctrl_c_while_modules_are_imported_just_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    handlers = []
    monkeypatch.setattr("app.cli.main", lambda: handlers.append(signal.getsignal(signal.SIGINT)))
    try:
        ttcl.main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert handlers == [signal.SIG_DFL]
