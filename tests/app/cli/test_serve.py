"""What `ttcl serve` says when it begins."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from app.cli import serve
from app.exceptions import ConfigurationError
from app.settings import Settings
from tests.fakes import ScriptedUpstream


def settings_of(upstream: ScriptedUpstream, **given: Any) -> Settings:
    return Settings(_env_file=None, upstream_base_url=upstream.base_url, **given)


def test_a_port_in_use_is_named(upstream: ScriptedUpstream) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"TTCL_PORT: 127.0.0.1:{port} can't be bound"):
            serve._listen(settings_of(upstream, port=port))
