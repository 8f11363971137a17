"""`ttcl rules`: the rules in the store, read and tidied up where they are stored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from app.cli import namespaces
from app.cli.common import (
    Actor,
    AsJson,
    Namespace,
    Reason,
    add_row,
    embedding_of,
    err,
    lift_of,
    loaded_if_needed,
    out,
    print_json,
    read_lines,
    say_pruned,
    show_history,
    table,
    with_store,
    write_lines,
)
from app.exceptions import InvalidRequest
from app.loop.steer.budget import TokenCounter
from app.loop.steer.explain import Explainer, Question
from app.loop.steer.explain import Explanation as FoundExplanation
from app.settings import Settings, load_settings
from app.wiring.factories import (
    build_embedder,
    build_retriever,
    build_writer,
    load_prompts,
    opened_store,
)
from rules_store.errors import UnknownNamespace
from rules_store.models.events import Change
from rules_store.models.evidence import Standing
from rules_store.models.namespaces import MOST_EXAMPLES
from rules_store.models.paging import Page
from rules_store.models.rules import Polarity, Rule, RuleFilter, RuleState
from rules_store.operations.curation import PruneOrder, PrunePlan, PrunePolicy
from rules_store.store import RuleStore

app = typer.Typer(no_args_is_help=True, help="Look at the rules in the store, and tidy them up.")

SHOWN = 30
"""Rows of a preview for people; JSON has them all."""


@app.command("prune")
def prune(
    namespace: str,
    policy: Annotated[PrunePolicy, typer.Option(help="Which rules go first")],
    most: Annotated[int | None, typer.Option("--max", min=0, help="Active rules that stay")] = None,
    older_than_days: Annotated[float | None, typer.Option(min=0, help="For the policy age")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only show which rules would go")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    actor: Actor = "cli",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Retire rules of a namespace by a policy: shows which, asks, and does exactly that."""
    try:
        order = PruneOrder(namespace, policy, keep=most, older_than_days=older_than_days)
    except ValueError as error:
        raise InvalidRequest(f"--policy: {error} (--max, --older-than-days)") from error

    plan = with_store(lambda store: store.curation.plan_prune(order))
    _show_pruned(plan, as_json)
    if dry_run or not plan.victims:
        return
    if not yes:
        typer.confirm(f"Retire these {len(plan.victims)} rules?", abort=True, err=True)
    # The token makes it these rules or none, whatever was written since.
    token = plan.token
    with_store(lambda store: store.curation.prune(order, token=token, change=Change(actor, reason)))
    err.print(f"{len(plan.victims)} rules retired; each can be restored")


def _show_pruned(plan: PrunePlan, as_json: bool) -> None:
    if as_json:
        for victim in plan.victims:
            print_json({"id": victim.rule.id, "text": victim.rule.text, "reason": victim.reason})
        return
    shown = table("id freq used why rule")
    for victim in plan.victims[:SHOWN]:
        rule = victim.rule
        add_row(shown, rule.id, rule.frequency, rule.exposures, victim.reason, rule.text)
    out.print(shown)
    say_pruned(plan, "rules", shown=SHOWN)


@app.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(help="Unset: standard output")] = None,
    namespace: Namespace = None,
    polarity: Annotated[Polarity | None, typer.Option()] = None,
    state: Annotated[RuleState | None, typer.Option()] = None,
    vectors: Annotated[bool, typer.Option(help="An import then embeds nothing")] = True,
) -> None:
    """Write rules as JSON lines."""
    from app.api.rules_jsonl import export_lines

    where = RuleFilter(namespace=namespace, polarity=polarity, state=state)

    written = write_lines(file, lambda store: export_lines(store, where, vectors=vectors))
    err.print(f"{written} rules")


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="JSON lines, as `export` writes them; - is stdin")],
    namespace: Annotated[str | None, typer.Option(help="Instead of the lines' own")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only tell what would happen")] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Their evidence counts: what steered steers at once")
    ] = False,
    actor: Actor = "cli",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Take rules in from JSON lines. Exit code 1 when a line was refused.

    Under the policy gated an imported rule proves itself anew, unless you trust where it was."""
    from app.api.jsonl import Order
    from app.api.rules_jsonl import import_lines
    from app.api.schemas.rules import Import

    content = read_lines(file, namespace)
    order = Order(namespace, dry_run, actor, reason)
    embedder = build_embedder(load_settings())

    async def import_all(store: RuleStore) -> Import:
        async with loaded_if_needed(embedder, store, content):
            return await import_lines(store, embedder, content, order, trust=trust)

    report = with_store(import_all)
    if as_json:
        print_json(report.model_dump(mode="json", exclude={"object"}))
    else:
        for refused in report.refused:
            err.print(f"line {refused.line}: {refused.reason}", markup=False)
        for warned in report.warnings:
            checks = ", ".join(warned.checks)
            err.print(f"line {warned.line}: taken in, but suspect: {checks}", markup=False)
        out.print(
            f"{report.imported} imported, {report.skipped} there already, "
            f"{len(report.refused)} refused, {len(report.evicted)} retired for capacity"
            + (" (dry run)" if dry_run else "")
        )
        if report.unembedded:
            err.print(f"{report.unembedded} rules wait for a running gateway to embed them")
    raise SystemExit(1 if report.refused else 0)


@app.command("history")
def history(
    rule_id: str,
    limit: Annotated[int, typer.Option(min=1, help="Most events shown")] = 50,
    as_json: AsJson = False,
) -> None:
    """What happened to a rule, newest first."""
    show_history(with_store(lambda store: store.rules.history(rule_id, limit=limit)), as_json)


@app.command("explain")
def explain(
    text: Annotated[str, typer.Argument(help="A question, as a user would ask it")],
    namespace: Annotated[str | None, typer.Option(help="Unset: the configured default")] = None,
    domain: Annotated[str, typer.Option(help="Whose prompts")] = "default",
    max_positive: Annotated[int | None, typer.Option(min=0, max=30)] = None,
    max_negative: Annotated[int | None, typer.Option(min=0, max=30)] = None,
    max_examples: Annotated[int | None, typer.Option(min=0, max=MOST_EXAMPLES)] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of a kind are judged")] = 20,
    as_json: AsJson = False,
) -> None:
    """Which rules and examples a question would get, which not and why. Loads the embedding model;
    tokens are estimated, since no model server is asked."""
    from app.api.schemas.rules import Explanation

    settings = load_settings()
    space = namespace or settings.namespace
    if not text.strip():
        raise InvalidRequest("TEXT: there is no question to find rules by")
    asked = {"positive": max_positive, "negative": max_negative, "examples": max_examples}
    found = asyncio.run(_explained(settings, text, space, domain, asked, limit))
    if as_json:
        print_json(Explanation.of(found, namespace=space))
        return
    _show_explanation(found)


def _show_explanation(found: FoundExplanation) -> None:
    shown = table("id similarity verdict polarity rule why")
    for each in found.candidates:
        similarity = f"{each.similarity:.3f}"
        polarity = each.polarity.value
        add_row(shown, each.id, similarity, each.verdict.value, polarity, each.text, each.reason)
    out.print(shown)
    if found.examples:
        shown = table("id similarity verdict trust question answer why")
        for one in found.examples:
            similarity, trust = f"{one.similarity:.3f}", one.trust.value
            texts = (one.question, one.answer, one.reason)
            add_row(shown, one.id, similarity, one.verdict.value, trust, *texts)
        out.print(shown)
    if len(found.decision.choices) > 1:
        shown = table("given expected low high outcomes")
        for choice in found.decision.choices:
            belief = choice.belief
            numbers = (f"{value:.2f}" for value in (belief.mean, belief.low, belief.high))
            add_row(shown, choice.given.value, *numbers, f"{belief.size:.1f}")
        out.print(shown)
        out.print(
            f"Given: {found.decision.given.value}; drawn for instead in "
            f"{found.decision.exploring:.0%} of the requests."
        )
    for message in found.messages:
        out.print(f"\n[bold]{message['role']}[/bold]")
        out.print(message["content"], markup=False)


class _Estimates:
    """Stands in for a model server that does not count tokens."""

    async def count_tokens(self, model: str, text: str, *, seconds: float = 0.0) -> int | None:
        return None


async def _explained(
    settings: Settings,
    text: str,
    namespace: str,
    domain: str,
    asked: dict[str, int | None],
    limit: int,
) -> FoundExplanation:
    prompts = load_prompts(settings)
    embedder = build_embedder(settings)
    async with opened_store(settings) as store:
        if not await store.namespaces.exists(namespace):
            raise UnknownNamespace(namespace)
        retriever = build_retriever(settings, store, embedder)
        counter = TokenCounter(_Estimates())
        writer = build_writer(settings, prompts, store)
        explainer = Explainer(store, retriever, counter, writer, settings.experience_token_budget)
        own = store.namespaces.settings_of(namespace)
        limits = settings.limits(own, **asked)
        vector = await embedding_of(embedder, text)
        question = Question(
            namespace=namespace,
            messages=[{"role": "user", "content": text}],
            vector=vector,
            limits=limits,
            domain=domain,
            model="",
            context=None,
        )
        return await explainer.explain(question, limit)


app.command("rollback")(namespaces.rollback)


@app.command("list")
def rules_list(
    namespace: Namespace = None,
    polarity: Annotated[Polarity | None, typer.Option()] = None,
    state: Annotated[RuleState | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rules shown")] = 50,
    as_json: AsJson = False,
) -> None:
    """List rules, newest first."""
    where = RuleFilter(namespace=namespace, polarity=polarity, state=state)
    _show(_page(where, limit), as_json)


@app.command("search")
def rules_search(
    text: Annotated[str, typer.Argument(help="Text in the rule or its trigger")],
    namespace: Namespace = None,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """Find rules by text."""
    _show(_page(RuleFilter(namespace=namespace, text=text), limit), as_json)


@app.command("show")
def rules_show(rule_id: str, as_json: AsJson = False) -> None:
    """One rule with its history."""
    from app.api.schemas.rules import RuleWithHistory

    async def read(store: RuleStore) -> RuleWithHistory:
        rule = await store.rules.get(rule_id)
        events = await store.rules.events(rule_id)
        known = await store.evidence.standings_of([rule_id])
        return RuleWithHistory.of(rule, known.get(rule_id), history=events)

    shown = with_store(read)
    if as_json:
        print_json(shown)
        return
    for key, value in shown.model_dump(mode="json", exclude={"history"}).items():
        out.print(f"[bold]{key:>15}[/bold]  ", end="")
        out.print(str(value), markup=False)
    for event in shown.history:
        line = f"{event.at.isoformat()}  {event.kind}  by {event.actor}  {event.reason or ''}"
        out.print(line, markup=False)


def _page(where: RuleFilter, limit: int) -> tuple[Page, dict[str, Standing]]:
    async def read(store: RuleStore) -> tuple[Page, dict[str, Standing]]:
        page = await store.rules.list(where, limit=limit)
        return page, await store.evidence.standings_of([rule.id for rule in page.items])

    return with_store(read)


def _show(found: tuple[Page, dict[str, Standing]], as_json: bool) -> None:
    page, known = found
    rules: list[Rule] = page.items
    if as_json:
        from app.api.schemas.rules import Rule

        for rule in rules:
            print_json(Rule.of(rule, known.get(rule.id)))
        return
    shown = table("id namespace polarity state freq used lift rule")
    for rule in rules:
        add_row(
            shown,
            rule.id,
            rule.namespace,
            rule.polarity.value,
            rule.state.value,
            rule.frequency,
            rule.exposures,
            lift_of(known.get(rule.id)),
            rule.text,
        )
    out.print(shown)
    err.print(f"{len(rules)} of {page.total}")
