"""One furnished gateway for the console's tests; those that change rules make their own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.app.console.visitor import Visitor
from tests.app.console.world import SETTINGS, World, furnish
from tests.fakes import ScriptedUpstream
from tests.gateway import Gateway, running_gateway


@pytest.fixture(scope="package")
def _upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture(scope="package")
def site(_upstream: ScriptedUpstream) -> Iterator[Gateway]:
    with running_gateway(_upstream, **SETTINGS) as running:
        yield running


@pytest.fixture(scope="package")
def world(site: Gateway, _upstream: ScriptedUpstream) -> World:
    return furnish(site, _upstream)


@pytest.fixture
def visitor(site: Gateway) -> Iterator[Visitor]:
    """Somebody who has logged in as `ada`."""
    with Visitor(site.url) as one:
        assert one.log_in(actor="ada").status_code == 303
        yield one


@pytest.fixture
def stranger(site: Gateway) -> Iterator[Visitor]:
    with Visitor(site.url) as one:
        yield one


@pytest.fixture
def namespace() -> str:
    return f"ns-{uuid.uuid4().hex[:12]}"
