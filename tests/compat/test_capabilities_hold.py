"""What a client sends moves no capability of a model that all share: a refusal counts only where a
field of the loop's own was the cause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from app.upstream.capabilities import TOKENIZER
from app.upstream.client import Upstream
from tests.app.api.inference_server import InferenceServer, Told
from tests.compat.helpers import QUESTION
from tests.compat.test_any_upstream import loop_answer, refused
from tests.gateway import Gateway, running_gateway

Body = dict[str, Any]


def exact(body: Body) -> Told:
    """Takes all that the loop adds, and names what is wrong with a value by whatever is near it."""
    if not 0 <= body.get("top_logprobs", 0) <= 20:
        return refused(400, "top_logprobs must be at most 20 where logprobs is set", "logprobs")
    if not isinstance(body.get("priority", 0), int):
        return refused(400, "priority must be an integer", "priority")
    if body.get("best_of", 1) > 1 and body.get("temperature") == 0:
        return refused(400, "temperature must be above 0 for best_of")
    if body.get("reasoning_effort", "low") not in ("low", "high"):
        return refused(400, "seed and reasoning_effort: unknown", "seed" if "seed" in body else "")
    if "odd" in body:
        return refused(422, "Unprocessable")
    if str(body["messages"]).count("fuss") and "stream_options" in body:
        return refused(400, "stream_options is not supported", "stream_options")
    return loop_answer(body)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with InferenceServer() as server:
        server.answers["/v1/models"] = Told(body={"data": [{"id": "exact"}]})
        server.answers["/v1/chat/completions"] = lambda asked: exact(orjson.loads(asked.body))
        with running_gateway(server, learn=False) as running:  # type: ignore[arg-type]
            yield running


@pytest.mark.parametrize(
    "sent",
    [
        {"logprobs": True, "top_logprobs": 9999},
        {"top_logprobs": 9999},
        {"priority": "high"},
        {"best_of": 2},
        {"reasoning_effort": "bogus"},
        {"odd": 1},
    ],
    ids=str,
)
async def test_a_clients_own_fields_move_nothing(gateway: Gateway, sent: Body) -> None:
    body = {"model": "exact", "messages": [{"role": "user", "content": QUESTION}], **sent}
    await gateway.post({**body, "ttcl": {"mode": "explore"}})
    found = gateway.app.state.ttcl.upstream.capabilities_of("exact")
    assert found.refused() == set()
    assert found.logprobs is not False


@pytest.mark.parametrize(("status", "words", "gone"), [(400, 1000, False), (404, 1, True)])
async def test_an_over_long_text_turns_no_tokenizer_off(
    status: int, words: int, gone: bool
) -> None:
    with InferenceServer() as server:
        server.answers["/tokenize"] = Told(status)
        client = Upstream(server.base_url)
        assert await client.count_tokens("m", "long " * words) is None
        assert client.capabilities_of("m").refuses(TOKENIZER) is gone
        await client.close()
