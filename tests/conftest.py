"""Fixtures for all tests. Only loopback can be reached, whatever a test or a library tries."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import settings

from tests import postgres
from tests.fakes import HashEmbedder, ScriptedUpstream

pytest_plugins = ["tests.engine_fixture"]

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

_LOOPBACK = ("127.", "localhost", "::1", "0.0.0.0")


def pytest_configure(config: pytest.Config) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_OFFLINE"] = "1"
    # A developer's own settings must not steer the tests.
    for name in [name for name in os.environ if name.startswith(("TTCL_", "OTEL_"))]:
        if name not in ("TTCL_TEST_VLLM", "TTCL_VLLM_PYTHON"):
            del os.environ[name]
    # The default prints every local of a traceback, which takes seconds.
    structlog.configure(
        # Not to the standard output, which tests of commands read.
        logger_factory=structlog.PrintLoggerFactory(sys.__stderr__),
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["level", "event"]),
        ],
    )
    sys.addaudithook(_loopback_only)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files are dealt out to the workers in this order: the long ones first, so that none is left
    # to one worker alone at the end.
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=lambda item: not item.nodeid.startswith("tests/e2e/"))


def _loopback_only(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = args[1]
    elif event == "socket.getaddrinfo":
        address = args
    else:
        return
    if not isinstance(address, tuple) or address[0] is None:
        return  # a Unix socket, or the wildcard of a listener
    host = address[0].decode() if isinstance(address[0], bytes) else str(address[0])
    if not host.startswith(_LOOPBACK):
        raise PermissionError(f"tests reach loopback only, not {host}")


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture
def embedder() -> HashEmbedder:
    return HashEmbedder()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a real PostgreSQL server, without a database."""
    if postgres.programs() is None:
        if os.environ.get("REQUIRE_POSTGRES"):
            pytest.fail("PostgreSQL is not installed: make postgres")
        pytest.skip("PostgreSQL is not installed")
    with postgres.shared_server() as url:
        yield url
