"""One local model server in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
) -> int:
    """Serve until SIGTERM or SIGINT; returns the process's exit code.

    `model` None is the packaged SmolLM2. `ctx`: tokens of one call, prompt and answer. `parallel`
    (llama): calls decoded together. `threads` None: every core. `extra_args` go to vLLM.
    `exit_with_parent`: end when standard input closes or the parent is gone.
    Raises `ConfigurationError`.
    """
    if backend == "llama":
        return _llama(
            model, host, port, alias, ctx, parallel, threads, extra_args, exit_with_parent
        )
    if backend != "vllm":
        raise ConfigurationError(f"there is no engine '{backend}': llama and vllm are the two")
    if parallel is not None:
        raise ConfigurationError("the number of slots is llama's; vLLM takes --max-num-seqs")
    from app.engine.llama import refuse_taken_port
    from app.engine.vllm import run_vllm

    refuse_taken_port(host, port)
    if exit_with_parent:
        end_with_parent()
    return run_vllm(
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


def _llama(
    model: str | None,
    host: str,
    port: int,
    alias: str | None,
    ctx: int | None,
    parallel: int | None,
    threads: int | None,
    extra_args: Sequence[str],
    exit_with_parent: bool,
) -> int:
    from app.engine.llama import DEFAULT_SLOTS, run_llama

    if extra_args:
        raise ConfigurationError(f"the llama engine has no option {extra_args[0]}")
    if exit_with_parent:
        end_with_parent()
    return run_llama(
        model,
        host=host,
        port=port,
        alias=alias,
        ctx=ctx,
        parallel=parallel or DEFAULT_SLOTS,
        threads=threads,
    )
