"""What is read out of a model server's answers."""

from __future__ import annotations

import json
import time

from app.upstream.capabilities import is_context_overflow
from app.upstream.refusals import refused_field, refuses_system_role
from app.upstream.wire import error_from


def test_a_refusal_that_repeats_the_request_is_read_at_its_ends() -> None:
    said = "seed is not allowed: " + "not system " * 200_000
    body = {"error": {"message": said}}
    began = time.thread_time()
    error = error_from(400, json.dumps(body).encode(), None)
    assert not is_context_overflow(error)
    assert refuses_system_role(error)
    assert refused_field(error, ["temperature", "seed"]) == "seed"
    assert time.thread_time() - began < 0.2
    assert error.body == body, "the client gets all of it"
