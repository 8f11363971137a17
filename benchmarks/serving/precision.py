"""How coarse the embedder may compute: time for a vector against the neighbours that it finds.

    python -m benchmarks.serving.precision ../shared/data/*.jsonl

Half of the questions are stored, up to `--ask` of the others look for their three nearest. A form
of the packaged model is measured against its float32 graph, which has torch's vectors. Texts are
embedded one by one: dynamically quantised activations would depend on what stands beside them.
"""

from __future__ import annotations

import json
import logging
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from app.upstream import onnx_model
from app.upstream.embeddings import packaged_model

NEAREST = 3
Vectors = np.ndarray[Any, np.dtype[np.float32]]
Write = Callable[[Path, Path], None]


def main(
    data: Annotated[list[Path], typer.Argument(help="JSONL with a column question")],
    each: Annotated[int, typer.Option(help="Most questions of a file")] = 700,
    ask: Annotated[int, typer.Option(help="Most questions that look for others")] = 2000,
) -> None:
    logging.disable(logging.WARNING)
    exact = onnx_model.exported(packaged_model())
    if exact is None:
        raise typer.BadParameter("the packaged model can't be exported here")
    questions = [question for file in data for question in _questions(file)[:each]]
    random.Random(0).shuffle(questions)
    half = len(questions) // 2
    stored, asked = questions[:half], questions[half:][:ask]
    table = Table("precision", "ms of the processor", "recall of 3", "same nearest", "mean cosine")
    for column in table.columns[1:]:
        column.justify = "right"
    expected: tuple[Vectors, np.ndarray[Any, Any]] | None = None
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in _forms(exact, Path(scratch)):
            began = time.process_time()
            encode = onnx_model.load(folder)
            vectors = np.concatenate([_unit(encode([text])) for text in stored + asked])
            milliseconds = 1000 * (time.process_time() - began) / len(vectors)
            nearest = np.argsort(-(vectors[half:] @ vectors[:half].T), axis=1)[:, :NEAREST]
            if expected is None:
                expected = vectors, nearest
            table.add_row(name, f"{milliseconds:.1f}", *_against(expected, vectors, nearest))
    Console().print(f"{len(stored)} questions stored, {len(asked)} asked", table)


def _questions(file: Path) -> list[str]:
    return [str(json.loads(line)["question"]) for line in file.read_text("utf-8").splitlines()]


def _unit(rows: Vectors) -> Vectors:
    scaled: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def _against(
    expected: tuple[Vectors, np.ndarray[Any, Any]], vectors: Vectors, nearest: np.ndarray[Any, Any]
) -> tuple[str, str, str]:
    found = [len(set(a) & set(b)) / NEAREST for a, b in zip(nearest, expected[1], strict=True)]
    first = (nearest[:, 0] == expected[1][:, 0]).mean()
    cosine = (vectors * expected[0]).sum(axis=1).mean()
    return f"{np.mean(found):.3f}", f"{first:.3f}", f"{cosine:.4f}"


def _forms(exact: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Names and folders, the float32 graph first."""
    yield "float32", exact
    writers: dict[str, Write] = {
        "int8": _quantised(),
        "int8, each channel by itself": _quantised(per_channel=True),
        "int8, feed-forward layers float32": _attention_alone,
        "int8 weights in blocks of 32": _blocks,
    }
    for number, (name, write) in enumerate(writers.items()):
        folder = scratch / str(number)
        folder.mkdir()
        for file in ("tokenizer.json", onnx_model.OPTIONS):
            (folder / file).write_bytes((exact / file).read_bytes())
        write(exact / "model.onnx", folder / "model.onnx")
        yield name, folder


def _quantised(**options: Any) -> Write:
    def write(source: Path, target: Path) -> None:
        onnx_model.without_telemetry()
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
    onnx_model.without_telemetry()
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
