"""`ttcl effect`: whether steering helps, by the control group; what learning and steering cost; and
steering again where the guard has suspended it."""

from __future__ import annotations

from typing import Annotated

import typer

from app.api.schemas.effect import IN_WORDS, Effect, Spending, Spent, SpentDay, points
from app.cli.common import (
    Actor,
    AsJson,
    Reason,
    add_row,
    err,
    out,
    print_json,
    print_lines,
    table,
    with_store,
)
from rules_store.models.effect import DaySpend, EffectReport
from rules_store.models.events import Change
from rules_store.operations.effect import MOST_REPORT_DAYS, REPORT_DAYS
from rules_store.store import RuleStore

app = typer.Typer(
    invoke_without_command=True,
    add_completion=False,
    help="Whether steering helps, and what it costs. Alone: a line for each namespace.",
)

Days = Annotated[int, typer.Option(min=1, max=MOST_REPORT_DAYS, help="The latest so many")]


@app.callback()
def effect(context: typer.Context, days: Days = REPORT_DAYS, as_json: AsJson = False) -> None:
    """Whether steering helps, and what it costs. Alone: a line for each namespace."""
    if context.invoked_subcommand is not None:
        return

    async def read(store: RuleStore) -> list[Effect]:
        return [await _effect(store, name, days) for name in await store.namespaces.names()]

    for each in with_store(read):
        if as_json:
            print_json(each)
        else:
            print_lines(f"{each.namespace}: {each.sentence}")


@app.command("show")
def effect_show(name: str, days: Days = REPORT_DAYS, as_json: AsJson = False) -> None:
    """One namespace: the verdict, outcomes by arm, the interval of each signal, the cost."""
    found = with_store(lambda store: _effect(store, name, days))
    if as_json:
        print_json(found)
    else:
        _show(found)


@app.command("resume")
def effect_resume(
    name: str, actor: Actor = "", reason: Reason = "", as_json: AsJson = False
) -> None:
    """Steer again where the guard has suspended it; the comparison begins anew."""

    async def resume(store: RuleStore) -> tuple[bool, Effect]:
        suspended = (await store.effect.report(name)).suspension is not None
        await store.effect.resume(name, change=Change(actor, reason))
        return suspended, await _effect(store, name, REPORT_DAYS)

    was_suspended, found = with_store(resume)
    if as_json:
        print_json(found)
    else:
        err.print("steered again" if was_suspended else "it was not suspended")


@app.command("spending")
def effect_spending(name: str, days: Days = REPORT_DAYS, as_json: AsJson = False) -> None:
    """What learning and steering cost in a namespace, by day (UTC)."""
    found = with_store(lambda store: store.effect.spend(name, days=days))
    data = [SpentDay.of_day(each) for each in found]
    told = Spending(namespace=name, days=days, data=data, total=Spent.total(found))
    if as_json:
        print_json(told)
        return
    shown = table("day learning_calls learning_tokens replays steered_requests added_tokens")
    for day, spent in [*((str(each.day), each) for each in data), ("in all", told.total)]:
        add_row(
            shown,
            day,
            spent.learning_calls,
            spent.learning_tokens,
            spent.replay.calls,
            spent.steering.requests,
            spent.steering.tokens,
        )
    out.print(shown)


async def _effect(store: RuleStore, name: str, days: int) -> Effect:
    report: EffectReport = await store.effect.report(name, days=days)
    spend: list[DaySpend] = await store.effect.spend(name, days=days)
    return Effect.of_report(report, spend)


def _show(found: Effect) -> None:
    print_lines(found.sentence, "")
    arms = table(f"last_{found.days}_days requests comparable ms prompt_tokens completion_tokens")
    for name, arm in (("control", found.arms.control), ("steered", found.arms.steered)):
        means = (arm.milliseconds, arm.prompt_tokens, arm.completion_tokens)
        shown = ["-" if each is None else f"{each:.0f}" for each in means]
        add_row(arms, name, arm.requests, arm.offered, *shown)
    out.print(arms)
    if found.signals:
        signals = table("signal verdict difference low high conversations control steered missing")
        for each in found.signals:
            control, steered = each.arms.control, each.arms.steered
            add_row(
                signals,
                IN_WORDS[each.signal],
                each.verdict.value,
                *(
                    "-" if value is None else points(value)
                    for value in (each.difference, each.low, each.high)
                ),
                each.conversations,
                *("-" if arm.mean is None else f"{arm.mean:.3f}" for arm in (control, steered)),
                f"{control.missing}/{steered.missing}",
            )
        out.print(signals)
    spent = found.spent
    print_lines(
        "",
        f"share of control: {found.share:g} (control_rate: {found.control_rate})",
        f"learning: {spent.learning_calls} calls, {spent.learning_tokens} tokens;"
        f" steering: about {spent.steering.tokens} tokens in {spent.steering.requests} prompts",
    )
