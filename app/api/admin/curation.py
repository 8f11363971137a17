"""`/admin/v1/rules:...`: what is done with many rules at once, and why a rule is injected."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from app.api import jsonl
from app.api.admin.common import (
    ActorParameter,
    Namespace,
    SimilarTo,
    answered,
    embedding_of,
    known_namespace,
    standings_of,
)
from app.api.admin.filters import Filter
from app.api.dependencies import AdminRead, AdminWrite, State, reach
from app.api.rules_jsonl import export_lines, import_lines
from app.api.schemas.common import RULE_TEXT, ListOf, refuses, text
from app.api.schemas.curation import ExplainBody, MergeBody, PruneBody
from app.api.schemas.rules import Explanation, Import, NearRule, Prune, PrunedRule, Rule
from app.exceptions import InvalidRequest, UpstreamError
from app.loop.steer.explain import Question
from app.settings import NAMESPACE_PATTERN
from app.wiring.container import AppState
from rules_store.errors import UnknownRule
from rules_store.models.rules import Polarity, RuleState

router = APIRouter(tags=["rules"])

LINE = f'{{"namespace": "default", "polarity": "positive", "text": "{RULE_TEXT}"}}\n'


@router.get("/rules:search", summary="Rules near a text in meaning, most similar first")
async def search_rules(
    state: State,
    caller: AdminRead,
    similar_to: SimilarTo,
    namespace: Namespace = None,
    polarity: Polarity | None = None,
    rule_state: Annotated[
        list[RuleState] | None, Query(alias="state", description="Unset: active and candidate")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> ListOf[NearRule]:
    """Each rule comes with `score`, the larger cosine of its text and its trigger. `total` counts
    what is returned; there is no further page."""
    await known_namespace(state, namespace)
    if namespace is None and caller.namespaces is not None:
        raise InvalidRequest("namespace: name one of this key's namespaces", param="namespace")
    vector = await embedding_of(state, similar_to)
    found = await state.store.rules.nearest(
        vector,
        namespace=namespace,
        polarity=polarity,
        states=rule_state or (RuleState.ACTIVE, RuleState.CANDIDATE),
        limit=limit,
    )
    known = await standings_of(state, [near.rule for near in found])
    data = [
        NearRule.of(near.rule, known.get(near.rule.id), score=near.similarity) for near in found
    ]
    return ListOf[NearRule](data=data, next_cursor=None, total=len(data))


@router.post(
    "/rules:prune",
    summary="Retire many rules by a policy, or preview that",
    responses=refuses(404, 409),
)
async def prune_rules(body: PruneBody, state: State, caller: AdminWrite) -> Prune:
    """A dry run names the rules that would go, and a `token`. With that token the real call
    retires exactly these, or answers 409 because they have changed since."""
    reach(caller, body.namespace)
    order = body.order()
    if body.dry_run:
        done = await state.store.curation.plan_prune(order)
    else:
        done = await state.store.curation.prune(order, token=body.token, change=body.change)
    known = await standings_of(state, [victim.rule for victim in done.victims])
    rules = [
        PrunedRule.of(victim.rule, known.get(victim.rule.id), prune_reason=victim.reason)
        for victim in done.victims
    ]
    return Prune(
        namespace=body.namespace,
        policy=body.policy,
        dry_run=body.dry_run,
        token=done.token,
        active_before=done.active,
        active_after=done.active - len(rules),
        total=len(rules),
        rules=rules,
    )


@router.post(
    "/rules:merge",
    summary="Join rules that say the same into one of them",
    responses=refuses(404, 409),
)
async def merge_rules(body: MergeBody, state: State, caller: AdminWrite) -> Rule:
    """The survivor gets the frequencies of the others, which are retired."""
    for rule_id in (body.into, *body.rules):
        if not caller.reaches((await state.store.rules.get(rule_id)).namespace):
            raise UnknownRule(rule_id)
    rule = await state.store.curation.merge(
        body.into,
        body.rules,
        expected=body.expected_versions,
        change=body.change,
    )
    return await answered(state, rule)


@router.get(
    "/rules:export",
    summary="Rules as JSON lines, oldest first",
    response_class=StreamingResponse,
    responses=text(jsonl.MEDIA_TYPE, LINE, description="A rule a line"),
)
async def export_rules(
    state: State,
    _: AdminRead,
    where: Filter,
    vectors: Annotated[
        bool, Query(description="With vectors an import embeds nothing and finds the same")
    ] = True,
) -> StreamingResponse:
    await known_namespace(state, where.namespace)
    lines = export_lines(state.store, where, vectors=vectors)
    return jsonl.download(lines, "rules.jsonl")


@router.post(
    "/rules:import",
    summary="Take rules in from JSON lines",
    openapi_extra=jsonl.body_of(LINE),
)
async def import_rules(
    request: Request,
    state: State,
    caller: AdminWrite,
    namespace: Annotated[
        str | None, Query(pattern=NAMESPACE_PATTERN, description="Instead of the lines' own")
    ] = None,
    dry_run: bool = False,
    trust: Annotated[
        bool,
        Query(
            description="The evidence that comes along counts, so that what steered before steers "
            "at once; otherwise every rule proves itself anew (policy gated)"
        ),
    ] = False,
    actor: ActorParameter = "admin",
    reason: Annotated[str, Query(max_length=2000)] = "",
) -> Import:
    """Reports how many rules were written, how many were skipped because the namespace has their
    text, and each refused line with its reason."""
    order = jsonl.Order(namespace, dry_run, actor, reason, caller.reaches)
    content = await request.body()
    return await import_lines(state.store, state.embedder, content, order, trust=trust)


@router.post(
    "/rules:explain",
    summary="Which rules and examples a text would get, which not and why",
    responses=refuses(404, 502, 504),
)
async def explain(body: ExplainBody, state: State, caller: AdminRead) -> Explanation:
    """Nothing is sent upstream and nothing is recorded. `messages` is the conversation as it would
    go to the model."""
    reach(caller, body.namespace)
    await known_namespace(state, body.namespace)
    domain = body.domain or "default"
    if domain not in state.prompts.domains:
        known = ", ".join(state.prompts.domains)
        raise InvalidRequest(f"domain: must be one of {known}", param="domain")
    limits = state.settings.limits(
        state.store.namespaces.settings_of(body.namespace),
        positive=body.max_positive,
        negative=body.max_negative,
        examples=body.max_examples,
    )
    model, context = await _model(state, body.model)
    question = Question(
        namespace=body.namespace,
        messages=body.conversation(),
        vector=await embedding_of(state, body.question()),
        limits=limits,
        domain=domain,
        model=model,
        context=context,
    )
    found = await state.explainer.explain(question, body.limit)
    return Explanation.of(found, namespace=body.namespace)


async def _model(state: AppState, name: str | None) -> tuple[str, int | None]:
    """The model that counts tokens, and its context. While the upstream is down: an estimate."""
    if name is not None:
        info = await state.upstream.resolve_model(name)
        return info.id, info.context_length
    try:
        models = await state.upstream.models()
    except UpstreamError:
        return "", None
    info = next(iter(models.values()))
    return info.id, info.context_length
