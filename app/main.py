"""`create_app`: the gateway as an ASGI application; `app.wiring` builds what it serves with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline

from app import __version__
from app.access.admin_key import load_admin_key
from app.api import (
    about,
    admin,
    chat,
    errors,
    feedback,
    formats,
    health,
    models,
    openapi,
    passthrough,
)
from app.api.entrance import Doors, KeyFirst, WholeBody
from app.api.middleware import CrossOrigin, Head, RequestId, Traces
from app.chat.formats import FORMATS
from app.console import site
from app.exceptions import TTCLError
from app.observability.tracing import NO_TRACES, open_tracer
from app.settings import Settings
from app.upstream.embeddings import Embedder
from app.wiring.container import AdminState
from app.wiring.factories import load_prompts
from app.wiring.gateway import open_gateway


def create_admin_api(state: AdminState | None = None) -> FastAPI:
    """The admin API and feedback alone, for commands: no port, no middleware. Without a state it
    can only be described."""
    unique = openapi.operation_id
    app = FastAPI(title="ttcl", version=__version__, generate_unique_id_function=unique)
    app.state.ttcl = state
    errors.install(app)
    for module in (feedback, admin):
        app.include_router(module.router)
    return app


def describe_admin_api() -> dict[str, Any]:
    """The OpenAPI document of `create_admin_api`."""
    app = create_admin_api()
    return get_openapi(title=app.title, version=app.version, routes=app.routes)


def create_app(settings: Settings, *, embedder: Embedder | None = None) -> FastAPI:
    """The gateway. Raises `ConfigurationError` for what can be known to be wrong at once;
    `embedder` replaces the one that the settings name (for tests)."""
    prompts = load_prompts(settings)
    key = load_admin_key(settings)
    tracer = open_tracer()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(tracer.close)
            try:
                app.state.ttcl = await open_gateway(settings, prompts, key, tracer, stack, embedder)
            except TTCLError as error:
                app.state.startup_error = error
                raise
            yield

    # Its pages of the API are whole where there is no internet.
    app = FastAPIOffline(
        title="ttcl",
        version=__version__,
        summary="A frozen language model that gets better at its work, at test time",
        lifespan=lifespan,
        # FastAPI's own spans would double ours, and its logs carry what exceptions say.
        telemetry={"tracing": False, "logs": False},
        generate_unique_id_function=openapi.operation_id,
        static_url="/docs/static",
        # Or a page that is not on this machine's own address asks a host of Swagger's for a badge.
        swagger_ui_parameters={"validatorUrl": None},
    )
    errors.install(app)
    openapi.install(app)
    app.add_middleware(Head)
    doors = Doors(settings.pass_paths)
    app.add_middleware(WholeBody, doors=doors, limit=settings.max_body_bytes)
    app.add_middleware(KeyFirst, doors=doors, origins=settings.cors_origins)
    if tracer is not NO_TRACES:
        app.add_middleware(Traces, tracer=tracer, paths=(chat.PATH, *FORMATS))
    if settings.cors_origins:
        app.add_middleware(CrossOrigin, origins=settings.cors_origins)
    app.add_middleware(RequestId)
    for module in (about, chat, formats, models, feedback, health, admin):
        app.include_router(module.router)
    app.include_router(passthrough.passing(settings.pass_paths))
    site.install(app)
    return app
