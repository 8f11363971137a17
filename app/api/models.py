"""`GET /v1/models` and `GET /v1/models/{id}`: the upstream's models, each with its mode names."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from app.api.dependencies import State, client
from app.api.schemas.common import Model, Models, refuses
from app.chat.request import split_model
from app.domain.trajectory import Mode
from app.exceptions import ModelNotFound
from app.upstream.capabilities import ModelInfo

router = APIRouter(tags=["chat"], dependencies=[Depends(client)])

LISTED = (Mode.OFF, Mode.EXPLORE)


def _model(info: ModelInfo, name: str) -> dict[str, Any]:
    """What the upstream says of it, completed by what OpenAI's clients read."""
    known = {"object": "model", "created": info.created, "owned_by": info.owned_by}
    if info.context_length is not None:
        known["max_model_len"] = info.context_length
    return {**known, **info.told, "id": name}


@router.get(
    "/v1/models",
    summary="List the models, each also under its mode names",
    responses=refuses(502, 504),
    response_model=Models,
)
async def list_models(state: State) -> JSONResponse:
    data = []
    for info in (await state.upstream.models()).values():
        data.append(_model(info, info.id))
        if state.settings.mode_names:
            data.extend(_model(info, f"{info.id}+{mode.value}") for mode in LISTED)
    return JSONResponse({"object": "list", "data": data})


@router.get(
    "/v1/models/{name:path}",
    summary="One model, by its own or a mode name",
    responses=refuses(502, 504),
    response_model=Model,
)
async def get_model(name: str, state: State) -> JSONResponse:
    models = await state.upstream.models()
    base, _ = split_model(name)
    info = models.get(name) or models.get(base)
    if info is None:
        raise ModelNotFound(f"The model '{name}' does not exist", param="model")
    return JSONResponse(_model(info, name))
