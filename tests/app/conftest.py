"""One scripted upstream and one gateway for all these tests; namespaces keep them apart."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.compat.helpers import script_loop
from tests.fakes import ScriptedUpstream
from tests.gateway import Gateway, running_gateway


@pytest.fixture(scope="session")
def shared_upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture
def up(shared_upstream: ScriptedUpstream) -> Iterator[ScriptedUpstream]:
    """The upstream with Tutor and distiller scripted and an empty history."""
    shared_upstream.reset()
    script_loop(shared_upstream)
    yield shared_upstream
    shared_upstream.reset()


@pytest.fixture(scope="session")
def _gateway(shared_upstream: ScriptedUpstream) -> Iterator[Gateway]:
    with running_gateway(shared_upstream) as running:
        yield running


@pytest.fixture
def gw(_gateway: Gateway, up: ScriptedUpstream) -> Gateway:
    """A gateway that learns, before the scripted upstream."""
    return _gateway


@pytest.fixture
def namespace() -> str:
    """A name that no other test uses; the namespace itself comes with its first use."""
    return f"ns-{uuid.uuid4().hex[:12]}"
