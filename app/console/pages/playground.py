"""Ask something, and see the answer with experience beside the one without."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Any

from fastapi.responses import Response

from app.api.errors import from_store
from app.api.streaming import ClientGone, LiveResponse, until_disconnect
from app.chat.call import Stream
from app.console.access import Asked, At, Form, SignedInRequest, Text, console_router
from app.console.asking import TRACE, WITH, WITHOUT, Asking, Inquiry, marked
from app.console.diff import compare
from app.console.rendering import HEADERS
from app.domain import json_text
from app.exceptions import TTCLError, UpstreamError
from rules_store.errors import StoreError, UnknownEpisode
from rules_store.models.episodes import PLAYGROUND, Episode, EpisodeFilter

router = console_router()

HERE = "/console/playground"
LATEST = 8
LINES = {**HEADERS, "Content-Type": "application/x-ndjson", "X-Accel-Buffering": "no"}


@router.get("/playground")
async def playground(
    desk: At, namespace: Text = "", episode: Text = "", question: Text = ""
) -> Response:
    first = Inquiry(namespace or desk.state.settings.namespace, question)
    if not episode:
        return await _page(desk, first)
    shown = await desk.state.store.episodes.get(episode)
    if not desk.caller.reaches(shown.namespace) or TRACE not in shown.trace:
        raise UnknownEpisode(episode)
    return await _page(desk, Inquiry(**shown.trace[TRACE]["asked"]), shown)


@router.post("/playground")
async def ask(desk: At, form: Asked) -> Response:
    """Without script: both answers at once, when both are there."""
    inquiry = _inquiry(desk, form)
    try:
        asking = await _asking(desk, inquiry)
        await until_disconnect(desk.request, _to_the_end(asking))
    except ClientGone:
        return Response(status_code=499)
    except (TTCLError, StoreError) as error:
        known = from_store(error) if isinstance(error, StoreError) else error
        desk.problem(known.message)
        return await _page(desk, inquiry, status=known.status)
    return desk.go(f"{HERE}?episode={asking.episode}#result", "Asked: two calls.")


@router.post("/playground/stream")
async def stream(desk: At, form: Asked) -> Response:
    """JSON lines: `{"side", "text"}` as they come, at last `{"episode"}` to be shown, or
    `{"error"}`."""
    asking = await _asking(desk, _inquiry(desk, form))
    lines = _lines(asking)
    return LiveResponse(Stream(lines, LINES, lines.aclose))


async def _asking(desk: SignedInRequest, inquiry: Inquiry) -> Asking:
    request_id: str = desk.request.state.request_id
    return await Asking.of(desk.state, desk.caller, inquiry, request_id)


async def _to_the_end(asking: Asking) -> None:
    async for _ in asking.pieces():
        pass


async def _lines(asking: Asking) -> AsyncGenerator[bytes]:
    try:
        async for side, text in asking.pieces():
            yield _line(side=side, text=text)
        yield _line(episode=asking.episode)
    except StoreError as error:
        yield _line(error=from_store(error).message)
    except TTCLError as error:
        yield _line(error=error.message)


def _line(**fields: Any) -> bytes:
    return json_text.dumps(fields) + b"\n"


def _inquiry(desk: SignedInRequest, form: Form) -> Inquiry:
    return Inquiry(
        namespace=form.get("namespace") or desk.state.settings.namespace,
        question=form.get("question"),
        system=form.get("system"),
        model=form.get("model"),
        greedy=bool(form.get("greedy")),
    )


async def _page(
    desk: SignedInRequest, inquiry: Inquiry, episode: Episode | None = None, *, status: int = 200
) -> Response:
    store = desk.state.store
    earlier = EpisodeFilter(
        namespace=inquiry.namespace or None, namespaces=desk.within, reason=PLAYGROUND
    )
    try:
        models = list(await desk.state.upstream.models())
    except UpstreamError as error:
        models = []
        desk.problem(f"The model server can't be asked now: {error.message}")
    return desk.page(
        "playground.html",
        status=status,
        inquiry=inquiry,
        greedy=inquiry.greedy,
        models=models,
        namespaces=await desk.namespaces() or [desk.state.settings.namespace],
        latest=(await store.episodes.list(earlier, limit=LATEST)).items,
        **await _shown(desk, episode),
    )


async def _shown(desk: SignedInRequest, episode: Episode | None) -> dict[str, Any]:
    if episode is None:
        return {"episode": None}
    trace = episode.trace
    answers = trace[TRACE]["answers"]
    inquiry = Inquiry(**trace[TRACE]["asked"])
    with_it, without = compare(answers[WITH]["text"], answers[WITHOUT]["text"])
    sent = trace.get("messages_sent")
    return {
        "episode": episode,
        "trace": trace,
        "sides": [
            ("With experience", "with", answers[WITH], with_it),
            ("The model alone", "without", answers[WITHOUT], without),
        ],
        "same": answers[WITH]["text"] == answers[WITHOUT]["text"],
        "sent": marked(sent, inquiry.messages) if sent else [],
        "feedback": await desk.state.store.evidence.feedback_of(episode.id),
        "key": f"console-{secrets.token_hex(8)}",
        "asked": asdict(inquiry),
    }
