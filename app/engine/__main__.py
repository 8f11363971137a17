"""`python -m app.engine`: what the supervisor starts, and what `make engine-vllm` ends with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from app.engine.serve import serve_engine
from app.exceptions import ConfigurationError

UNUSABLE = 2
"""Exit code: the configuration can't work, and standard error ends with the sentence why."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    own, extra = _split(arguments)
    options = _parser().parse_args(own)
    try:
        if options.command == "prepare":
            return _prepare(options)
        serve_engine(
            backend=options.backend,
            model=options.model,
            host=options.host,
            port=options.port,
            data_dir=options.data_dir,
            alias=options.alias,
            ctx=options.ctx,
            parallel=options.parallel,
            threads=options.threads,
            vllm_python=options.vllm_python,
            extra_args=extra,
            exit_with_parent=options.exit_with_parent,
        )
    except ConfigurationError as error:
        sys.stderr.write(f"ttcl engine: {error}\n")
        return UNUSABLE


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What comes before `--` is ours, what comes after it is vLLM's."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _prepare(options: argparse.Namespace) -> int:
    from app.engine.vllm import check_vllm, prepare_model, say

    python = check_vllm(options.model, options.vllm_python)
    model = prepare_model(options.model, data_dir=options.data_dir, python=python)
    say(f"vLLM is ready to serve {model.name} from {model.source}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app.engine", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run a model server until it is stopped")
    serve.add_argument("--backend", choices=("llama", "vllm"), default="llama")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8081)
    serve.add_argument("--alias", help="model name for clients")
    serve.add_argument("--ctx", type=int, help="tokens of one call, prompt and answer")
    serve.add_argument("--parallel", type=int, help="llama: calls decoded together")
    serve.add_argument("--threads", type=int, help="CPU threads")
    serve.add_argument("--exit-with-parent", action="store_true", help="end when stdin closes")
    prepare = commands.add_parser("prepare", help="convert the model for vLLM")
    for command in (serve, prepare):
        command.add_argument("--model", help="GGUF file, or folder or hub name for vLLM")
        command.add_argument("--data-dir", type=Path, default=Path(".ttcl"))
        command.add_argument("--vllm-python", type=Path, help="interpreter that has vLLM")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
