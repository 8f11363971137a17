"""`GET /v1/models` and `GET /v1/models/{id}`: the upstream's models, each with its mode names."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from app.api.dependencies import State, client
from app.api.schemas.common import Model, Models, refuses
from app.chat.request import split_model
from app.domain.trajectory import Mode
from app.exceptions import ModelNotFound
from app.upstream.capabilities import ModelInfo

router = APIRouter(tags=["chat"], dependencies=[Depends(client)])

LISTED = (Mode.OFF, Mode.EXPLORE)


def _model(info: ModelInfo, name: str) -> Model:
    return Model.of(info, id=name, object="model", max_model_len=info.context_length)


@router.get(
    "/v1/models",
    summary="List the models, each also under its mode names",
    responses=refuses(502, 504),
    response_model_exclude_none=True,
)
async def list_models(state: State) -> Models:
    data = []
    for info in (await state.upstream.models()).values():
        data.append(_model(info, info.id))
        data.extend(_model(info, f"{info.id}+{mode.value}") for mode in LISTED)
    return Models(data=data)


@router.get(
    "/v1/models/{name:path}",
    summary="One model, by its own or a mode name",
    responses=refuses(502, 504),
    response_model_exclude_none=True,
)
async def get_model(name: str, state: State) -> Model:
    models = await state.upstream.models()
    base, _ = split_model(name)
    info = models.get(name) or models.get(base)
    if info is None:
        raise ModelNotFound(f"The model '{name}' does not exist", param="model")
    return _model(info, name)
