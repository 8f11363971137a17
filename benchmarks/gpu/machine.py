"""The work folder on the GPU machine: packages, model, data. Standard library only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.pieces import Joiner, PackedFile, read_manifest
from benchmarks.gpu.steps import Sitting

ROOT = Path(__file__).parents[2]
_CONVERTER = ROOT / "app" / "engine" / "standalone" / "convert_gguf.py"


@dataclass(frozen=True, slots=True)
class Machine:
    """What `unpack` laid into the folder `work`."""

    work: Path

    @property
    def model_file(self) -> Path:
        """The GGUF file. Raises FileNotFoundError."""
        found = sorted((self.work / "model").glob("*.gguf"))
        if len(found) != 1:
            raise FileNotFoundError(f"{self.work / 'model'} holds {len(found)} of *.gguf: unpack")
        return found[0]

    @property
    def model_name(self) -> str:
        return self.model_file.stem

    def data(self, name: str) -> Path:
        return self.work / "data" / name

    def weights(self, *, dummy: bool = False) -> Path:
        """The folder that vLLM loads."""
        return self.work / ("model-config" if dummy else "model-bf16")

    def environment(self, packages: str, given: Mapping[str, str]) -> dict[str, str]:
        """`given`, with this checkout and one folder of packages in front of the image's."""
        paths = [str(ROOT), str(self.work / packages), given.get("PYTHONPATH", "")]
        return {
            **given,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "HF_HUB_OFFLINE": "1",
        }


def unpack(pack: Path, work: Path, sitting: Sitting) -> bool:
    """Take in the pieces that lie in `pack` and install what is whole by now. Whether all is there.

    May be called as often as pieces arrive. Raises `BrokenPack`, `CalledProcessError`.
    """
    files, _about = read_manifest(pack)
    joiner = Joiner(work, files)
    with sitting.step("join") as row:
        row["taken"] = joiner.take(pack)
        row["missing"] = len(joiner.missing())
    for file in files:
        if file.name.endswith(".tar") and joiner.complete(file):
            _install(joiner.path(file), file, work, sitting)
    return not joiner.missing()


def _install(archive: Path, file: PackedFile, work: Path, sitting: Sitting) -> None:
    target = work / Path(file.name).stem
    if target.is_dir():
        return
    with sitting.step(f"install {target.name}"):
        partial, wheels = work / f".{target.name}", work / f".{target.name}-wheels"
        for folder in (partial, wheels):
            shutil.rmtree(folder, ignore_errors=True)
        with tarfile.open(archive) as tar:
            tar.extractall(wheels, filter="data")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        options = ["--no-compile", "--disable-pip-version-check", "--target", str(partial)]
        found = [str(wheel) for wheel in sorted(wheels.iterdir())]
        subprocess.run([*pip, *options, *found], check=True, stdout=sys.stderr)
        shutil.rmtree(wheels)
        partial.rename(target)


def convert(machine: Machine, sitting: Sitting, *, dummy: bool) -> Path:
    """The model as bfloat16 safetensors; `dummy`: configuration and tokenizer without weights, for
    checks of the engine while the weights are still on their way."""
    folder = machine.weights(dummy=dummy)
    if not folder.is_dir():
        with sitting.step("configure" if dummy else "convert"):
            more = ["--dtype", "bfloat16"]
            if dummy:
                more.append("--without-weights")
            elif machine.weights(dummy=True).is_dir():
                more += ["--tokenizer", str(machine.weights(dummy=True))]
            command = [sys.executable, str(_CONVERTER), str(machine.model_file), str(folder), *more]
            environment = {**machine.environment("vllm", os.environ), "TQDM_DISABLE": "1"}
            subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
    return folder
