"""A sentence-transformers model on ONNX Runtime: half the time for a vector, and without torch.

`python -m app.upstream.onnx_model [MODEL]` writes the whole model, pooling included, as one graph
beside its tokenizer. That needs torch for once; `load` runs what was written with onnxruntime and
tokenizers alone. The vectors are those of torch, so both go by the same name.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)

Encode = Callable[[list[str]], npt.NDArray[np.float32]]

FORMAT = 1
"""Of what `export` writes; another number writes it anew."""
OPTIONS = "options.json"
UNSUPPORTED = "unsupported"
"""A file that holds the reason why a model can't be exported, so that it is tried once."""
EXPORT_SECONDS = 600.0
LEAST_COSINE = 0.9999
"""To torch's vector of the same text. Float32 on another runtime differs in the sixth decimal."""
PROBES = [
    "Where is my order?",
    "",
    "Was kostet ein Konto für Schüler, und wie eröffne ich es? ☃",
    "A train leaves at 9:40 and arrives at 11:05. How long does the journey take? " * 40,
]


class ExportFailed(Exception):
    """The model stays on torch."""


def exported(model: str) -> Path | None:
    """The folder with what was exported of a model (a folder or a hub name), exported now where it
    has not been, in a process of its own: takes some 20 seconds. None where it can't be."""
    source = _source(model)
    if source is None:
        return None
    folder = _written(source)
    if folder is None:
        command = [sys.executable, "-P", "-m", "app.upstream.onnx_model", str(source)]
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=EXPORT_SECONDS,
                env={**os.environ, "PYTHONPATH": path},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            logger.warning("%s stays on torch: %s", model, error)
            return None
        if done.returncode != 0:
            logger.warning("%s stays on torch: %s", model, done.stderr.strip()[-500:])
        folder = _written(source)
    if folder is None or (folder / UNSUPPORTED).exists():
        return None
    return folder


def load(folder: Path) -> Encode:
    """What `export` wrote as a function of texts, to vectors of shape (n, dimension)."""
    import onnxruntime
    from tokenizers import Tokenizer

    options = json.loads((folder / OPTIONS).read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(options["max_tokens"])
    tokenizer.enable_padding(pad_id=options["pad_id"], pad_token=options["pad_token"])
    session_options = onnxruntime.SessionOptions()
    # One sentence is no faster on two threads, and far slower where a core is busy.
    session_options.intra_op_num_threads = session_options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), session_options, providers=["CPUExecutionProvider"]
    )
    wanted = {each.name for each in session.get_inputs()}

    def encode(texts: list[str]) -> npt.NDArray[np.float32]:
        rows = tokenizer.encode_batch([options["prompt"] + text for text in texts])
        inputs = {
            "input_ids": [row.ids for row in rows],
            "attention_mask": [row.attention_mask for row in rows],
            "token_type_ids": [row.type_ids for row in rows],
        }
        feed = {name: np.array(inputs[name], dtype=np.int64) for name in wanted}
        vectors: npt.NDArray[np.float32] = session.run(None, feed)[0]
        return vectors

    return encode


def export(source: Path) -> Path:
    """Writes a model of a folder. Raises `ExportFailed`, and leaves a note that it did."""
    for folder in _folders(source):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
            break
        except OSError:
            continue
    else:
        raise ExportFailed(f"no folder can be written for it, {folder.parent} neither")
    try:
        _write(source, made)
    except Exception as error:
        shutil.rmtree(made)
        made.mkdir()
        (made / UNSUPPORTED).write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
    made.chmod(0o755)
    try:
        made.rename(folder)
    except OSError:
        # Another process was faster.
        shutil.rmtree(made)
    reason = folder / UNSUPPORTED
    if reason.exists():
        raise ExportFailed(reason.read_text(encoding="utf-8"))
    return folder


def _write(source: Path, folder: Path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(source), device="cpu").eval()
    features = {
        name: value
        for name, value in model.preprocess(PROBES[:2]).items()
        if isinstance(value, torch.Tensor)
    }

    class Graph(torch.nn.Module):
        """The model with its inputs by position."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            return self.model(dict(zip(features, inputs, strict=True)))["sentence_embedding"]

    texts, tokens = torch.export.Dim("texts"), torch.export.Dim("tokens", max=model.max_seq_length)
    torch.onnx.export(
        Graph(),
        tuple(features.values()),
        str(folder / "model.onnx"),
        input_names=list(features),
        output_names=["vectors"],
        dynamo=True,
        dynamic_shapes=(tuple({0: texts, 1: tokens} for _ in features),),
        external_data=False,
        verbose=False,
    )
    tokenizer = model.tokenizer
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    options = {
        "max_tokens": model.max_seq_length,
        "pad_id": tokenizer.pad_token_id,
        "pad_token": tokenizer.pad_token,
        "prompt": model.prompts.get(model.default_prompt_name or "") or "",
    }
    (folder / OPTIONS).write_text(json.dumps(options), encoding="utf-8")
    _compare(load(folder), model.encode(PROBES, convert_to_numpy=True))


def _compare(encode: Encode, expected: npt.NDArray[np.float32]) -> None:
    made = encode(PROBES)
    lengths = np.linalg.norm(made, axis=1) * np.linalg.norm(expected, axis=1)
    cosine = float(((made * expected).sum(axis=1) / lengths).min())
    if not cosine >= LEAST_COSINE:
        raise ExportFailed(f"its vectors are not those of torch: cosine {cosine:.4f}")


def _source(model: str) -> Path | None:
    """The model's folder; None where it is still to be fetched from the hub, or is not there."""
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model, local_files_only=True))
    except Exception:
        return None


def _written(source: Path) -> Path | None:
    return next((folder for folder in _folders(source) if folder.is_dir()), None)


def _folders(source: Path) -> tuple[Path, ...]:
    """Where a model's export is looked for: beside the installation, so that an image carries it,
    else with the user."""
    name = f"{source.name}-{_digest(source)}"
    return (
        Path(sys.prefix) / "share" / "ttcl" / "embedders" / name,
        Path.home() / ".cache" / "ttcl" / "embedders" / name,
    )


def _digest(source: Path) -> str:
    """Changes with any file of the model."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    seen = [
        (str(path.relative_to(source)), path.stat().st_size, int(path.stat().st_mtime))
        for path in files
    ]
    return hashlib.blake2b(json.dumps([FORMAT, seen]).encode(), digest_size=8).hexdigest()


def main(arguments: list[str]) -> None:
    """Exports a model of a folder; without an argument the packaged one."""
    from app.upstream.embeddings import packaged_model

    source = Path(arguments[0] if arguments else packaged_model())
    if _written(source) is None:
        export(source)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ExportFailed as failed:
        sys.exit(str(failed))
