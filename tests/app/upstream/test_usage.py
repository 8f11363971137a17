"""What an answer tells of its cost, however large it is."""

from __future__ import annotations

import json
import time

from app.domain.trajectory import Cost
from app.upstream.usage import LARGE, UsageReader

BODY = b'{"model": "m", "input": "twelve tokens"}'


def read(answer: bytes, body: bytes = BODY) -> Cost:
    reader = UsageReader("application/json")
    reader.read(answer)
    return reader.cost(body, whole=True)


def test_of_a_large_answer_the_usage_alone_is_read() -> None:
    """That stands at its end, whatever a text in it says."""
    usage = {"prompt_tokens": 40, "total_tokens": 40}
    said = {"text": '"usage": {"prompt_tokens": 9}', "data": [[0.5] * LARGE], "usage": usage}
    answer = json.dumps(said).encode()
    began = time.thread_time()
    assert read(answer) == Cost(1, 40, 0)
    assert time.thread_time() - began < 0.1


def test_a_large_answer_that_tells_nothing_is_estimated_by_its_request() -> None:
    for end in (b"", b'"usage"', b'"usage": {', b'"usage": ' + b"[" * 5_000):
        assert read(b'"' + b"x" * LARGE + end) == Cost(1, 3, 0)


def test_a_request_of_too_many_values_is_estimated_by_its_bytes() -> None:
    body = b'{"input": [' + b",".join([b"{}"] * 1_000_000) + b"]}"
    began = time.thread_time()
    assert read(b"{}", body).tokens == len(body) // 4
    assert time.thread_time() - began < 0.2
