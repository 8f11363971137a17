"""One learning gateway before one scripted upstream for all clients of other people's making."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.compat.helpers import QUESTION, RULE, RULED, script_loop
from tests.fakes import ScriptedUpstream
from tests.gateway import Gateway, running_gateway


@pytest.fixture(scope="package")
def shared_upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture
def up(shared_upstream: ScriptedUpstream) -> Iterator[ScriptedUpstream]:
    """The upstream with Tutor and distiller scripted; the test says what the answers are."""
    shared_upstream.reset()
    script_loop(shared_upstream)
    yield shared_upstream
    shared_upstream.reset()


@pytest.fixture(scope="package")
def _running(shared_upstream: ScriptedUpstream) -> Iterator[Gateway]:
    with running_gateway(shared_upstream, learn_concurrency=4) as running:
        running.add_rule(RULED, RULE, QUESTION)
        yield running


@pytest.fixture
def gw(_running: Gateway, up: ScriptedUpstream) -> Gateway:
    """Its namespace RULED has one rule; requests there should say `learn: false`."""
    return _running


@pytest.fixture
def namespace() -> str:
    return f"ns-{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=["off", "steer", "explore"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)
