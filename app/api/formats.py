"""`POST /v1/responses` and `POST /v1/messages`: steered as chat is, in their own formats. All other
methods and paths beneath them are passed through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.access.callers import Caller
from app.api.chat import served
from app.api.dependencies import Client, State
from app.chat.formats import FORMATS, ApiFormat
from app.wiring.container import AppState


def _endpoint(fmt: ApiFormat) -> Callable[[Request, AppState, Caller], Awaitable[Response]]:
    async def answer(request: Request, state: State, caller: Client) -> Response:
        return await served(request, state, caller, fmt)

    return answer


# The formats are others', and described there: our document has nothing to add to them.
router = APIRouter(include_in_schema=False)
for _path, _format in FORMATS.items():
    router.add_api_route(_path, _endpoint(_format), methods=["POST"], response_model=None)
