"""`GET /v1/models` and `GET /v1/models/{id}`: the upstream's models, each with its mode names."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from app.api.dependencies import State, client
from app.api.schemas.common import Model, Models, gives
from app.chat.request import split_model
from app.domain.trajectory import Mode
from app.exceptions import ModelNotFound
from app.upstream.capabilities import ModelInfo

router = APIRouter(tags=["chat"], dependencies=[Depends(client)])

LISTED = (Mode.OFF, Mode.EXPLORE)


def _shape(info: ModelInfo, name: str) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": info.created,
        "owned_by": info.owned_by,
    }
    if info.context_length is not None:
        shape["max_model_len"] = info.context_length
    return shape


@router.get(
    "/v1/models",
    summary="List the models, each also under its mode names",
    responses=gives(Models, also=(502, 504)),
)
async def list_models(state: State) -> dict[str, Any]:
    data = []
    for info in (await state.upstream.models()).values():
        data.append(_shape(info, info.id))
        data.extend(_shape(info, f"{info.id}+{mode.value}") for mode in LISTED)
    return {"object": "list", "data": data}


@router.get(
    "/v1/models/{name:path}",
    summary="One model, by its own or a mode name",
    responses=gives(Model, also=(502, 504)),
)
async def get_model(name: str, state: State) -> dict[str, Any]:
    models = await state.upstream.models()
    base, _ = split_model(name)
    info = models.get(name) or models.get(base)
    if info is None:
        raise ModelNotFound(f"The model '{name}' does not exist", param="model")
    return _shape(info, name)
