"""`/admin/v1/rules`: what was learned, read and changed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.api.admin.common import Cursor, Limit, known_namespace, shape, shapes, vectors_of
from app.api.admin.filters import Filter
from app.api.dependencies import AdminRead, AdminWrite, State, reach
from app.api.schemas.common import gives, lists
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
    event_shape,
    evidence_shape,
    list_shape,
)
from app.loop.admission.pipeline import findings
from rules_store.models.events import Change
from rules_store.models.rules import NewRule, RuleSort, Vectors

router = APIRouter(tags=["rules"])


@router.get("/rules", summary="List rules, newest first", responses=lists(Rule))
async def list_rules(
    state: State,
    _: AdminRead,
    where: Filter,
    sort: Annotated[RuleSort, Query(description="used: most exposures first")] = RuleSort.NEWEST,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    await known_namespace(state, where.namespace)
    page = await state.store.rules.list(where, sort=sort, limit=limit, cursor=cursor)
    return list_shape(page, await shapes(state, page.items))


@router.post(
    "/rules",
    status_code=201,
    summary="Write a rule by hand",
    responses=gives(WrittenRule, status=201, also=(404, 409)),
)
async def create_rule(body: RuleCreate, state: State, caller: AdminWrite) -> dict[str, Any]:
    reach(caller, body.namespace)
    vectors = await vectors_of(state, body.text, body.trigger)
    await state.store.namespaces.ensure(body.namespace, actor=body.actor)
    new = NewRule(
        namespace=body.namespace,
        polarity=body.polarity,
        text=body.text,
        trigger=body.trigger,
        domain=body.domain,
        state=body.state,
    )
    rule = await state.store.rules.create(new, vectors, change=Change(body.actor, body.reason))
    # A person may write what a model may not; the checks only say so.
    objections = findings(body.text, polarity=body.polarity)
    return {**await shape(state, rule), "warnings": [finding.name for finding in objections]}


@router.get(
    "/rules/{rule_id}", summary="One rule with its history", responses=gives(RuleWithHistory)
)
async def get_rule(rule_id: str, state: State, _: AdminRead) -> dict[str, Any]:
    rule = await state.store.rules.get(rule_id)
    events = await state.store.rules.events(rule_id)
    return {**await shape(state, rule), "history": [event_shape(event) for event in events]}


@router.get(
    "/rules/{rule_id}/history",
    summary="What happened to a rule, newest first",
    responses=lists(Event),
)
async def rule_history(
    rule_id: str, state: State, _: AdminRead, limit: Limit = 50, cursor: Cursor = None
) -> dict[str, Any]:
    page = await state.store.rules.history(rule_id, limit=limit, cursor=cursor)
    return list_shape(page, [event_shape(event) for event in page.items])


@router.get(
    "/rules/{rule_id}/evidence",
    summary="What speaks for a rule and against it",
    responses=gives(Evidence),
)
async def rule_evidence(
    rule_id: str, state: State, _: AdminRead, limit: Annotated[int, Query(ge=1, le=500)] = 50
) -> dict[str, Any]:
    """Its standing, the latest trials and exposures with what came of them, the episodes and rules
    behind it, and which rules say the opposite."""
    return evidence_shape(rule_id, await state.store.evidence.of_rule(rule_id, limit=limit))


@router.patch(
    "/rules/{rule_id}",
    summary="Change a rule's text, trigger or domain",
    responses=gives(Rule, also=(409,)),
)
async def patch_rule(rule_id: str, body: RulePatch, state: State, _: AdminWrite) -> dict[str, Any]:
    await state.store.rules.get(rule_id)
    vectors = await vectors_of(state, body.text, body.trigger)
    rule = await state.store.rules.patch(
        rule_id,
        text=body.text,
        trigger=body.trigger,
        domain=body.domain,
        vectors=vectors,
        expected_version=body.expected_version,
        change=Change(body.actor, body.reason),
    )
    return await shape(state, rule)


@router.post(
    "/rules/{rule_id}/retire", summary="Take a rule out of use", responses=gives(Rule, also=(409,))
)
async def retire_rule(
    rule_id: str, body: VersionedWrite, state: State, _: AdminWrite
) -> dict[str, Any]:
    rule = await state.store.rules.retire(
        rule_id, change=Change(body.actor, body.reason), expected_version=body.expected_version
    )
    return await shape(state, rule)


@router.post(
    "/rules/{rule_id}/quarantine",
    summary="Take a rule out of use for review",
    responses=gives(Rule, also=(409,)),
)
async def quarantine_rule(
    rule_id: str, body: VersionedWrite, state: State, _: AdminWrite
) -> dict[str, Any]:
    rule = await state.store.rules.quarantine(
        rule_id, change=Change(body.actor, body.reason), expected_version=body.expected_version
    )
    return await shape(state, rule)


@router.post(
    "/rules/{rule_id}/release",
    summary="Make a quarantined rule active",
    responses=gives(Rule, also=(409,)),
)
async def release_rule(
    rule_id: str, body: VersionedWrite, state: State, _: AdminWrite
) -> dict[str, Any]:
    rule = await state.store.rules.release(
        rule_id, change=Change(body.actor, body.reason), expected_version=body.expected_version
    )
    return await shape(state, rule)


@router.post(
    "/rules/{rule_id}/reject",
    summary="Retire a quarantined rule",
    responses=gives(Rule, also=(409,)),
)
async def reject_rule(
    rule_id: str, body: VersionedWrite, state: State, _: AdminWrite
) -> dict[str, Any]:
    rule = await state.store.rules.reject(
        rule_id, change=Change(body.actor, body.reason), expected_version=body.expected_version
    )
    return await shape(state, rule)


@router.post(
    "/rules/{rule_id}/restore",
    summary="Reactivate a rule, or give it an old text back",
    responses=gives(Rule, also=(409,)),
)
async def restore_rule(
    rule_id: str, body: RuleRestore, state: State, _: AdminWrite
) -> dict[str, Any]:
    vectors = Vectors()
    if body.version is not None:
        old = await state.store.rules.at_version(rule_id, body.version)
        vectors = await vectors_of(state, old.text, old.trigger)
    rule = await state.store.rules.restore(
        rule_id,
        version=body.version,
        vectors=vectors,
        expected_version=body.expected_version,
        change=Change(body.actor, body.reason),
    )
    return await shape(state, rule)
