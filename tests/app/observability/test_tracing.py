"""Traces as a collector gets them: whose child each span is, and what none of them says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.trace import INVALID_SPAN
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from app.exceptions import ConfigurationError
from app.observability import tracing
from tests.compat.helpers import POSITIVE, QUESTION, RULE, script_loop
from tests.fakes import (
    Fault,
    HashEmbedder,
    Reply,
    ScriptedUpstream,
    is_distiller,
    is_student,
    is_teacher,
    is_tutor,
)
from tests.gateway import ADMIN_KEY, CLIENT_KEY, MODEL, Gateway, running_gateway
from tests.receiver import Receiver, Trace

ROOT = Path(__file__).parents[3]
CHAT = "POST /v1/chat/completions"
UPSTREAM = "upstream /chat/completions"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CLIENT_SPAN = "b7ad6b7169203331"
CLIENT = f"00-{TRACE_ID}-{CLIENT_SPAN}-01"
CALLS = {UPSTREAM: {}}
LEARNED = {
    "explore": {"teacher": CALLS, "tutor": CALLS, "student": CALLS},
    "select": {},
    "distil": CALLS,
    "admit": {},
    "merge": {},
}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as collector:
        yield collector


@pytest.fixture
def traced(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that is started from here on sends its traces to the receiver, soon."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


@pytest.fixture
def gw(upstream: ScriptedUpstream, traced: None) -> Iterator[Gateway]:
    script_loop(upstream)
    with running_gateway(upstream) as gateway:
        gateway.add_rule("ruled", RULE, QUESTION)
        yield gateway


def ask(mode: str = "steer", question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "ttcl": {"mode": mode, "namespace": "ruled", **fields.pop("ttcl", {})},
        **fields,
    }


def parent_of(header: str) -> tuple[str, str]:
    """Trace and span that a `traceparent` names."""
    return header.split("-")[1], header.split("-")[2]


# -- the tree -----------------------------------------------------------------------------------


async def test_a_steered_request_and_what_it_teaches(
    gw: Gateway, upstream: ScriptedUpstream, receiver: Receiver
) -> None:
    answer = await gw.post(ask(), traceparent=CLIENT, tracestate="vendor=1")
    episode = answer.headers["x-ttcl-episode"]
    assert len(answer.json()["ttcl"]["rules"]) == 1

    trace = receiver.trace(CHAT)
    root = trace.root
    assert (root.trace, root.parent, root.kind) == (TRACE_ID, CLIENT_SPAN, "SERVER")
    steer = {"embed": {}, "begin episode": {}, "retrieve": {}}
    assert trace.tree() == {
        "upstream /models": {},
        "steer": steer,
        UPSTREAM: {},
        "finish episode": {},
    }
    usage = answer.json()["usage"]
    assert root.attributes == {
        "ttcl.arm": "steered",
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.request.model": MODEL,
        "ttcl.request_id": answer.headers["x-request-id"],
        "ttcl.namespace": "ruled",
        "ttcl.episode": episode,
        "ttcl.mode": "steer",
        "ttcl.stream": False,
        "ttcl.rules": 1,
        "ttcl.examples": 0,
        "ttcl.given": "rules",
    }
    call = trace.one(UPSTREAM)
    assert call.kind == "CLIENT"
    assert call.attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert call.attributes["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert call.attributes["http.response.status_code"] == 200

    sent = upstream.chats[0].headers
    assert parent_of(sent["traceparent"]) == (TRACE_ID, call.id)
    assert sent["tracestate"] == "vendor=1"

    learned = receiver.trace("learn", episode=episode)
    assert learned.tree() == LEARNED
    assert (learned.root.parent, learned.root.links) == ("", (root.id,))
    assert learned.root.trace != TRACE_ID
    assert learned.root.attributes == {
        "ttcl.episode": episode,
        "ttcl.namespace": "ruled",
        "ttcl.attempt": 1,
        "ttcl.outcome": "learned",
    }
    students = learned.all("student")
    assert sorted(each.attributes["ttcl.index"] for each in students) == [1, 2, 3]
    assert learned.one("explore").attributes["ttcl.calls"] == 5
    assert not any(span.failed for span in receiver.spans)
    for asked in upstream.chats[1:]:
        trace_id, span_id = parent_of(asked.headers["traceparent"])
        assert trace_id == learned.root.trace
        assert span_id in {span.id for span in learned.all(UPSTREAM)}


@pytest.mark.parametrize("stream", [False, True])
async def test_an_explored_request(gw: Gateway, receiver: Receiver, stream: bool) -> None:
    if stream:
        assert (await gw.sse(ask("explore"))).done == 1
    else:
        assert (await gw.post(ask("explore"))).status_code == 200
    trace = receiver.trace(CHAT)
    tree = trace.tree()
    assert {"explore": tree["explore"], "select": tree["select"]} == {
        "explore": LEARNED["explore"],
        "select": {},
    }
    assert trace.root.parent == ""
    assert trace.root.attributes["ttcl.stream"] is stream
    assert trace.root.attributes["ttcl.mode"] == "explore"
    # Teacher, Tutor and a Student side by side, each from its own beginning.
    explore = trace.one("explore")
    assert len(trace.all("student")) == 3
    assert {span.parent for span in trace.all("student")} == {explore.id}
    assert trace.one("select").attributes["ttcl.case"] == "unanimous"


async def test_a_stream_is_traced_to_its_end(
    gw: Gateway, upstream: ScriptedUpstream, receiver: Receiver
) -> None:
    upstream.enqueue(Reply("one two three", chunk_delay=0.1))
    options = {"stream_options": {"include_usage": True}, "ttcl": {"learn": False}}
    answer = await gw.sse(ask(**options))
    trace = receiver.trace(CHAT)
    call, finish = trace.one(UPSTREAM), trace.one("finish episode")
    assert call.nanoseconds[1] - call.nanoseconds[0] > 0.2e9
    assert trace.root.nanoseconds[1] >= finish.nanoseconds[1] > call.nanoseconds[0] + 0.2e9
    assert (
        call.attributes["gen_ai.usage.output_tokens"]
        == (answer.frames[-1]["usage"]["completion_tokens"])
    )
    assert trace.root.attributes["ttcl.skipped"] == "learning_off"


async def test_off_is_a_request_and_a_call(
    gw: Gateway, upstream: ScriptedUpstream, receiver: Receiver
) -> None:
    await gw.post(ask("off"))
    upstream.reset()
    await gw.post(ask("off"), traceparent=CLIENT)
    receiver.until(lambda: [span for span in receiver.spans if span.parent == CLIENT_SPAN])
    (root,) = (span for span in receiver.spans if span.parent == CLIENT_SPAN)
    trace = Trace([span for span in receiver.spans if span.trace == TRACE_ID], root)
    assert trace.tree() == CALLS
    assert "ttcl.episode" not in root.attributes
    sent = upstream.chats[0].headers["traceparent"]
    assert parent_of(sent) == (TRACE_ID, trace.one(UPSTREAM).id)


@pytest.mark.parametrize("given", ["nonsense", f"00-{'0' * 32}-{CLIENT_SPAN}-01"])
async def test_a_traceparent_that_names_nothing_begins_a_trace(
    gw: Gateway, upstream: ScriptedUpstream, receiver: Receiver, given: str
) -> None:
    await gw.post(ask("off"), traceparent=given, tracestate="vendor=1")
    trace = receiver.trace(CHAT)
    assert trace.root.parent == ""
    sent = upstream.chats[0].headers
    assert parent_of(sent["traceparent"]) == (trace.root.trace, trace.one(UPSTREAM).id)
    assert "tracestate" not in sent


async def test_a_replay_is_a_trace_of_its_own(
    upstream: ScriptedUpstream, traced: None, receiver: Receiver
) -> None:
    # One rule from the first question, which is then tried on the others.
    rule = {"positive": POSITIVE, "negative": "", "trigger": "counting what is left"}
    upstream.when(is_distiller, [Reply.of_json(rule), Reply.of_json({**rule, "positive": ""})])
    upstream.when(is_tutor, Reply.of_json({"variants": []}))
    upstream.when(is_student, Reply("So \\boxed{7}."))
    upstream.when(is_teacher, Reply("So \\boxed{17}."))
    settings = {"policy": "gated", "similarity_floor": -1.0, "gate_calls_per_answer": 4}
    with running_gateway(upstream, **settings) as gw:
        episodes = []
        for count in ("one", "two", "three"):
            body = ask("explore", QUESTION.replace("five", count), ttcl={"task": "closed"})
            episodes.append((await gw.post(body)).headers["x-ttcl-episode"])
            gw.settled(episodes[-1])
        trace = receiver.trace("trial")
        (known,) = gw.rules("ruled")
    assert trace.tree() == {"replay": CALLS}
    assert (trace.root.parent, trace.root.links) == ("", ())
    assert trace.root.attributes["ttcl.namespace"] == "ruled"
    assert trace.root.attributes["ttcl.rule"] == known["id"]
    assert trace.root.attributes["ttcl.episode"] in episodes[1:]
    assert trace.root.attributes["ttcl.compared"] is True


# -- what fails ---------------------------------------------------------------------------------


async def test_a_client_that_leaves_cancels_spans(
    gw: Gateway, upstream: ScriptedUpstream, receiver: Receiver
) -> None:
    upstream.enqueue(Reply(fault=Fault.HANG))
    asking = asyncio.create_task(gw.post(ask()))
    await upstream.until(lambda: upstream.chats)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    trace = await asyncio.to_thread(receiver.trace, CHAT)
    assert trace.root.attributes["ttcl.skipped"] == "client_gone"
    assert trace.root.attributes["http.response.status_code"] == 499
    call = trace.one(UPSTREAM)
    assert call.attributes["ttcl.cancelled"] is True
    assert not call.failed


async def test_failures_are_marked_by_their_kind(
    gw: Gateway, upstream: ScriptedUpstream, receiver: Receiver
) -> None:
    upstream.enqueue(Reply.error(500), Reply(fault=Fault.CUT, after=1))
    assert (await gw.post(ask())).status_code == 500
    assert (await gw.sse(ask())).errors()
    receiver.until(lambda: len([s for s in receiver.spans if s.name == CHAT]) == 2)
    whole, cut = (span for span in receiver.spans if span.name == CHAT)
    assert (whole.failed, whole.attributes["error.type"]) == (True, "500")
    assert (cut.failed, cut.attributes["http.response.status_code"]) == (False, 200)
    calls = [span for span in receiver.spans if span.name == UPSTREAM]
    assert [(call.failed, call.attributes["error.type"]) for call in calls] == [
        (True, "500"),
        (True, "UpstreamUnavailable"),
    ]


async def test_nothing_that_was_said_is_exported(
    upstream: ScriptedUpstream, traced: None, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on good days nor by errors that quote: everything secret has `zq` in it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer collector-key")
    question = "How many zqapples are left when five of the twelve zqapples are eaten?"
    quoting = "can't read 'How many zqapples are left'"
    script_loop(upstream, wordings=("zqwording one?",), positive="Count every zqapple twice.")
    upstream.when(is_student, Reply("zqanswer \\boxed{7}"))
    upstream.when(is_teacher, [Reply("zqanswer \\boxed{8}"), Reply.error(400, quoting)])
    upstream.when("rejected", Reply.error(400, quoting))
    upstream.default = Reply("zqanswer", reasoning="zqthought")
    embedder = HashEmbedder()
    with running_gateway(upstream, embedder=embedder, upstream_api_key="zqkey") as gw:
        gw.add_rule("ruled", "Compare all zqapples.", question)
        await gw.post(ask("explore", question))
        await gw.post(ask("explore", question))
        episode = (await gw.post(ask("steer", question, user="zquser"))).headers["x-ttcl-episode"]
        await gw.sse(ask("steer", question))
        await gw.post(ask("steer", f"rejected {question}"))
        await gw.post(ask("nosuchmode", question))
        gw.settled(episode)
        embedder.failure = ValueError(question)
        degraded = await gw.post(ask("steer", question))
        assert degraded.json()["ttcl"]["degraded"] == ["embedder_failed"]
    exported = b"".join(receiver.raw)
    names = {span.name for span in receiver.spans}
    assert names >= {CHAT, UPSTREAM, "steer", "embed", "retrieve", "learn", *LEARNED, "student"}
    kinds = {span.attributes.get("error.type") for span in receiver.spans}
    assert kinds >= {"ValueError", "400"}
    degradations = [span.attributes.get("ttcl.degraded") for span in receiver.spans]
    assert ["embedder_failed"] in degradations
    assert b"ttcl.episode" in exported
    for secret in (b"zq", b"apples", CLIENT_KEY.encode(), ADMIN_KEY.encode(), b"collector-key"):
        assert secret not in exported
    assert not any(span.said or span.events for span in receiver.spans)
    assert receiver.headers[0]["authorization"] == "Bearer collector-key"


# -- the collector's troubles are not the client's ------------------------------------------------


async def test_a_collector_that_is_away(
    upstream: ScriptedUpstream, receiver: Receiver, traced: None
) -> None:
    with Receiver() as gone:
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", gone.url)
        with running_gateway(upstream) as gw:
            for _ in range(5):
                started = time.monotonic()
                assert (await gw.post(ask())).status_code == 200
                assert time.monotonic() - started < 2
                time.sleep(0.1)  # the exporter has begun to retry
            stopping = time.monotonic()
    assert time.monotonic() - stopping < tracing.FLUSH + 5
    assert gone.spans == []


async def test_a_collector_that_never_answers(
    upstream: ScriptedUpstream, receiver: Receiver, traced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "FLUSH", 1.0)
    receiver.hang = True
    with running_gateway(upstream) as gw:
        assert (await gw.post(ask())).status_code == 200
        assert receiver.asked.wait(10)
        started = time.monotonic()
        assert (await gw.sse(ask())).done == 1
        assert time.monotonic() - started < 2
        stopping = time.monotonic()
    assert 0.9 < time.monotonic() - stopping < 6
    assert receiver.spans == []


async def test_the_last_spans_are_sent_at_the_end(
    upstream: ScriptedUpstream, receiver: Receiver, traced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    with running_gateway(upstream, learn=False) as gw:
        await gw.post(ask())
        time.sleep(0.2)
        assert receiver.spans == []
    assert CHAT in {span.name for span in receiver.spans}


# -- what turns it on, and off ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "ttcl"),
        ({"OTEL_SERVICE_NAME": "mine"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=ours,team=a"}, "ours"),
    ],
)
async def test_the_service_has_a_name(
    upstream: ScriptedUpstream,
    receiver: Receiver,
    traced: None,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    expected: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with running_gateway(upstream) as gw:
        await gw.post(ask("off"))
    assert {span.resource["service.name"] for span in receiver.spans} == {expected}


@pytest.mark.parametrize(
    ("sampler", "traceparent", "flags"),
    [
        ("always_off", CLIENT, "00"),
        ("parentbased_always_on", CLIENT.removesuffix("01") + "00", "00"),
        ("always_on", CLIENT.removesuffix("01") + "00", "01"),
    ],
)
async def test_the_sampler_decides_and_the_upstream_is_told(
    upstream: ScriptedUpstream,
    receiver: Receiver,
    traced: None,
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    traceparent: str,
    flags: str,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    with running_gateway(upstream, learn=False) as gw:
        assert (await gw.post(ask(), traceparent=traceparent)).status_code == 200
    assert bool(receiver.spans) is (flags == "01")
    sent = upstream.chats[0].headers["traceparent"]
    assert parent_of(sent)[0] == TRACE_ID
    assert sent.endswith(f"-{flags}")


OFF = [
    {},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "TRUE"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
]


@pytest.mark.parametrize("variables", OFF)
def test_off(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.open_tracer() is tracing.NO_TRACES
    assert tracing.trace_headers(tracing.outgoing("upstream")) == {}
    assert not tracing.traced()


def test_on_by_either_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    assert tracing.receiver() == "http://127.0.0.1:9"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:10/traces")
    assert tracing.receiver() == "http://127.0.0.1:10/traces"


async def test_off_the_clients_trace_goes_upstream_as_it_came(
    upstream: ScriptedUpstream,
) -> None:
    with running_gateway(upstream, learn=False) as gw:
        await gw.post(ask(), traceparent=CLIENT, tracestate="vendor=1")
    sent = upstream.chats[0].headers
    assert (sent["traceparent"], sent["tracestate"]) == (CLIENT, "vendor=1")


@pytest.mark.parametrize("wanted", [False, True])
def test_off_loads_no_sdk(wanted: bool) -> None:
    """In a process of its own, with a gateway built and a span asked for."""
    code = (
        "import sys, tempfile; from pathlib import Path\n"
        "from app.main import create_app; from app.settings import Settings\n"
        "from app.observability.tracing import span\n"
        "folder = Path(tempfile.mkdtemp())\n"
        "create_app(Settings(_env_file=None, data_dir=folder, upstream_base_url='http://x'))\n"
        "with span('steer'): pass\n"
        "print(any(m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter')) "
        "for m in sys.modules))"
    )
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"} if wanted else {}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": "", **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == [str(wanted)], done.stderr


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "must start with http"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf only, not grpc"),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"}, "an OTEL_ variable can't be used"),
    ],
)
def test_what_cant_be_done_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=said):
        tracing.open_tracer()


@pytest.mark.parametrize(
    "missing", ["opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"]
)
def test_without_the_extra_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'ttcl\[otel\]'"):
        tracing.open_tracer()


async def test_other_paths_are_not_traced(gw: Gateway, receiver: Receiver) -> None:
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{gw.url}/readyz")).status_code == 200
    await gw.post(ask("off"))
    assert receiver.trace(CHAT).tree() == CALLS  # /readyz has asked for the models
    assert {span.name for span in receiver.spans} == {CHAT, UPSTREAM}


def test_where_nothing_is_traced_every_span_is_the_same_one() -> None:
    with tracing.span("steer", rules=3) as step:
        assert step is tracing.outgoing("embed") is tracing.current() is INVALID_SPAN


async def test_log_lines_name_the_trace(
    upstream: ScriptedUpstream, traced: None, receiver: Receiver
) -> None:
    embedder = HashEmbedder()
    with (
        capture_logs(processors=[merge_contextvars]) as lines,
        running_gateway(upstream, embedder=embedder, learn=False) as gw,
    ):
        gw.add_rule("ruled", RULE, QUESTION)
        embedder.failure = ValueError("no")
        await gw.post(ask(), traceparent=CLIENT)
    (line,) = (line for line in lines if line["event"] == "question not embedded")
    assert line["trace_id"] == TRACE_ID
