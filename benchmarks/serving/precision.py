"""How coarse the embedder may compute: time for a vector against the neighbours that it finds.

    python -m benchmarks.serving.precision ../shared/data/*.jsonl

Half of the questions are stored, up to `--ask` of the others look for their three nearest. Forms of
the packaged model are measured against its float32 vectors, which are torch's. Texts are embedded
one by one: dynamically quantised activations would depend on what stands beside them.

The int8 forms run on ONNX Runtime. The static one is made by model2vec out of the same model, where
that is installed (`pip install --no-deps model2vec skeletoken`): a vector for each token, and a
text has the mean of its tokens' vectors.
"""

from __future__ import annotations

import json
import logging
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from app.upstream import exported_model
from app.upstream.embeddings import packaged_model
from app.upstream.exported_model import Encode

NEAREST = 3
Vectors = np.ndarray[Any, np.dtype[np.float32]]
Write = Callable[[Path, Path], None]
_MIXED = "asked in bfloat16, stored in float32"


def main(
    data: Annotated[list[Path], typer.Argument(help="JSONL with a column question")],
    each: Annotated[int, typer.Option(help="Most questions of a file")] = 700,
    ask: Annotated[int, typer.Option(help="Most questions that look for others")] = 2000,
    int8: Annotated[bool, typer.Option(help="Also the int8 forms, which takes minutes")] = True,
) -> None:
    logging.disable(logging.WARNING)
    # ONNX Runtime's builds tell Microsoft what they load, unless they find this.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    folder = exported_model.exported(packaged_model())
    if folder is None:
        raise typer.BadParameter("the packaged model can't be exported here")
    questions = [question for file in data for question in _questions(file)[:each]]
    random.Random(0).shuffle(questions)
    half = len(questions) // 2
    stored, asked = questions[:half], questions[half:][:ask]
    table = Table("precision", "ms of the processor", "recall of 3", "same nearest", "mean cosine")
    for column in table.columns[1:]:
        column.justify = "right"
    exact: Vectors | None = None
    with tempfile.TemporaryDirectory() as scratch:
        for name, encode in _forms(folder, Path(scratch) if int8 else None):
            began = time.process_time()
            vectors = np.concatenate([_unit(encode([text])) for text in stored + asked])
            spent = f"{1000 * (time.process_time() - began) / len(vectors):.1f}"
            if exact is None:
                exact = vectors
            table.add_row(name, spent, *_against(exact, vectors[:half], vectors[half:]))
            if name == "bfloat16":
                # As with two gateways on one store, of which one has such a processor.
                table.add_row(_MIXED, "", *_against(exact, exact[:half], vectors[half:]))
    Console().print(f"{len(stored)} questions stored, {len(asked)} asked", table)


def _questions(file: Path) -> list[str]:
    return [str(json.loads(line)["question"]) for line in file.read_text("utf-8").splitlines()]


def _unit(rows: Vectors) -> Vectors:
    scaled: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def _against(exact: Vectors, stored: Vectors, asked: Vectors) -> tuple[str, str, str]:
    half = len(stored)
    expected, nearest = _nearest(exact[:half], exact[half:]), _nearest(stored, asked)
    found = [len(set(a) & set(b)) / NEAREST for a, b in zip(nearest, expected, strict=True)]
    first = (nearest[:, 0] == expected[:, 0]).mean()
    if asked.shape[1] != exact.shape[1]:
        return f"{np.mean(found):.3f}", f"{first:.3f}", ""
    cosine = (asked * exact[half:]).sum(axis=1).mean()
    return f"{np.mean(found):.3f}", f"{first:.3f}", f"{cosine:.5f}"


def _nearest(stored: Vectors, asked: Vectors) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = np.argsort(-(asked @ stored.T), axis=1)[:, :NEAREST]
    return found


def _forms(folder: Path, scratch: Path | None) -> Iterator[tuple[str, Encode]]:
    """The float32 one first; with a folder to write to also the int8 ones."""
    yield "float32", exported_model.load(folder, "f32")
    yield "bfloat16", exported_model.load(folder, "bf16")
    if scratch is not None:
        yield from _of_eight_bits(folder, scratch)
    if find_spec("model2vec") is not None:
        yield "static (model2vec)", _static()


def _static() -> Encode:
    from model2vec.distill import distill

    model = distill(packaged_model(), pca_dims=256)
    return lambda texts: np.asarray(model.encode(texts), dtype=np.float32)


def _of_eight_bits(folder: Path, scratch: Path) -> Iterator[tuple[str, Encode]]:
    from sentence_transformers import SentenceTransformer

    graph, made = scratch / "model.onnx", scratch / "made.onnx"
    exported_model.write_graph(SentenceTransformer(packaged_model(), device="cpu").eval(), graph)
    writers: dict[str, Write] = {
        "int8": _quantised(),
        "int8, each channel by itself": _quantised(per_channel=True),
        "int8, feed-forward layers float32": _attention_alone,
        "int8 weights in blocks of 32": _blocks,
    }
    for name, write in writers.items():
        write(graph, made)
        yield name, _on_onnxruntime(made, folder)


def _on_onnxruntime(graph: Path, folder: Path) -> Encode:
    # From 1.29 on its builds for Linux, too, tell their makers what they load.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    options = json.loads((folder / exported_model.OPTIONS).read_text(encoding="utf-8"))
    tokenizer.enable_truncation(options["max_tokens"])
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), settings, providers=["CPUExecutionProvider"])
    wanted = [each.name for each in session.get_inputs()]

    def encode(texts: list[str]) -> Vectors:
        row = tokenizer.encode(texts[0])
        given = {
            "input_ids": row.ids,
            "attention_mask": row.attention_mask,
            "token_type_ids": row.type_ids,
        }
        feed = {name: np.array([given[name]], dtype=np.int64) for name in wanted}
        made: Vectors = session.run(None, feed)[0]
        return made

    return encode


def _quantised(**options: Any) -> Write:
    def write(source: Path, target: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(str(source), str(target), weight_type=QuantType.QInt8, **options)

    return write


def _attention_alone(source: Path, target: Path) -> None:
    """The feed-forward layers' inputs have outliers, which eight bits for all of a text can't
    hold: they are the matrices that are not square."""
    import onnx

    graph = onnx.load(source).graph
    shapes = {each.name: tuple(each.dims) for each in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    wide = [
        node.name
        for node in products
        if any(len(set(shapes.get(name, ()))) == 2 for name in node.input)
    ]
    _quantised(per_channel=True, op_types_to_quantize=["MatMul"], nodes_to_exclude=wide)(
        source, target
    )


def _blocks(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    int8_arithmetic = 4
    quantiser = MatMulNBitsQuantizer(
        onnx.load(source), bits=8, block_size=32, is_symmetric=True, accuracy_level=int8_arithmetic
    )
    quantiser.process()
    quantiser.model.save_model_to_file(str(target), False)


if __name__ == "__main__":
    typer.run(main)
