"""`ttcl examples`: verified answers in the store, read, changed and tidied up where they are
stored. A running gateway takes changes up within a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

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
from app.settings import Settings, load_settings
from app.wiring.factories import build_embedder, opened_store
from rules_store.errors import UnknownNamespace
from rules_store.models.events import Change
from rules_store.models.evidence import Standing
from rules_store.models.examples import (
    Conflict,
    Example,
    ExampleFilter,
    NewExample,
    SimilarExample,
    Trust,
)
from rules_store.models.paging import Page
from rules_store.models.rules import RuleSort, RuleState
from rules_store.operations.curation import PruneOrder, PrunePolicy
from rules_store.operations.example_curation import ExamplePrunePlan
from rules_store.operations.examples import ExampleOperations
from rules_store.store import RuleStore

app = typer.Typer(
    no_args_is_help=True, help="Look at verified answers in the store, add some, tidy them up."
)

SHOWN = 30
"""Rows of a preview for people; JSON has them all."""
WIDTH = 100
"""Characters of a question or an answer in a table; `show` has the whole."""

ExpectedVersion = Annotated[
    int | None, typer.Option(min=1, help="Refused when the example has another version by now")
]
Listed = tuple[list[Example], dict[str, Standing]]


# -- looking


@app.command("list")
def examples_list(
    namespace: Namespace = None,
    state: Annotated[RuleState | None, typer.Option()] = None,
    trust: Annotated[Trust | None, typer.Option(help="What vouches for the answer")] = None,
    domain: Annotated[str | None, typer.Option()] = None,
    text: Annotated[str | None, typer.Option(help="Text in question or answer")] = None,
    episode: Annotated[str | None, typer.Option(help="Id of the episode they came of")] = None,
    sort: Annotated[RuleSort, typer.Option(help="used: most shown first")] = RuleSort.NEWEST,
    limit: Annotated[int, typer.Option(min=1, help="Most examples shown")] = 50,
    as_json: AsJson = False,
) -> None:
    """List examples, newest first."""
    where = ExampleFilter(
        namespace=namespace,
        state=state,
        trust=trust,
        domain=domain,
        text=text,
        source_episode=episode,
    )

    async def read(store: RuleStore) -> tuple[Page, dict[str, Standing]]:
        page = await store.examples.list(where, sort=sort, limit=limit)
        ids = [each.id for each in page.items]
        return page, await store.evidence.standings_of(ids)

    page, standings = with_store(read)
    _show((page.items, standings), as_json)
    if not as_json:
        err.print(f"{len(page.items)} of {page.total}")


@app.command("show")
def examples_show(example_id: str, as_json: AsJson = False) -> None:
    """One example with its history."""
    from app.api.schemas.examples import ExampleWithHistory

    async def read(store: RuleStore) -> ExampleWithHistory:
        stored = await store.examples.get(example_id)
        history = await store.examples.history(example_id)
        standings = await store.evidence.standings_of([example_id])
        return ExampleWithHistory.of(stored, standings.get(example_id), history=history.items)

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


@app.command("history")
def examples_history(
    example_id: str,
    limit: Annotated[int, typer.Option(min=1, help="Most events shown")] = 50,
    as_json: AsJson = False,
) -> None:
    """What happened to an example, newest first."""
    page = with_store(lambda store: store.examples.history(example_id, limit=limit))
    show_history(page, as_json)


@app.command("near")
def examples_near(
    question: Annotated[str, typer.Argument(help="A question, as a user would ask it")],
    namespace: Annotated[str | None, typer.Option(help="Unset: the configured default")] = None,
    state: Annotated[
        list[RuleState] | None, typer.Option(help="May be repeated; unset: active and candidate")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    as_json: AsJson = False,
) -> None:
    """Examples with a question like this one, nearest first. Loads the embedding model."""
    from app.api.schemas.examples import NearExample

    settings = load_settings()
    if not question.strip():
        raise InvalidRequest("QUESTION: there is nothing to find examples by", param="question")
    states = state or [RuleState.ACTIVE, RuleState.CANDIDATE]
    space = namespace or settings.namespace
    found = asyncio.run(_nearest(settings, question, space, states, limit))
    if as_json:
        for each in found:
            print_json(NearExample.of(each.example, score=each.similarity))
        return
    shown = table("id similarity state trust question answer")
    for each in found:
        one = each.example
        add_row(
            shown,
            one.id,
            f"{each.similarity:.3f}",
            one.state.value,
            one.trust.value,
            _short(one.question),
            _short(one.answer),
        )
    out.print(shown)


async def _nearest(
    settings: Settings, question: str, namespace: str, states: list[RuleState], limit: int
) -> list[SimilarExample]:
    """Raises UnknownNamespace, `EmbeddingFailed`."""
    async with opened_store(settings) as store:
        if not await store.namespaces.exists(namespace):
            raise UnknownNamespace(namespace)
        vector = await embedding_of(build_embedder(settings), question)
        return await store.examples.nearest(vector, namespace=namespace, states=states, limit=limit)


# -- changing


@app.command("add")
def examples_add(
    namespace: str,
    question: Annotated[str, typer.Argument(help="As a user asks it")],
    answer: Annotated[str, typer.Argument(help="As the model should answer it")],
    label: Annotated[str | None, typer.Option(help="The short right answer")] = None,
    domain: Annotated[str, typer.Option()] = "default",
    expires: Annotated[
        datetime | None, typer.Option(help="In UTC; unset: as the namespace says")
    ] = None,
    actor: Actor = "cli",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Write an example: you vouch for the answer. What holds personal data or a secret waits in
    quarantine."""
    from app.api.schemas.common import validated
    from app.api.schemas.examples import ExampleCreate
    from app.loop.admission.examples import screened

    body = validated(
        ExampleCreate,
        namespace=namespace,
        question=question,
        answer=answer,
        label=label,
        domain=domain,
        expires_at=_in_utc(expires),
        actor=actor,
        reason=reason,
    )
    new, _ = screened(NewExample(**body.content()))

    async def write(store: RuleStore) -> Example:
        await store.namespaces.ensure(namespace, actor=actor)
        return await store.examples.create(new, None, change=body.change)

    _done(with_store(write), as_json)


@app.command("edit")
def examples_edit(
    example_id: str,
    question: Annotated[str | None, typer.Option()] = None,
    answer: Annotated[str | None, typer.Option()] = None,
    label: Annotated[str | None, typer.Option(help="Empty: none")] = None,
    domain: Annotated[str | None, typer.Option()] = None,
    expires: Annotated[str | None, typer.Option(help="ISO 8601 with a zone; empty: never")] = None,
    expected_version: ExpectedVersion = None,
    actor: Actor = "cli",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Change what is given; the rest stays."""
    from app.api.schemas.common import validated
    from app.api.schemas.examples import ExamplePatch

    given: dict[str, Any] = {
        "question": question,
        "answer": answer,
        "domain": domain,
        "label": label,
        "expires_at": expires,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    for name in ("label", "expires_at"):
        if changed.get(name) == "":
            changed[name] = None
    body = validated(
        ExamplePatch, **changed, expected_version=expected_version, actor=actor, reason=reason
    )
    stored = with_store(
        lambda store: store.examples.patch(
            example_id,
            **body.changes(),
            expected_version=body.expected_version,
            change=body.change,
        )
    )
    _done(stored, as_json)


Move = Callable[..., Coroutine[Any, Any, Example]]
"""One of the store's steps from state to state, by id."""


def _move_command(name: str, told: str, step: Callable[[ExampleOperations], Move]) -> None:
    @app.command(name, help=told)
    def move(
        example_id: str,
        expected_version: ExpectedVersion = None,
        actor: Actor = "cli",
        reason: Reason = "",
        as_json: AsJson = False,
    ) -> None:
        change = Change(actor, reason)
        stored = with_store(
            lambda store: step(store.examples)(
                example_id, change=change, expected_version=expected_version
            )
        )
        _done(stored, as_json)


_move_command(
    "retire", "Take an example out of use. It can be restored.", lambda examples: examples.retire
)
_move_command(
    "restore", "Take a retired example into use again.", lambda examples: examples.restore
)
_move_command(
    "quarantine",
    "Take an example out of use until somebody has looked at it.",
    lambda examples: examples.quarantine,
)
_move_command("release", "Make a quarantined example active.", lambda examples: examples.release)


# -- conflicts


@app.command("conflicts")
def examples_conflicts(
    namespace: Namespace = None,
    limit: Annotated[int, typer.Option(min=1, help="Most pairs shown")] = 50,
    as_json: AsJson = False,
) -> None:
    """Pairs of examples that contradict each other: neither is recalled until one of them goes."""
    from app.api.schemas.examples import Conflict as ShownConflict
    from app.api.schemas.examples import Example as ShownExample

    page = with_store(lambda store: store.examples.conflicts(namespace, limit=limit))
    if as_json:
        for pair in page.items:
            one, other = ShownExample.of(pair.one), ShownExample.of(pair.other)
            print_json(ShownConflict(similarity=pair.similarity, one=one, other=other))
        return
    shown = table("pair id label verified question answer")
    for number, pair in enumerate(page.items, start=1):
        _add_pair(shown, number, pair)
    out.print(shown)
    err.print(f"{len(page.items)} of {page.total}; `ttcl examples settle ID` keeps one of a pair")


def _add_pair(shown: Any, number: int, pair: Conflict) -> None:
    for side in (pair.one, pair.other):
        verified = side.verified_at.isoformat(" ", "seconds")
        label = "" if side.label is None else _short(side.label)
        add_row(shown, number, side.id, label, verified, _short(side.question), _short(side.answer))


@app.command("settle")
def examples_settle(
    example_id: Annotated[str, typer.Argument(help="The one that is right")],
    expected_version: ExpectedVersion = None,
    actor: Actor = "cli",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Say which of contradicting examples is right: the others retire."""
    change = Change(actor, reason)
    retired = with_store(
        lambda store: store.examples.settle(
            example_id, change=change, expected_version=expected_version
        )
    )
    _show((retired, {}), as_json)
    err.print(f"{len(retired)} {'example' if len(retired) == 1 else 'examples'} retired")


# -- many at once


@app.command("prune")
def examples_prune(
    namespace: str,
    policy: Annotated[PrunePolicy, typer.Option(help="Which go first: fifo, age or utility")],
    most: Annotated[
        int | None, typer.Option("--max", min=0, help="Active examples that stay")
    ] = None,
    older_than_days: Annotated[float | None, typer.Option(min=0, help="For the policy age")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only show which examples would go")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    actor: Actor = "cli",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Retire examples of a namespace by a policy: shows which, asks, and does exactly that."""
    try:
        order = PruneOrder(namespace, policy, keep=most, older_than_days=older_than_days)
    except ValueError as error:
        raise InvalidRequest(f"--policy: {error} (--max, --older-than-days)") from error
    if policy is PrunePolicy.SIMILARITY:
        raise InvalidRequest("--policy: examples are pruned by fifo, age or utility")

    plan = with_store(lambda store: store.examples.plan_prune(order))
    _show_pruned(plan, as_json)
    if dry_run or not plan.victims:
        return
    if not yes:
        typer.confirm(f"Retire these {len(plan.victims)} examples?", abort=True, err=True)
    # The token makes it these examples or none, whatever was written since.
    token = plan.token
    with_store(lambda store: store.examples.prune(order, token=token, change=Change(actor, reason)))
    err.print(f"{len(plan.victims)} examples retired; each can be restored")


def _show_pruned(plan: ExamplePrunePlan, as_json: bool) -> None:
    if as_json:
        for victim in plan.victims:
            one = victim.example
            print_json({"id": one.id, "question": one.question, "reason": victim.reason})
        return
    shown = table("id used why question answer")
    for victim in plan.victims[:SHOWN]:
        one = victim.example
        add_row(
            shown, one.id, one.exposures, victim.reason, _short(one.question), _short(one.answer)
        )
    out.print(shown)
    say_pruned(plan, "examples", shown=SHOWN)


@app.command("export")
def examples_export(
    file: Annotated[Path | None, typer.Argument(help="Unset: standard output")] = None,
    namespace: Namespace = None,
    state: Annotated[RuleState | None, typer.Option()] = None,
    trust: Annotated[Trust | None, typer.Option()] = None,
    vectors: Annotated[bool, typer.Option(help="An import then embeds nothing")] = True,
) -> None:
    """Write examples as JSON lines."""
    from app.api.examples_jsonl import export_lines

    where = ExampleFilter(namespace=namespace, state=state, trust=trust)
    written = write_lines(file, lambda store: export_lines(store, where, vectors=vectors))
    err.print(f"{written} examples")


@app.command("import")
def examples_import(
    file: Annotated[str, typer.Argument(help="JSON lines, as `export` writes them; - is stdin")],
    namespace: Annotated[str | None, typer.Option(help="Instead of the lines' own")] = None,
    trust: Annotated[
        Trust, typer.Option(help="Of lines that name none: you vouch for what you import")
    ] = Trust.LABEL,
    dry_run: Annotated[bool, typer.Option(help="Only tell what would happen")] = False,
    actor: Actor = "cli",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Take examples in from JSON lines. Exit code 1 when a line was refused."""
    from app.api.examples_jsonl import import_lines
    from app.api.jsonl import Order
    from app.api.schemas.examples import ExampleImport

    content = read_lines(file, namespace)
    order = Order(namespace, dry_run, actor, reason)
    embedder = build_embedder(load_settings())

    async def import_all(store: RuleStore) -> ExampleImport:
        async with loaded_if_needed(embedder, store, content):
            return await import_lines(store, embedder, content, order, trust=trust)

    report = with_store(import_all)
    if as_json:
        print_json(report.model_dump(mode="json", exclude={"object"}))
    else:
        for refused in report.refused:
            err.print(f"line {refused.line}: {refused.reason}", markup=False)
        for held in report.quarantined:
            err.print(f"line {held.line}: in quarantine, {held.reason}", markup=False)
        out.print(
            f"{report.imported} imported, {report.skipped} there already, "
            f"{len(report.refused)} refused, {len(report.evicted)} retired for capacity"
            + (" (dry run)" if dry_run else "")
        )
        if report.unembedded:
            err.print(f"{report.unembedded} examples wait for a running gateway to embed them")
    raise SystemExit(1 if report.refused else 0)


# -- what is shown


def _done(stored: Example, as_json: bool) -> None:
    """The example as it is now."""
    _show(([stored], {}), as_json)
    if not as_json and stored.reason and stored.state is RuleState.QUARANTINED:
        err.print(f"in quarantine: {stored.reason}", markup=False)


def _show(found: Listed, as_json: bool) -> None:
    examples, standings = found
    if as_json:
        from app.api.schemas.examples import Example as ShownExample

        for each in examples:
            print_json(ShownExample.of(each, standings.get(each.id)))
        return
    shown = table("id namespace state trust used lift question answer")
    for each in examples:
        add_row(
            shown,
            each.id,
            each.namespace,
            each.state.value,
            each.trust.value,
            each.exposures,
            lift_of(standings.get(each.id)),
            _short(each.question),
            _short(each.answer),
        )
    out.print(shown)


def _short(text: str) -> str:
    """One line for a table."""
    line = " ".join(text.split())
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def _in_utc(moment: datetime | None) -> datetime | None:
    from datetime import UTC

    return None if moment is None else moment.replace(tzinfo=moment.tzinfo or UTC)
