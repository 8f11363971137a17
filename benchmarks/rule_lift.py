"""What each rule that a run has written is truly worth: held-out questions with it and without.

    python -m benchmarks.rule_lift runs/rules --data bank.jsonl --questions 30 --out runs/rules-lift

Of the questions in `--data` that the run has not asked, those nearest to a rule (to its text, or to
its trigger and the question that it was learned from, as retrieval finds it) are answered twice,
greedily: with the rule alone in the prompt and with none. `lift.jsonl` has a row for each rule,
`lift.md` the table by case, writer, agreement and what the gate made of it. Calls are kept in the
folder: a run that was stopped goes on.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer

from app.exceptions import ConfigurationError
from app.learning.drafts import retrieval_key
from app.loop.loop import Loop
from app.loop.reflect.equivalence import Equivalence
from app.settings import Settings, load_settings
from app.upstream.embeddings import Embedder
from app.upstream.types import ChatBackend
from app.wiring.factories import build_loop, load_prompts
from benchmarks.arms.base import PassQuestion, Repeat, Setting, observe
from benchmarks.callcache import PAUSES, CallCache
from benchmarks.data import load_task_data
from benchmarks.grading import Graders
from benchmarks.journal import Journal, read_rows
from benchmarks.report.document import Block, Heading, Paragraph, Table, to_markdown
from benchmarks.rundir import load_config, load_results
from benchmarks.runner import Item, read_gold
from benchmarks.session import FIXED_SETTINGS, Served, ready_embedder, served_model
from benchmarks.statistics import Interval, compare, mean_interval
from benchmarks.taskfile import TaskFile, load_task
from rules_store.models.rules import Polarity, RuleHit

ARM = "rule-lift"
_WRITTEN = frozenset({"created", "quarantined"})
_BY_GATE = frozenset({"promoted", "refuted", "demoted", "superseded"})
AGREED = (0.5, 0.75)
"""Shares between which agreement is told apart."""


@dataclass(frozen=True, slots=True)
class WrittenRule:
    """A rule of a run, and how it came about."""

    arm: str
    polarity: Polarity
    text: str
    trigger: str
    question: str
    """What it was learned from; its prompt."""
    case: str
    agreement: float | None
    written_by: str
    outcome: str
    """created or quarantined, or what the gate has made of it since."""

    @property
    def hit(self) -> RuleHit:
        return RuleHit("rule", self.polarity, self.text, self.trigger, 1.0)


@dataclass(frozen=True, slots=True)
class Lift:
    rule: WrittenRule
    questions: int
    without: float
    with_rule: float
    """Mean scores, in [0, 1]."""
    difference: Interval
    changed: int
    """Questions whose score is another one with the rule."""


# --- reading a run


def read_rules(folder: Path) -> list[WrittenRule]:
    """Of every arm and pass, each text once. Raises `ConfigurationError` where there are none."""
    prompts = {row["id"]: row["prompt"] for _, row in read_rows(folder / "questions.jsonl")}
    results = {
        (row["arm"], row["seed"], row["order"], row["id"]): row for row in load_results(folder)
    }
    found: dict[tuple[str, str, str], WrittenRule] = {}
    for _, row in read_rows(folder / "rules.jsonl"):
        told = results.get((row["arm"], row["seed"], row["order"], row["id"]), {})
        for rule in row["rules"]:
            key = (row["arm"], rule["polarity"], rule["text"])
            if rule["outcome"] in _BY_GATE and key in found:
                found[key] = dataclasses.replace(found[key], outcome=rule["outcome"])
            if rule["outcome"] in _WRITTEN and key not in found:
                agreement = rule.get("agreement", told.get("agreement"))
                found[key] = WrittenRule(
                    row["arm"],
                    Polarity(rule["polarity"]),
                    rule["text"],
                    rule["trigger"],
                    prompts[row["id"]],
                    rule.get("case") or told.get("case") or "not known",
                    agreement,
                    rule.get("written_by") or "not known",
                    rule["outcome"],
                )
    if not found:
        raise ConfigurationError(f"{folder} has written no rules")
    return list(found.values())


# --- measuring


class LiftMeter:
    """Replays of rules on held-out questions."""

    def __init__(
        self, setting: Setting, loop: Callable[[str], Loop], items: Sequence[Item]
    ) -> None:
        """`loop`: makes one whose calls are of that scope."""
        self._setting = setting
        self._loop = loop
        self._items = items
        self._rows: asyncio.Task[np.ndarray] | None = None
        self._known: dict[tuple[str, str], asyncio.Task[float]] = {}
        """By question and rule: each is answered once."""

    async def lift(self, rule: WrittenRule, most: int) -> Lift:
        """On the `most` questions nearest to it."""
        items = await self._near(rule, most)
        without = await asyncio.gather(*(self._score(item, None) for item in items))
        with_rule = await asyncio.gather(*(self._score(item, rule) for item in items))
        before, after = (np.array(each, dtype=np.float64)[:, None] for each in (without, with_rule))
        compared = compare(after, before, graded=True)
        return Lift(
            rule,
            len(items),
            float(before.mean()),
            float(after.mean()),
            compared.difference,
            compared.wins + compared.losses,
        )

    async def _near(self, rule: WrittenRule, most: int) -> list[Item]:
        if self._rows is None:
            prompts = [item.question.prompt for item in self._items]
            self._rows = asyncio.ensure_future(self._embedded(prompts))
        rows = await self._rows
        keys = await self._embedded([rule.text, retrieval_key(rule.trigger, rule.question)])
        cosines = (rows @ keys.T).max(axis=1)
        return [self._items[at] for at in np.argsort(-cosines, kind="stable")[:most]]

    async def _embedded(self, texts: list[str]) -> np.ndarray:
        return np.stack(list(await self._setting.embedder.embed(texts)))

    async def _score(self, item: Item, rule: WrittenRule | None) -> float:
        key = (item.question.id, "" if rule is None else f"{rule.polarity}\n{rule.text}")
        if key not in self._known:
            self._known[key] = asyncio.ensure_future(self._answered(item, rule))
        return await self._known[key]

    async def _answered(self, item: Item, rule: WrittenRule | None) -> float:
        asked = PassQuestion(item.question.id, item.question.prompt, 0)
        hits = () if rule is None else (rule.hit,)
        observation = observe(self._setting, Repeat(0, 0), asked, arm=ARM, hits=hits)
        answer = await self._loop(observation.episode_id).replay(observation)
        if self._setting.calls.broken is not None:
            raise self._setting.calls.broken
        return float((await item.gold.grade(answer.text)).score)


# --- writing


def agreed(lift: Lift) -> str:
    share = lift.rule.agreement
    if share is None:
        return "none to tell"
    low, high = AGREED
    return f"over {high:g}" if share > high else f"to {high:g}" if share > low else f"to {low:g}"


GROUPS: dict[str, Callable[[Lift], str]] = {
    "case": lambda lift: lift.rule.case,
    "written by": lambda lift: lift.rule.written_by,
    "agreement": agreed,
    "gate": lambda lift: lift.rule.outcome,
    "arm": lambda lift: lift.rule.arm,
    "polarity": lambda lift: lift.rule.polarity.value,
}


def document(lifts: Sequence[Lift], task: str, model: str) -> str:
    """The tables; intervals of a group are a bootstrap over its rules."""
    blocks: list[Block] = [
        Heading(f"What rules are worth: {task} with {model}", 1),
        Paragraph(
            "Held-out questions near each rule, answered greedily with it and without. Lift in "
            "points; helped and harmed are rules with a lift above and below zero. The interval of "
            "a group is a bootstrap over its rules, that of a rule over its questions."
        ),
    ]
    for name, group in GROUPS.items():
        groups = sorted({group(lift) for lift in lifts})
        rows = [_row(each, [lift for lift in lifts if group(lift) == each]) for each in groups]
        blocks += [
            Heading(f"By {name}"),
            Table([name, "rules", "lift (95% interval)", "helped", "harmed", "no change"], rows),
        ]
    ranked = sorted(lifts, key=lambda lift: -lift.difference.mean)
    head = ["rule", "case", "gate", "questions", "without", "with", "lift (95% interval)"]
    blocks += [Heading("Each rule"), Table(head, [_of_rule(lift) for lift in ranked])]
    return to_markdown(blocks)


def _row(name: str, lifts: Sequence[Lift]) -> list[str]:
    means = np.array([lift.difference.mean for lift in lifts])
    found = mean_interval(means)
    same = sum(lift.changed == 0 for lift in lifts)
    helped, harmed = int((means > 0).sum()), int((means < 0).sum())
    return [name, str(len(lifts)), _points(found), str(helped), str(harmed), str(same)]


def _of_rule(lift: Lift) -> list[str]:
    rule = lift.rule
    scores = [f"{value:.3f}" for value in (lift.without, lift.with_rule)]
    head = [f"{rule.polarity.value}: {rule.text}", rule.case, rule.outcome, str(lift.questions)]
    return [*head, *scores, _points(lift.difference)]


def _points(value: Interval) -> str:
    return f"{100 * value.mean:+.1f} ({100 * value.low:+.1f} to {100 * value.high:+.1f})"


async def measure(
    folder: Path,
    data: str,
    out: Path,
    settings: Settings,
    *,
    questions: int,
    most: int | None = None,
    parallel: int = 8,
    backend: ChatBackend | None = None,
    embedder: Embedder | None = None,
) -> list[Lift]:
    """Of all rules of a run (the first `most`). `backend`, `embedder`: instead of those that the
    settings name, for tests. Raises `TTCLError`."""
    config = load_config(folder)
    rules = read_rules(folder)[:most]
    task, held_out = _held_out(folder, config, data)
    settings = settings.changed(**FIXED_SETTINGS)
    async with AsyncExitStack() as stack:
        graders = Graders(task.bertscore)
        stack.push_async_callback(graders.close)
        items, _ = await read_gold(held_out, graders)
        if backend is None:
            served = await stack.enter_async_context(served_model(settings, None))
        else:
            served = Served(backend, config["model"], "in this process")
        if embedder is None:
            embedder = await stack.enter_async_context(ready_embedder(settings))
        journal = _journal(out)
        stack.callback(journal.close)
        calls = CallCache(served.backend, journal, parallel=parallel, pauses=PAUSES)
        stack.push_async_callback(calls.close)
        equivalence = Equivalence()
        stack.push_async_callback(equivalence.close)
        prompts = load_prompts(settings)
        setting = Setting(
            served.model, task, settings, prompts, embedder, equivalence, calls, out / "scratch"
        )

        def loop(scope: str) -> Loop:
            return build_loop(settings, calls.scoped(scope), embedder, equivalence, prompts)

        meter = LiftMeter(setting, loop, items)
        lifts = await asyncio.gather(*(meter.lift(rule, questions) for rule in rules))
    _write(lifts, out, task, served.model)
    return lifts


def _journal(out: Path) -> Journal:
    out.mkdir(parents=True, exist_ok=True)
    return Journal(out / "calls.jsonl")


def _held_out(folder: Path, config: dict[str, Any], data: str) -> tuple[TaskFile, list[Any]]:
    name = config["task"]["name"]
    limit = config["task"]["max_tokens"]
    task, every = load_task_data(load_task(name), task_name=name, data=data, limit=None)
    asked = {row["prompt"] for _, row in read_rows(folder / "questions.jsonl")}
    held_out = [each for each in every if each.prompt not in asked]
    if not held_out:
        raise ConfigurationError(f"{folder} has asked all questions of {data}: none is held out")
    return task.model_copy(update={"max_tokens": limit}), held_out


def _write(lifts: Sequence[Lift], out: Path, task: TaskFile, model: str) -> None:
    rows = (orjson.dumps(dataclasses.asdict(lift)) + b"\n" for lift in lifts)
    (out / "lift.jsonl").write_bytes(b"".join(rows))
    (out / "lift.md").write_text(document(lifts, task.name, model), encoding="utf-8")


def main(
    run: Annotated[Path, typer.Argument(help="Folder of a run that has written rules")],
    data: Annotated[str, typer.Option(help="The task's data, with questions it has not asked")],
    out: Annotated[Path, typer.Option(help="Folder of what is found")],
    questions: Annotated[int, typer.Option(min=2, help="Held-out questions a rule")] = 30,
    most: Annotated[int | None, typer.Option(min=1, help="Only the first rules")] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Model calls under way at most")] = 8,
    upstream: Annotated[str | None, typer.Option(help="Instead of the configured one")] = None,
) -> None:
    """Measure what each rule of a run is worth on questions that it has not seen."""
    given: dict[str, Any] = {} if upstream is None else {"upstream_base_url": upstream}
    settings = load_settings(**given)
    lifts = asyncio.run(
        measure(run, data, out, settings, questions=questions, most=most, parallel=parallel)
    )
    typer.echo(f"{len(lifts)} rules: {out / 'lift.md'}")


if __name__ == "__main__":
    typer.run(main)
