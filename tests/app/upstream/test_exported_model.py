"""The packaged embedder on OpenVINO."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.upstream import exported_model
from app.upstream.embeddings import local_embedder, packaged_model

TEXTS = ["Where is my card?", "Wo bleibt meine Karte?", "", "☃ naïve", "one two three " * 300]
"""The last is longer than the model reads."""

ALONE = """
import json, sys
from pathlib import Path
from app.upstream import exported_model
encode = exported_model.load(Path(sys.argv[1]))
print(json.dumps([encode(json.load(sys.stdin)).tolist(), "torch" in sys.modules]))
"""


@pytest.fixture(scope="module")
def folder() -> Path:
    found = exported_model.exported(packaged_model())
    assert found is not None
    return found


def test_its_vectors_are_those_of_torch_without_torch(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    command = [sys.executable, "-c", ALONE, str(folder)]
    done = subprocess.run(command, input=json.dumps(TEXTS), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    vectors, torch_was_loaded = json.loads(done.stdout)
    assert not torch_was_loaded
    expected = SentenceTransformer(packaged_model(), device="cpu").encode(TEXTS)
    # In bfloat16, where the processor has it.
    assert cosines(np.array(vectors), expected).min() > 0.9998
    exact = exported_model.load(folder, "f32")(TEXTS)
    assert cosines(exact, expected).min() > 0.999999


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return (left * right).sum(axis=1) / lengths


def test_a_text_has_one_vector_alone_and_among_others(folder: Path) -> None:
    encode = exported_model.load(folder)
    alone = np.concatenate([encode([text]) for text in TEXTS])
    assert np.array_equal(encode(TEXTS), alone)


def test_what_cannot_be_exported_is_tried_once(tmp_path: Path, monkeypatch, caplog) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "installed"))
    with pytest.raises(exported_model.ExportFailed):
        exported_model.export(model)

    def run(*command: object, **options: object) -> None:
        raise OSError("tried again")

    monkeypatch.setattr(subprocess, "run", run)
    assert exported_model.exported(str(model)) is None
    assert "tried again" not in caplog.text
    # Another file, another model.
    (model / "more.json").write_text("{}")
    assert exported_model.exported(str(model)) is None
    assert "tried again" in caplog.text


def test_vectors_that_differ_from_torch_are_refused(folder: Path) -> None:
    encode = exported_model.load(folder)
    expected = encode(exported_model.PROBES)
    exported_model._compare(encode, expected)
    with pytest.raises(exported_model.ExportFailed, match="not those of torch"):
        exported_model._compare(encode, expected[::-1])


def test_a_folder_that_cannot_be_written_gives_way_to_the_next(tmp_path: Path, monkeypatch) -> None:
    model = tmp_path / "model"
    model.mkdir()
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setattr(sys, "prefix", str(blocked))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(exported_model, "_write", lambda source, made: (made / "x").touch())
    assert exported_model.export(model).is_relative_to(tmp_path / "home")


async def test_a_model_that_stays_on_torch_works(tmp_path: Path, monkeypatch) -> None:
    model = tmp_path / "own"
    shutil.copytree(packaged_model(), model)
    monkeypatch.setattr(exported_model, "exported", lambda name: None)
    embedder = local_embedder(str(model))
    encode = embedder._load()
    assert encode(["Where is my card?"]).shape == (1, 384)
    await embedder.close()


def test_nobody_is_told_what_is_loaded(folder: Path) -> None:
    """OpenVINO has a telemetry of its own, for its converter."""
    refusing = "import socket, sys\nsocket.socket.connect = lambda *_: sys.exit('a connection')\n"
    command = [sys.executable, "-c", refusing + ALONE, str(folder)]
    done = subprocess.run(command, input=json.dumps(TEXTS[:1]), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
