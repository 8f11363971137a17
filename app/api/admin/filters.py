"""The query parameters that choose rules or examples, for lists and for export."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

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


async def _shared(
    caller: AdminRead,
    namespace: Namespace = None,
    state: RuleState | None = None,
    domain: Annotated[str | None, Query(max_length=64, pattern=NO_NUL)] = None,
    source_episode: Annotated[str | None, Query(max_length=100, pattern=NO_NUL)] = None,
    created_after: Moment = None,
    created_before: Moment = None,
    min_exposures: Count = None,
    max_exposures: Count = None,
    min_lift: Share = None,
    max_lift: Share = None,
) -> dict[str, Any]:
    """What rules and examples are chosen by alike, by the names of both filters."""
    return {
        "namespace": namespace,
        "namespaces": caller.namespaces,
        "state": state,
        "domain": domain,
        "source_episode": source_episode,
        "created_after": _aware(created_after, "created_after"),
        "created_before": _aware(created_before, "created_before"),
        "min_exposures": min_exposures,
        "max_exposures": max_exposures,
        "min_lift": min_lift,
        "max_lift": max_lift,
    }


Shared = Annotated[dict[str, Any], Depends(_shared)]


async def rule_filter(
    shared: Shared,
    polarity: Polarity | None = None,
    q: Annotated[
        str | None, Query(max_length=500, pattern=NO_NUL, description="Text in rule or trigger")
    ] = None,
    written_by: Annotated[str | None, Query(max_length=200, pattern=NO_NUL)] = None,
    min_frequency: Count = None,
) -> RuleFilter:
    return RuleFilter(
        polarity=polarity, text=q, written_by=written_by, min_frequency=min_frequency, **shared
    )


async def example_filter(
    shared: Shared,
    trust: Trust | None = None,
    q: Annotated[
        str | None, Query(max_length=500, pattern=NO_NUL, description="Text in question or answer")
    ] = None,
) -> ExampleFilter:
    return ExampleFilter(trust=trust, text=q, **shared)


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
