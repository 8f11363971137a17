"""The query parameters that choose rules or examples, for lists and for export."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Query

from app.api.admin.common import Namespace
from app.api.dependencies import AdminRead
from app.api.schemas.rules import NO_NUL, in_utc
from app.exceptions import InvalidRequest
from rules_store.models.examples import ExampleFilter, Trust
from rules_store.models.rules import Polarity, RuleFilter, RuleState

_MOST = 2**31 - 1
Moment = Annotated[datetime | None, Query(description="ISO 8601 with a time zone")]
Share = Annotated[
    float | None,
    Query(ge=-1, le=1, allow_inf_nan=False, description="Leaves out what has no lift"),
]
Count = Annotated[int | None, Query(ge=0, le=_MOST)]
State = Annotated[RuleState | None, Query(alias="state")]
Domain = Annotated[str | None, Query(max_length=64, pattern=NO_NUL)]
Source = Annotated[str | None, Query(max_length=100, pattern=NO_NUL)]


async def rule_filter(
    caller: AdminRead,
    namespace: Namespace = None,
    polarity: Polarity | None = None,
    rule_state: State = None,
    domain: Domain = None,
    q: Annotated[
        str | None, Query(max_length=500, pattern=NO_NUL, description="Text in rule or trigger")
    ] = None,
    source_episode: Source = None,
    created_after: Moment = None,
    created_before: Moment = None,
    min_exposures: Count = None,
    max_exposures: Count = None,
    min_frequency: Count = None,
    min_lift: Share = None,
    max_lift: Share = None,
) -> RuleFilter:
    return RuleFilter(
        namespace=namespace,
        namespaces=caller.namespaces,
        polarity=polarity,
        state=rule_state,
        domain=domain,
        text=q,
        source_episode=source_episode,
        created_after=_aware(created_after, "created_after"),
        created_before=_aware(created_before, "created_before"),
        min_exposures=min_exposures,
        max_exposures=max_exposures,
        min_frequency=min_frequency,
        min_lift=min_lift,
        max_lift=max_lift,
    )


async def example_filter(
    caller: AdminRead,
    namespace: Namespace = None,
    example_state: State = None,
    trust: Trust | None = None,
    domain: Domain = None,
    q: Annotated[
        str | None, Query(max_length=500, pattern=NO_NUL, description="Text in question or answer")
    ] = None,
    source_episode: Source = None,
    created_after: Moment = None,
    created_before: Moment = None,
    min_exposures: Count = None,
    max_exposures: Count = None,
    min_lift: Share = None,
    max_lift: Share = None,
) -> ExampleFilter:
    return ExampleFilter(
        namespace=namespace,
        namespaces=caller.namespaces,
        state=example_state,
        trust=trust,
        domain=domain,
        text=q,
        source_episode=source_episode,
        created_after=_aware(created_after, "created_after"),
        created_before=_aware(created_before, "created_before"),
        min_exposures=min_exposures,
        max_exposures=max_exposures,
        min_lift=min_lift,
        max_lift=max_lift,
    )


def _aware(moment: datetime | None, field: str) -> datetime | None:
    """Raises `InvalidRequest`: without a zone nobody knows which moment is meant."""
    if moment is not None and moment.utcoffset() is None:
        raise InvalidRequest(f"{field}: needs a time zone, as in 2026-01-31T12:00Z", param=field)
    try:
        return moment and in_utc(moment)
    except ValueError as error:
        raise InvalidRequest(f"{field}: {error}", param=field) from error


Filter = Annotated[RuleFilter, Depends(rule_filter)]
Examples = Annotated[ExampleFilter, Depends(example_filter)]
