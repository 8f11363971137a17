"""One rule: where it came from, what became of it, and what can be done with it."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi.responses import Response

from app.api.admin.common import vectors_of
from app.api.schemas.common import validated
from app.api.schemas.rules import RulePatch
from app.console import charts
from app.console.access import (
    At,
    Form,
    Id,
    Posted,
    SignedInRequest,
    Text,
    console_router,
)
from app.console.changing import Action, Move, carry_out, moving
from app.console.episode_view import CASES, EpisodeView, evidence_of
from app.console.rendering import share
from rules_store.models.episodes import Episode
from rules_store.models.evidence import Evidence, Trial
from rules_store.models.rules import Rule
from rules_store.operations.history import RuleUsage
from rules_store.policy.lift import NOTHING

router = console_router()

HISTORY = 30
TRIALS = 500
"""In the chart of lift."""
LISTED = 20


@router.get("/rules/{rule_id}")
async def show(rule_id: Id, desk: At, cursor: Text = "") -> Response:
    return await _page(desk, rule_id, cursor=cursor or None)


@router.post("/rules/{rule_id}/edit")
async def edit(rule_id: Id, desk: At, form: Posted) -> Response:
    async def action() -> Rule:
        body = validated(
            RulePatch,
            text=form.get("text"),
            trigger=form.get("trigger"),
            domain=form.get("domain"),
            actor=desk.actor,
            reason=form.reason,
            expected_version=form.number("expected_version"),
        )
        vectors = await vectors_of(desk.state, body.text, body.trigger)
        return await desk.state.store.rules.patch(
            rule_id,
            text=body.text,
            trigger=body.trigger,
            domain=body.domain,
            vectors=vectors,
            expected_version=body.expected_version,
            change=body.change,
        )

    return await _act(desk, rule_id, action, "Saved as version {version}.", form)


@router.post("/rules/{rule_id}/retire")
async def retire(rule_id: Id, desk: At, form: Posted) -> Response:
    move = desk.state.store.rules.retire
    return await _move(desk, rule_id, move, "Retired: no request gets it any more.", form)


@router.post("/rules/{rule_id}/restore")
async def restore(rule_id: Id, desk: At, form: Posted) -> Response:
    """Back into use, or back to the text of the field `version`."""

    async def action() -> Rule:
        store, version = desk.state.store, form.number("version")
        reason, expected = form.reason, form.number("expected_version")
        if version is None:
            return await store.rules.restore(
                rule_id, change=desk.change(reason), expected_version=expected
            )
        old = await store.rules.at_version(rule_id, version)
        return await store.rules.restore(
            rule_id,
            version=version,
            vectors=await vectors_of(desk.state, old.text, old.trigger),
            change=desk.change(reason),
            expected_version=expected,
        )

    return await _act(desk, rule_id, action, "Restored as version {version}.", form)


@router.post("/rules/{rule_id}/quarantine")
async def quarantine(rule_id: Id, desk: At, form: Posted) -> Response:
    move = desk.state.store.rules.quarantine
    return await _move(desk, rule_id, move, "Held back: no request gets it any more.", form)


@router.post("/rules/{rule_id}/release")
async def release(rule_id: Id, desk: At, form: Posted) -> Response:
    move = desk.state.store.rules.release
    return await _move(desk, rule_id, move, "Released: requests get it from now on.", form)


@router.post("/rules/{rule_id}/reject")
async def reject(rule_id: Id, desk: At, form: Posted) -> Response:
    move = desk.state.store.rules.reject
    return await _move(desk, rule_id, move, "Rejected: it is retired.", form)


async def _move(desk: SignedInRequest, rule_id: str, move: Move, done: str, form: Form) -> Response:
    return await _act(desk, rule_id, moving(desk, rule_id, move, form), done, form)


async def _act(
    desk: SignedInRequest, rule_id: str, action: Action, done: str, form: Form
) -> Response:
    async def refused(status: int) -> Response:
        return await _page(desk, rule_id, status=status, typed=form)

    page = f"/console/rules/{rule_id}"
    return await carry_out(desk, action, form, page=page, done=done, refused=refused)


async def _page(
    desk: SignedInRequest,
    rule_id: str,
    *,
    status: int = 200,
    typed: Form | None = None,
    cursor: str | None = None,
) -> Response:
    store = desk.state.store
    rule = await store.rules.get(rule_id)
    history = await store.rules.history(rule_id, limit=HISTORY, cursor=cursor)
    use = await store.history.usage(rule_id)
    episode, evidence = await _evidence(desk, rule)
    worth = await store.evidence.of_rule(rule_id, limit=TRIALS)
    return desk.page(
        "rule.html",
        status=status,
        rule=rule,
        history=history,
        use=use,
        use_chart=_chart(use),
        episode=episode,
        evidence=evidence,
        worth=worth,
        lift_chart=_lift_chart(worth.trials),
        proof=_proof(worth),
        listed=LISTED,
        cases=CASES,
        typed=typed.fields if typed else None,
    )


async def _evidence(desk: SignedInRequest, rule: Rule) -> tuple[Episode | None, EpisodeView | None]:
    episode = await desk.state.store.episodes.source_of(rule)
    return episode, None if episode is None else evidence_of(episode)


def _proof(worth: Evidence) -> str:
    """How the rule's trial stands, as it was measured."""
    standing = worth.standing
    if standing is not None and standing.proven:
        return "passed" if worth.trials else "none: a person vouches for it"
    return "under way" if standing is not None and standing.tried else "none yet"


def _chart(use: RuleUsage) -> charts.BarChart | None:
    if not use.uses:
        return None
    return charts.bars([(f"{day.day.day} {day.day:%b}", day.uses) for day in use.days])


def _lift_chart(newest_first: Sequence[Trial]) -> charts.LineChart | None:
    """Mean outcome with the rule and without it as its trials came in; None before the second."""
    trials = newest_first[::-1]
    if len(trials) < 2:
        return None
    with_rule, without_rule = NOTHING, NOTHING
    series: dict[str, list[float | None]] = {"with the rule": [], "without it": []}
    for trial in trials:
        with_rule = with_rule.plus(trial.with_rule, trial.weight)
        without_rule = without_rule.plus(trial.without_rule, trial.weight)
        series["with the rule"].append(share(with_rule))
        series["without it"].append(share(without_rule))
    labels = [f"{trial.at:%-d %b}" if trial.at else "" for trial in trials]
    return charts.lines(labels, series)
