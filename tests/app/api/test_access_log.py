"""One line a request in the log: what it was, what it came to, and no words of anybody's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.app.chat.test_experience import QUESTION, Service, running
from tests.fakes import Reply, ScriptedUpstream
from tests.gateway import MODEL


@pytest.fixture
async def service(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Service]:
    async with running(upstream, tmp_path, control_rate=1.0) as found:
        yield found


def request_of(lines: list[Any]) -> dict[str, Any]:
    (line,) = [each for each in lines if each["event"] == "request"]
    assert QUESTION not in str(line)
    return dict(line)


async def test_an_answer(service: Service) -> None:
    with capture_logs() as lines:
        await service.ask()
    line = request_of(lines)
    assert line.pop("milliseconds") > 0
    assert line.pop("prompt_tokens") > 0
    assert line.pop("completion_tokens") > 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "path": "/v1/chat/completions",
        "status": 200,
        "mode": "steer",
        "model": MODEL,
        "arm": "control",
        "learning": "learning_off",
    }


async def test_a_stream_has_its_line_at_its_end(service: Service) -> None:
    with capture_logs() as lines:
        await service.ask(stream=True, stream_options={"include_usage": True})
    line = request_of(lines)
    assert (line["status"], line["arm"]) == (200, "control")
    assert line["completion_tokens"] > 0


async def test_off_and_what_is_passed_through(service: Service) -> None:
    with capture_logs() as lines:
        await service.ask(ttcl={"mode": "off"})
    line = request_of(lines)
    assert (line["mode"], line["status"]) == ("off", 200)
    assert "arm" not in line
    assert line["prompt_tokens"] > 0
    with capture_logs() as lines:
        await service.http.get("/version")
    assert request_of(lines)["path"] == "/version"


async def test_the_upstreams_error(service: Service, upstream: ScriptedUpstream) -> None:
    upstream.when(lambda body: True, Reply(status=400, body={"error": {"message": QUESTION}}))
    body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}
    with capture_logs() as lines:
        await service.http.post("/v1/chat/completions", json=body)
    (line,) = [each for each in lines if each["event"] == "request"]
    # As an exception, of which a log line has kind and status (`app.observability.logs`).
    assert line["status"] == line["error"].status == 400


async def test_what_is_no_request_at_all(service: Service) -> None:
    with capture_logs() as lines:
        await service.http.post("/v1/chat/completions", content=b"{")
    line = request_of(lines)
    assert (line["status"], line["mode"]) == (400, "unknown")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/admin/v1/rules", 403),
        ("GET", "/v1/nothing", 404),
        ("GET", f"/{'x' * 1000}", 404),
        ("DELETE", "/v1/feedback", 405),
    ],
)
async def test_what_nobody_took_on(service: Service, method: str, path: str, status: int) -> None:
    with capture_logs() as lines:
        await service.http.request(method, path)
    line = request_of(lines)
    assert (line["method"], line["path"], line["status"]) == (method, path[:200], status)


async def test_who_watches_leaves_no_lines(service: Service, upstream: ScriptedUpstream) -> None:
    upstream.down()
    with capture_logs() as lines:
        assert (await service.http.get("/readyz")).status_code == 503
    assert [line for line in lines if line["event"] == "request"] == []
    upstream.up()


async def test_a_wrong_key(service: Service) -> None:
    with capture_logs() as lines:
        wrong = {"Authorization": "Bearer of-nobody"}
        await service.http.get("/admin/v1/rules", headers=wrong)
    assert request_of(lines)["status"] == 401
    assert "of-nobody" not in str(lines)
