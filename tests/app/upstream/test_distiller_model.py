"""When the model that writes rules is asked again, and what is said of it meanwhile."""

from __future__ import annotations

from typing import Any, cast

import pytest

from app.exceptions import (
    UpstreamError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.upstream.distiller_model import REST, DistillerModel

SAID = "What a client has asked, in its words"


@pytest.mark.parametrize(
    ("error", "failure", "rests"),
    [
        (UpstreamUnavailable("no connection"), "no connection", True),
        (UpstreamTimeout("no answer in time"), "no answer in time", True),
        (UpstreamError(SAID), "it answers with an error of its own", True),
        (UpstreamRejected(SAID, status=401), "it refuses, with status 401", False),
        (UpstreamRejected(SAID, status=400), None, False),
    ],
)
def test_a_failure_is_told_without_the_servers_words(
    error: UpstreamError, failure: str | None, rests: bool
) -> None:
    now = [0.0]
    model = DistillerModel(cast(Any, None), "large", clock=lambda: now[0])
    model.failed(error)
    assert (model.failure, model.rests) == (failure, rests)
    now[0] = REST
    assert not model.rests
    model.answered()
    assert model.failure is None
