"""A sentence-transformers model on OpenVINO: a fifth of torch's time for a vector, and no torch.

`python -m app.upstream.exported_model [MODEL]` writes the whole model, pooling included, as one
graph beside its tokenizer. That needs torch for once; `load` runs what was written with openvino
and tokenizers alone. It computes in bfloat16 where the processor has that (AMX, AVX-512 BF16), in
float32 elsewhere; both find the neighbours that torch's vectors do (`benchmarks.serving.precision`
has the figures), so all go by the model's name.
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

FORMAT = 2
"""Of what `export` writes; another number writes it anew."""
MODEL = "model.xml"
"""Beside it are the weights."""
OPTIONS = "options.json"
UNSUPPORTED = "unsupported"
"""A file that holds the reason why a model can't be exported, so that it is tried once."""
EXPORT_SECONDS = 600.0
LEAST_COSINE = 0.9999
"""To torch's vector of the same text, both in float32, but for the weights, which are kept in half
the bytes."""
BUCKET = 16
"""Tokens: lengths are filled up to a multiple of it, as for each new length code is generated (20
to 40 ms); the processor's matrix units take 16 rows at a time anyway."""
READY_TOKENS = 128
"""Lengths up to this one are made ready when the model is loaded."""
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
        command = [sys.executable, "-P", "-m", "app.upstream.exported_model", str(source)]
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


def load(folder: Path, precision: str | None = None) -> Encode:
    """What `export` wrote as a function of texts, to vectors of shape (n, dimension). `precision`:
    `f32` or `bf16`; None: what the processor is fastest at."""
    from openvino import Core
    from tokenizers import Tokenizer

    options = json.loads((folder / OPTIONS).read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(options["max_tokens"])
    tokenizer.enable_padding(
        pad_id=options["pad_id"], pad_token=options["pad_token"], pad_to_multiple_of=BUCKET
    )
    properties: dict[str, Any] = {
        # One sentence is hardly faster on two threads, and far slower where a core is busy.
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    if precision is not None:
        properties["INFERENCE_PRECISION_HINT"] = precision
    model = Core().compile_model(folder / MODEL, "CPU", properties)
    request = model.create_infer_request()
    wanted = [each.get_any_name() for each in model.inputs]

    def vector(text: str) -> npt.NDArray[np.float32]:
        # By itself: several at once gain a seventh, and would be filled up to the longest.
        row = tokenizer.encode_batch([options["prompt"] + text])[0]
        inputs = {
            "input_ids": row.ids,
            "attention_mask": row.attention_mask,
            "token_type_ids": row.type_ids,
        }
        request.infer({name: np.array([inputs[name]], dtype=np.int64) for name in wanted})
        made: npt.NDArray[np.float32] = request.get_output_tensor().data[0].copy()
        return made

    for tokens in range(BUCKET, min(READY_TOKENS, options["max_tokens"]) + 1, BUCKET):
        request.infer({name: np.ones((1, tokens), dtype=np.int64) for name in wanted})
    return lambda texts: np.stack([vector(text) for text in texts])


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
    import openvino
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(source), device="cpu").eval()
    graph = folder / "model.onnx"
    write_graph(model, graph)
    openvino.save_model(openvino.Core().read_model(graph), folder / MODEL, compress_to_fp16=True)
    graph.unlink()
    tokenizer = model.tokenizer
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    options = {
        "max_tokens": model.max_seq_length,
        "pad_id": tokenizer.pad_token_id,
        "pad_token": tokenizer.pad_token,
        "prompt": model.prompts.get(model.default_prompt_name or "") or "",
    }
    (folder / OPTIONS).write_text(json.dumps(options), encoding="utf-8")
    _compare(load(folder, "f32"), model.encode(PROBES, convert_to_numpy=True))


def write_graph(model: Any, path: Path) -> None:
    """A SentenceTransformer as an ONNX file: from token ids, shape (texts, tokens), to vectors."""
    import torch

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
        str(path),
        input_names=list(features),
        output_names=["vectors"],
        dynamo=True,
        dynamic_shapes=(tuple({0: texts, 1: tokens} for _ in features),),
        external_data=False,
        verbose=False,
    )


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
