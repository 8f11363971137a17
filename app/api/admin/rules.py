"""`/admin/v1/rules`: what was learned, read and changed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.admin.common import (
    Cursor,
    Limit,
    answered,
    known_namespace,
    moved,
    standing_of,
    standings_of,
    vectors_of,
)
from app.api.admin.filters import Filter
from app.api.dependencies import AdminRead, AdminWrite, State, reach
from app.api.schemas.common import ListOf, refuses
from app.api.schemas.rules import (
    Event,
    Evidence,
    Rule,
    RuleCreate,
    RulePatch,
    RuleRestore,
    RuleWithHistory,
    VersionedWrite,
    WrittenRule,
)
from app.loop.admission.pipeline import findings
from app.wiring.container import AppState
from rules_store.models.rules import NewRule, RuleSort, Vectors
from rules_store.models.rules import Rule as StoredRule

router = APIRouter(tags=["rules"])


@router.get("/rules", summary="List rules, newest first")
async def list_rules(
    state: State,
    _: AdminRead,
    where: Filter,
    sort: Annotated[RuleSort, Query(description="used: most exposures first")] = RuleSort.NEWEST,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ListOf[Rule]:
    await known_namespace(state, where.namespace)
    page = await state.store.rules.list(where, sort=sort, limit=limit, cursor=cursor)
    known = await standings_of(state, page.items)
    return ListOf[Rule].of(page, data=[Rule.of(rule, known.get(rule.id)) for rule in page.items])


@router.post("/rules", status_code=201, summary="Write a rule by hand", responses=refuses(404, 409))
async def create_rule(body: RuleCreate, state: State, caller: AdminWrite) -> WrittenRule:
    reach(caller, body.namespace)
    vectors = await vectors_of(state, body.text, body.trigger)
    await state.store.namespaces.ensure(body.namespace, actor=body.change.actor)
    new = NewRule(**body.content())
    rule = await state.store.rules.create(new, vectors, change=body.change)
    return await _written(state, rule)


async def _written(state: AppState, rule: StoredRule) -> WrittenRule:
    """A person may write what a model may not; the checks only say so."""
    warnings = [finding.name for finding in findings(rule.text, polarity=rule.polarity)]
    return WrittenRule.of(rule, await standing_of(state, rule), warnings=warnings)


@router.get("/rules/{rule_id}", summary="One rule with its history")
async def get_rule(rule_id: str, state: State, _: AdminRead) -> RuleWithHistory:
    rule = await state.store.rules.get(rule_id)
    events = [Event.listed(each) for each in await state.store.rules.events(rule_id)]
    return RuleWithHistory.of(rule, await standing_of(state, rule), history=events)


@router.get("/rules/{rule_id}/history", summary="What happened to a rule, newest first")
async def rule_history(
    rule_id: str, state: State, _: AdminRead, limit: Limit = 50, cursor: Cursor = None
) -> ListOf[Event]:
    page = await state.store.rules.history(rule_id, limit=limit, cursor=cursor)
    return ListOf[Event].of(page, data=[Event.listed(each) for each in page.items])


@router.get("/rules/{rule_id}/evidence", summary="What speaks for a rule and against it")
async def rule_evidence(
    rule_id: str, state: State, _: AdminRead, limit: Annotated[int, Query(ge=1, le=500)] = 50
) -> Evidence:
    """Its standing, the latest trials and exposures with what came of them, the episodes and rules
    behind it, and which rules say the opposite."""
    return Evidence.of(await state.store.evidence.of_rule(rule_id, limit=limit), rule_id=rule_id)


@router.patch(
    "/rules/{rule_id}", summary="Change a rule's text, trigger or domain", responses=refuses(409)
)
async def patch_rule(rule_id: str, body: RulePatch, state: State, _: AdminWrite) -> WrittenRule:
    await state.store.rules.get(rule_id)
    vectors = await vectors_of(state, body.text, body.trigger)
    rule = await state.store.rules.patch(
        rule_id,
        text=body.text,
        trigger=body.trigger,
        domain=body.domain,
        vectors=vectors,
        expected_version=body.expected_version,
        change=body.change,
    )
    return await _written(state, rule)


@router.post("/rules/{rule_id}/retire", summary="Take a rule out of use", responses=refuses(409))
async def retire_rule(rule_id: str, body: VersionedWrite, state: State, _: AdminWrite) -> Rule:
    step = state.store.rules.retire
    return await answered(state, await moved(step, rule_id, body))


@router.post(
    "/rules/{rule_id}/quarantine",
    summary="Take a rule out of use for review",
    responses=refuses(409),
)
async def quarantine_rule(rule_id: str, body: VersionedWrite, state: State, _: AdminWrite) -> Rule:
    step = state.store.rules.quarantine
    return await answered(state, await moved(step, rule_id, body))


@router.post(
    "/rules/{rule_id}/release", summary="Make a quarantined rule active", responses=refuses(409)
)
async def release_rule(rule_id: str, body: VersionedWrite, state: State, _: AdminWrite) -> Rule:
    step = state.store.rules.release
    return await answered(state, await moved(step, rule_id, body))


@router.post("/rules/{rule_id}/reject", summary="Retire a quarantined rule", responses=refuses(409))
async def reject_rule(rule_id: str, body: VersionedWrite, state: State, _: AdminWrite) -> Rule:
    step = state.store.rules.reject
    return await answered(state, await moved(step, rule_id, body))


@router.post(
    "/rules/{rule_id}/restore",
    summary="Reactivate a rule, or give it an old text back",
    responses=refuses(409),
)
async def restore_rule(rule_id: str, body: RuleRestore, state: State, _: AdminWrite) -> Rule:
    vectors = Vectors()
    if body.version is not None:
        old = await state.store.rules.at_version(rule_id, body.version)
        vectors = await vectors_of(state, old.text, old.trigger)
    rule = await state.store.rules.restore(
        rule_id,
        version=body.version,
        vectors=vectors,
        expected_version=body.expected_version,
        change=body.change,
    )
    return await answered(state, rule)
