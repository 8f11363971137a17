"""Log lines as an operator gets them: each with the ids of its request or job, none with what was
said there."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog
from pydantic import TypeAdapter
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from app.exceptions import ConfigurationError, UpstreamRejected
from app.observability.logs import configure, describe_error
from app.settings import LogFormat
from rules_store.errors import LeaseLost, StoreUnavailable
from tests.app.learning.test_local_worker import Bench, bench
from tests.compat.helpers import QUESTION, RULE, script_loop
from tests.fakes import Fault, HashEmbedder, Reply, ScriptedUpstream
from tests.gateway import CLIENT_KEY, MODEL, Gateway, running_gateway

__all__ = ["bench"]

SECRET = "zqapples"
IDS = ("request_id", "namespace", "episode")


class Lines(io.StringIO):
    @property
    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.all if line["event"] == event]

    async def until(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        for _ in range(1000):
            if len(found := self.of(event)) >= count:
                return found
            await asyncio.sleep(0.01)
        raise AssertionError(self.getvalue())


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """What `ttcl serve` would write to its standard error, at level INFO."""
    written = Lines()
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", written)
        configure(LogFormat.JSON, "INFO")
    yield written
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**before)


@pytest.fixture
def embedder() -> HashEmbedder:
    return HashEmbedder()


@pytest.fixture
def gw(
    upstream: ScriptedUpstream, embedder: HashEmbedder, lines: Lines, monkeypatch: Any
) -> Iterator[Gateway]:
    script_loop(upstream)
    with running_gateway(upstream, embedder=embedder, learn_concurrency=4) as gateway:
        yield gateway


def ask(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"{QUESTION} {SECRET} {number}"}],
        "ttcl": {"namespace": f"ns-{number}"},
        **fields,
    }


def ids_of(line: dict[str, Any]) -> tuple[str, ...]:
    return tuple(line[name] for name in IDS)


async def test_requests_side_by_side_keep_their_ids(
    gw: Gateway, upstream: ScriptedUpstream, embedder: HashEmbedder, lines: Lines
) -> None:
    """Whole answers and streams, at their beginning, at their end, and in what they teach."""
    count = 12
    upstream.default = Reply("one two three", chunk_delay=0.02)
    for number in range(count):
        gw.add_rule(f"ns-{number}", RULE, QUESTION)
    embedder.delay, embedder.failure = 0.05, ValueError(f"no vector for {SECRET}")

    async def one(number: int) -> tuple[str, ...]:
        request_id = f"asked-{number}"
        if number % 2:
            stream = await gw.sse(ask(number), X_Request_ID=request_id)
            headers = stream.response.headers
        else:
            headers = (await gw.post(ask(number), X_Request_ID=request_id)).headers
        assert headers["x-request-id"] == request_id
        return request_id, f"ns-{number}", headers["x-ttcl-episode"]

    asked = await asyncio.gather(*map(one, range(count)))
    early = await lines.until("question not embedded", count)
    assert sorted(map(ids_of, early[:count])) == sorted(asked)
    assert {line["error"] for line in early} == {"ValueError"}
    embedder.failure = None
    taught = await lines.until("learning", count)
    assert sorted(map(ids_of, taught)) == sorted(asked)
    assert SECRET not in lines.getvalue()


async def test_a_stream_keeps_its_ids_to_its_end(
    gw: Gateway, upstream: ScriptedUpstream, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> None:
        await asyncio.sleep(0.05)
        raise StoreUnavailable("The database can't be used now.")

    upstream.default = Reply("one two three", chunk_delay=0.02)
    monkeypatch.setattr(gw.app.state.ttcl.store.episodes, "finish", away)
    answers = await asyncio.gather(*(gw.sse(ask(number)) for number in range(6)))
    asked = [
        (a.response.headers["x-request-id"], f"ns-{n}", a.response.headers["x-ttcl-episode"])
        for n, a in enumerate(answers)
    ]
    ended = await lines.until("episode not finished", 6)
    assert sorted(map(ids_of, ended)) == sorted(asked)
    assert {line["error"] for line in ended} == {"The database can't be used now."}


async def test_a_pass_through_has_no_episode(
    gw: Gateway, upstream: ScriptedUpstream, lines: Lines
) -> None:
    upstream.default = Reply(fault=Fault.HANG)
    async with httpx.AsyncClient(timeout=0.5) as http:
        for mode in ("off", "steer"):
            body = ask(1, ttcl={"mode": mode, "namespace": "ns-1"})
            headers = {**gw.headers, "X-Request-ID": f"asked-{mode}"}
            with pytest.raises(httpx.ReadTimeout):
                await http.post(f"{gw.base_url}/chat/completions", json=body, headers=headers)
    off, steer = await lines.until("client gone", 2)
    assert (off["request_id"], off["namespace"]) == ("asked-off", "ns-1")
    assert "episode" not in off
    assert steer["request_id"] == "asked-steer"
    assert steer["episode"].startswith("ep_")


async def test_an_error_nobody_foresaw(
    gw: Gateway, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Type and place; what it says may quote the prompt, as a validation error does."""

    async def broken(call: Any) -> None:
        try:
            TypeAdapter(int).validate_python(call.question)
        except ValueError as error:
            raise KeyError(call.question) from error

    monkeypatch.setattr(gw.app.state.ttcl.service, "answer", broken)
    # As in `ttcl serve`, where the server has no handlers of its own.
    server = logging.getLogger("uvicorn")
    monkeypatch.setattr(server, "handlers", [])
    monkeypatch.setattr(server, "propagate", True)
    answer = await gw.post(ask(1), X_Request_ID="asked-1")
    assert answer.status_code == 500
    (line,) = await lines.until("unexpected error")
    (again,) = await lines.until("Exception in ASGI application\n")
    assert ids_of(again) == ids_of(line)
    assert ids_of(line)[:2] == ("asked-1", "ns-1")
    assert line["episode"].startswith("ep_")
    assert line["error"] == "KeyError"
    # The cause first, each with its traceback.
    assert "validate_python" in line["exception"]
    assert line["exception"].index("ValidationError\n") < line["exception"].rindex("in broken")
    assert line["exception"].endswith("KeyError")
    written = lines.getvalue()
    assert SECRET not in written
    assert CLIENT_KEY not in written
    for other in lines.all:
        assert other.get("request_id", "asked-1") == "asked-1"


async def test_a_connection_that_is_used_again_names_the_next_request(
    gw: Gateway, embedder: HashEmbedder, lines: Lines
) -> None:
    for number in (1, 2):
        gw.add_rule(f"ns-{number}", RULE, QUESTION)
    embedder.failure = ValueError("no")
    async with httpx.AsyncClient(headers=gw.headers) as http:
        url = f"{gw.base_url}/chat/completions"
        for number in (1, 2):
            learn = {"namespace": f"ns-{number}", "learn": False}
            answer = await http.post(url, json=ask(number, ttcl=learn))
            assert answer.status_code == 200
            (*_, line) = lines.of("question not embedded")
            assert ids_of(line) == (
                answer.headers["x-request-id"],
                f"ns-{number}",
                answer.headers["x-ttcl-episode"],
            )


async def test_a_request_sent_behind_another_has_none_of_its_ids(
    gw: Gateway, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task is begun by the one that answers the first."""
    answer = gw.app.state.ttcl.service.answer

    async def broken(call: Any) -> Any:
        if call.episode is None:
            raise KeyError("unforeseen")
        return await answer(call)

    def raw(mode: str) -> bytes:
        body = json.dumps(ask(1, ttcl={"mode": mode, "namespace": "ns-1"})).encode()
        lead = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Request-ID: asked-{mode}\r\n"
        rest = f"Authorization: Bearer {CLIENT_KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
        return (lead + rest).encode() + body

    monkeypatch.setattr(gw.app.state.ttcl.service, "answer", broken)
    port = int(gw.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw("steer") + raw("off"))
    assert b"200 OK" in await reader.readline()
    (line,) = await lines.until("unexpected error")
    writer.close()
    assert (line["request_id"], line["namespace"]) == ("asked-off", "ns-1")
    assert "episode" not in line


async def test_what_goes_wrong_with_a_job_is_told_with_its_ids(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is the worker that tells; and nothing after it has them any more."""

    async def lost(*_: Any, **__: Any) -> None:
        raise LeaseLost("The job belongs to another worker by now.")

    looked: list[int] = []
    waiting = bench.store.jobs.waiting

    async def away() -> int:
        looked.append(1)
        if len(looked) > 1:
            raise StoreUnavailable("The database can't be used now.")
        return await waiting()

    await bench.job()
    monkeypatch.setattr(bench.store.jobs, "apply", lost)
    monkeypatch.setattr(bench.store.jobs, "waiting", away)
    with capture_logs(processors=[merge_contextvars]) as captured:
        bench.worker.start()
        bench.worker.wake()
        for _ in range(500):
            if len(captured) >= 2:
                break
            bench.worker.wake()
            await asyncio.sleep(0.01)
        await bench.worker.stop()
    first, second, *_ = captured
    assert (first["event"], first["episode"], first["namespace"]) == (
        "lease lost",
        "ep_1",
        "default",
    )
    assert first["request_id"] == "ep_1"  # a job that does not name its request
    assert second["event"] == "learning waits for the store"
    assert not set(IDS) & set(second)


@pytest.mark.parametrize(
    ("error", "told", "verbose"),
    [
        (ValueError(SECRET), "ValueError", f"ValueError: {SECRET}"),
        (
            UnicodeEncodeError("utf-8", SECRET, 0, 1, "surrogates"),
            "UnicodeEncodeError",
            "UnicodeEncodeError: 'utf-8' codec can't encode character '\\x7a' in position 0: "
            "surrogates",
        ),
        (
            UpstreamRejected(SECRET, status=400),
            "UpstreamRejected: 400",
            f"UpstreamRejected: {SECRET}",
        ),
        (StoreUnavailable("Locked."), "StoreUnavailable: Locked.", "StoreUnavailable: Locked."),
        (ConfigurationError("mend it"), "ConfigurationError: mend it", None),
        (OSError(28, "No space left"), "OSError: [Errno 28] No space left", None),
    ],
)
def test_what_an_error_says(error: Exception, told: str, verbose: str | None) -> None:
    assert describe_error(error) == told
    assert describe_error(error, verbose=True) == (verbose or told)


def test_at_debug_errors_say_it_all(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    log = structlog.get_logger("any")

    def tell() -> None:
        try:
            raise ExceptionGroup("several", [ValueError(SECRET)])
        except ExceptionGroup as error:
            log.error("told", error=error, exc_info=error)
            logging.getLogger("library").error("of a library", exc_info=error)

    tell()
    quiet = lines.getvalue()
    assert quiet.count("ExceptionGroup") >= 3
    assert SECRET not in quiet
    monkeypatch.setattr(sys, "stderr", lines)
    configure(LogFormat.JSON, "DEBUG")
    tell()
    loud = lines.getvalue().removeprefix(quiet)
    assert [SECRET in line for line in loud.splitlines()] == [True, True]
