"""SmolLM2, or any GGUF file, served by llama.cpp (xllamacpp) inside this process.

What a client of it has to know (measured with xllamacpp 2026.10.11549):
- Log-probabilities come only with `top_logprobs` of at least 1.
- After a streamed answer the connection may be closed without a word; the next request on it
  fails before any byte and can be repeated at once.
- A client that goes away ends a streamed call within a token. One that is not streamed runs on
  while other calls are under way.
- A prompt that is too long is refused with 400; a limit that is too large is cut to what fits.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from typing import Any, NoReturn

from app.engine.address import refuse_taken_port
from app.engine.models import Gguf, find_gguf
from app.exceptions import ConfigurationError

DEFAULT_SLOTS = 4
"""Calls decoded together. Eight give 11% more tokens a second on 2 cores, for 60% more memory."""
_BATCH = 64
"""Prompt tokens per step. A step can't be interrupted: this keeps a cancelled prompt and the other
calls' tokens waiting for about 0.3 s on 2 cores; larger steps are 8% faster at most."""
_PROMPT_CACHE_MIB = 256
"""Prefixes of earlier prompts kept outside the slots; llama.cpp's own default is 8 GiB."""
_WARNINGS = 2
_STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def check_llama(model: str | None) -> Gguf:
    """The model that `run_llama` would serve. Raises `ConfigurationError` if it can't."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise ConfigurationError(
            "the embedded engine is not installed: run `pip install 'ttcl[local]'`, or set "
            "TTCL_UPSTREAM_BASE_URL to a model server of your own"
        )
    return find_gguf(model)


def run_llama(
    model: str | None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    alias: str | None = None,
    ctx: int | None = None,
    parallel: int = DEFAULT_SLOTS,
    threads: int | None = None,
) -> NoReturn:
    """Serve until SIGTERM or SIGINT, then end this process with code 0, open calls or not.

    `ctx` is tokens per call (prompt and answer), of which `parallel` are held in memory; None: 4096
    for the packaged model, else what the model was trained for. `port` 0 takes a free one. Once
    ready, one JSON line goes to standard output: `{"event": "ready", "url", "model"}`.
    Raises `ConfigurationError`.
    """
    gguf = check_llama(model)
    refuse_taken_port(host, port)
    name = alias or gguf.name
    # Blocked before the server's threads are made, which inherit it: only sigwait takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    server = _start(gguf, name, host, port, (ctx or gguf.context or 0), parallel, threads)
    ready = {"event": "ready", "url": server.listening_address, "model": name}
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    signal.sigwait(_STOP_SIGNALS)
    # Not through the server's destructor, which waits half a minute for open streams.
    os._exit(0)


def _start(
    gguf: Gguf, name: str, host: str, port: int, ctx: int, parallel: int, threads: int | None
) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf.path)
    params.model_alias = {name}
    params.hostnames = [host]
    params.port = port
    params.n_parallel = parallel
    # llama.cpp divides it among the slots; 0 gives each what the model was trained for.
    params.n_ctx = ctx * parallel
    params.n_batch = params.n_ubatch = _BATCH
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads or _spare_cores()
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.ctx_shift = False
    params.cors_origins = ""
    params.ui = False
    params.verbosity = _WARNINGS
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise ConfigurationError(f"llama.cpp can't serve {gguf.path}: {error}") from error


def usable_cores() -> int:
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def _spare_cores() -> int:
    """All but one: llama.cpp's threads spin while they wait for each other, so that a single core
    shared with the gateway costs them most of their speed (measured: 117 tokens a second fall
    to 3 with two threads a core, to 23 with one)."""
    return max(1, usable_cores() - 1)
