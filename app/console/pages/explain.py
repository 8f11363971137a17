"""Which rules a text would get, which not and why."""

from __future__ import annotations

from fastapi.responses import Response

from app.api.admin.curation import explain as explain_text
from app.api.errors import from_store
from app.api.schemas.common import validated
from app.api.schemas.curation import ExplainBody
from app.api.schemas.rules import Explanation
from app.console.access import At, Posted, SignedInRequest, console_router
from app.exceptions import InvalidRequest, Overloaded
from rules_store.errors import StoreError

router = console_router()

VERDICTS = {
    "injected": "injected",
    "below_floor": "not near enough",
    "mmr": "others were chosen",
    "unlikely": "not likely to help",
    "unproven": "still to prove itself",
    "budget": "no room",
    "state": "not in use",
    "decision": "its kind is not given",
    "farther": "others were chosen",
    "untrusted": "only a consensus vouches for it",
    "conflict": "in conflict",
    "expired": "expired",
}


@router.get("/explain")
async def form(desk: At) -> Response:
    return await _page(desk, "", desk.state.settings.namespace)


@router.post("/explain")
async def explain(desk: At, form: Posted) -> Response:
    """A POST that changes nothing: the text may be long, and belongs in no log of addresses."""
    text, namespace = form.get("text"), form.get("namespace")
    try:
        body = validated(ExplainBody, text=text, namespace=namespace)
        found = await explain_text(body, desk.state, desk.caller)
    except (InvalidRequest, Overloaded) as error:
        desk.problem(error.message)
        return await _page(desk, text, namespace, status=error.status)
    except StoreError as error:
        known = from_store(error)
        desk.problem(known.message)
        return await _page(desk, text, namespace, status=known.status)
    return await _page(desk, text, namespace, found)


async def _page(
    desk: SignedInRequest,
    text: str,
    namespace: str,
    found: Explanation | None = None,
    *,
    status: int = 200,
) -> Response:
    return desk.page(
        "explain.html",
        status=status,
        text=text,
        namespace=namespace,
        namespaces=await desk.namespaces(),
        found=found,
        verdicts=VERDICTS,
    )
