"""Two gateways for the whole suite, one that learns and one that does not, before one upstream.

Every test scripts the upstream anew and uses a namespace of its own where rules matter.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.compat.helpers import QUESTION, RULE, RULED, script_loop
from tests.fakes import ScriptedUpstream
from tests.gateway import Gateway, running_gateway


@pytest.fixture(scope="session")
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
    shared_upstream.null_usage, shared_upstream.lax = True, False


@pytest.fixture(scope="session")
def _quiet(shared_upstream: ScriptedUpstream) -> Iterator[Gateway]:
    with running_gateway(shared_upstream, learn=False) as running:
        running.add_rule(RULED, RULE, QUESTION)
        yield running


@pytest.fixture
def gw(_quiet: Gateway, up: ScriptedUpstream) -> Gateway:
    """A gateway that does not learn, so that every upstream call is the request's own."""
    return _quiet


@pytest.fixture(scope="session")
def _learning(shared_upstream: ScriptedUpstream) -> Iterator[Gateway]:
    with running_gateway(shared_upstream, learn_concurrency=4) as running:
        yield running


@pytest.fixture
def learner(_learning: Gateway, up: ScriptedUpstream) -> Gateway:
    """A gateway that learns from every request."""
    return _learning


@pytest.fixture
def namespace() -> str:
    return f"ns-{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=["off", "steer", "explore"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)
