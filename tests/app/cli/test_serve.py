"""What `ttcl serve` says when it begins."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.cli import serve
from app.exceptions import ConfigurationError
from app.settings import Settings
from tests.fakes import ScriptedUpstream
from tests.gateway import MODEL

URL = "http://127.0.0.1:8080"


def settings_of(upstream: ScriptedUpstream, **given: Any) -> Settings:
    return Settings(_env_file=None, upstream_base_url=upstream.base_url, **given)


def test_the_curl_line_names_a_model_that_is_served(
    upstream: ScriptedUpstream, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve._banner(settings_of(upstream), URL, tmp_path / "admin.key")
    assert f'"model": "{MODEL}"' in capsys.readouterr().err
    upstream.down()
    serve._banner(settings_of(upstream), URL, tmp_path / "admin.key")
    assert '"model": "MODEL"' in capsys.readouterr().err


def test_json_logs_begin_with_json(
    upstream: ScriptedUpstream, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with capture_logs() as lines:
        serve._banner(settings_of(upstream, log_format="json"), URL, tmp_path / "admin.key")
    assert capsys.readouterr().err == ""
    (told,) = lines
    assert (told["event"], told["url"]) == ("serving", f"{URL}/v1")
    assert told["admin_key"] == str(tmp_path / "admin.key")
    assert "learning" in told["cost"]


def test_a_port_in_use_is_named(upstream: ScriptedUpstream) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"TTCL_PORT: 127.0.0.1:{port} can't be bound"):
            serve._listen(settings_of(upstream, port=port))
