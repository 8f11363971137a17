"""One local model server in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from app.engine.standalone.lifetime import end_with_parent
from app.exceptions import ConfigurationError


def serve_engine(
    *,
    backend: str = "llama",
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8081,
    data_dir: Path = Path(".ttcl"),
    alias: str | None = None,
    ctx: int | None = None,
    parallel: int | None = None,
    threads: int | None = None,
    vllm_python: Path | None = None,
    extra_args: Sequence[str] = (),
    exit_with_parent: bool = False,
) -> NoReturn:
    """Serve until SIGTERM or SIGINT, which end this process; vLLM replaces it.

    `model` None is the packaged SmolLM2. `ctx`: tokens of one call, prompt and answer. `parallel`
    (llama): calls decoded together. `threads` None: every core. `extra_args` go to vLLM.
    `exit_with_parent`: end when standard input closes or the parent is gone.
    Raises `ConfigurationError`.
    """
    _refuse_mixture(backend, parallel, extra_args)
    if exit_with_parent:
        end_with_parent()
    if backend == "llama":
        from app.engine.llama import DEFAULT_SLOTS, run_llama

        run_llama(
            model,
            host=host,
            port=port,
            alias=alias,
            ctx=ctx,
            parallel=parallel or DEFAULT_SLOTS,
            threads=threads,
        )
    from app.engine.vllm import run_vllm

    run_vllm(
        model,
        data_dir=data_dir,
        host=host,
        port=port,
        alias=alias,
        ctx=ctx,
        threads=threads,
        python=vllm_python,
        extra=extra_args,
        exit_with_parent=exit_with_parent,
    )


def _refuse_mixture(backend: str, parallel: int | None, extra_args: Sequence[str]) -> None:
    if backend not in ("llama", "vllm"):
        raise ConfigurationError(f"there is no engine '{backend}': llama and vllm are the two")
    if backend == "llama" and extra_args:
        raise ConfigurationError(f"the llama engine has no option {extra_args[0]}")
    if backend == "vllm" and parallel is not None:
        raise ConfigurationError("the number of slots is llama's: vLLM takes -- --max-num-seqs")
