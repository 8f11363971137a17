"""Whole answers that are too long to be read while others wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from app.upstream.wire import MOST_READ, NOT_READ
from tests.app.api.inference_server import InferenceServer, Told
from tests.app.api.test_passthrough import made_key
from tests.gateway import NO_TLS, Gateway, running_gateway

QUESTION = [{"role": "user", "content": "Q"}]
CHAT = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "A" * MOST_READ}}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
}
MESSAGES = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": "A" * MOST_READ}],
    "usage": {"input_tokens": 7, "output_tokens": 5},
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with InferenceServer() as server:
        server.answers["/v1/models"] = Told(body={"data": [{"id": "m"}]})
        server.answers["/v1/chat/completions"] = Told(body=orjson.dumps(CHAT))
        server.answers["/v1/messages"] = Told(body=orjson.dumps(MESSAGES))
        with running_gateway(server) as running:  # type: ignore[arg-type]
            yield running


@pytest.mark.parametrize("mode", ["off", "steer"])
@pytest.mark.parametrize(
    ("path", "answer"), [("/v1/chat/completions", CHAT), ("/v1/messages", MESSAGES)]
)
def test_it_goes_out_as_it_came(
    gateway: Gateway, path: str, answer: dict[str, Any], mode: str
) -> None:
    key = made_key(gateway, permissions=["chat", "learn"], tokens_per_day=12)

    def ask() -> httpx.Response:
        return httpx.post(
            gateway.url + path,
            headers={**key, "X-TTCL-Mode": mode},
            json={"model": "m", "messages": QUESTION, "max_tokens": 9},
            verify=NO_TLS,
            timeout=60,
        )

    response = ask()
    assert response.status_code == 200
    assert response.content == orjson.dumps(answer)
    degraded = response.headers.get("x-ttcl-degraded")
    assert degraded == (NOT_READ if mode == "steer" else None)
    assert ask().status_code == 429, "its usage is counted"
    if mode == "steer":
        skipped = gateway.admin("GET", f"/episodes/{response.headers['x-ttcl-episode']}").json()
        assert (skipped["status"], skipped["reason"]) == ("skipped", "answer_incomplete")
