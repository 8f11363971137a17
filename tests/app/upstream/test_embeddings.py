"""The embedder: batches, cache, deadlines of others, failures, and an embedding server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import pytest

from app.access.tenants import tenant
from app.domain.bounds import LONGEST_EMBEDDED
from app.exceptions import ConfigurationError
from app.upstream.embeddings import (
    CachedEmbedder,
    EmbeddingFailed,
    local_embedder,
    remote_embedder,
    unit_rows,
)
from benchmarks.model_server import ModelServer
from tests.live import LiveServer

NAN, INF = float("nan"), float("inf")


class Model:
    """Encodes a text to (its length, 1, 0); can be held, broken, and counts its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[str] = set()
        self.open = threading.Event()
        self.open.set()
        self.load_failures: list[Exception] = []
        self.loads = 0
        self.answer: Callable[[list[str]], Any] = self.vectors

    def load(self) -> Callable[[list[str]], Any]:
        self.loads += 1
        if self.load_failures:
            raise self.load_failures.pop(0)
        return self.encode

    def encode(self, texts: list[str]) -> Any:
        self.batches.append(texts)
        self.threads.add(threading.current_thread().name)
        assert self.open.wait(10)
        return self.answer(texts)

    @staticmethod
    def vectors(texts: Sequence[str]) -> Any:
        return [[float(len(text)), 1.0, 0.0] for text in texts]

    @property
    def asked(self) -> list[list[str]]:
        """The batches but for the one that warms up."""
        return self.batches[1:]


@pytest.fixture
def model() -> Iterator[Model]:
    made = Model()
    yield made
    made.open.set()  # lets go of a thread that a failed test left waiting


@pytest.fixture
async def embedder(model: Model) -> AsyncIterator[CachedEmbedder]:
    made = CachedEmbedder("model", model.load, cache_size=100)
    made.start()
    yield made
    await made.close()


async def until(condition: Callable[[], object]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 5 s")


# -- vectors ------------------------------------------------------------------------------------


async def test_vectors_are_unit_rows_in_the_order_of_the_texts(
    embedder: CachedEmbedder, model: Model
) -> None:
    rows = await embedder.embed(["aaa", "", "a"])
    assert rows.shape == (3, 3)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(rows, unit_rows([[3, 1, 0], [0, 1, 0], [1, 1, 0]]))
    assert (embedder.ready, embedder.dimension) == (True, 3)
    # Never on the event loop's thread.
    assert all(name.startswith("embedder") for name in model.threads)


@pytest.mark.parametrize("rows", [[[0.0, 0.0]], [[NAN, 1.0]], [[1.0, INF]], [1.0, 2.0], [], [[]]])
def test_what_can_be_no_direction_is_refused(rows: Any) -> None:
    with pytest.raises(EmbeddingFailed):
        unit_rows(rows)


@pytest.mark.parametrize("bad", [NAN, INF, 0.0])
async def test_a_vector_that_is_not_finite_fails_its_batch_and_no_later_one(
    embedder: CachedEmbedder, model: Model, bad: float
) -> None:
    await until(lambda: embedder.ready)
    model.answer = lambda texts: [[bad, bad, bad] for _ in texts]
    with pytest.raises(EmbeddingFailed, match="zero or not finite"):
        await embedder.embed(["a"])
    model.answer = model.vectors
    assert (await embedder.embed(["a"])).shape == (1, 3)


@pytest.mark.parametrize(
    "answer",
    [
        lambda texts: [[1.0, 1.0, 1.0]] * (len(texts) + 1),
        lambda texts: [[1.0, 1.0, 1.0]] * (len(texts) - 1),
        lambda texts: [[1.0], [1.0, 2.0]],
        lambda texts: None,
        lambda texts: 1 / 0,
    ],
)
async def test_a_broken_answer_fails_the_call(
    embedder: CachedEmbedder, model: Model, answer: Any
) -> None:
    await embedder.embed(["warm"])
    model.answer = answer
    with pytest.raises(EmbeddingFailed):
        await embedder.embed(["a", "b"])
    model.answer = model.vectors
    await embedder.embed(["c"])


async def test_a_text_that_cannot_be_embedded_takes_no_other_with_it(
    embedder: CachedEmbedder, model: Model
) -> None:
    await until(lambda: embedder.ready)

    def picky(texts: list[str]) -> Any:
        if "bad" in texts:
            raise ValueError("too long")
        return model.vectors(texts)

    model.answer = picky
    texts = ["a", "b", "bad", "c", "d"]
    made = await asyncio.gather(*(embedder.embed([text]) for text in texts), return_exceptions=True)
    assert [isinstance(each, EmbeddingFailed) for each in made] == [t == "bad" for t in texts]


async def test_a_server_that_is_gone_is_asked_once_a_batch(
    embedder: CachedEmbedder, model: Model
) -> None:
    await until(lambda: embedder.ready)
    asked = len(model.asked)
    model.answer = lambda texts: _raise(httpx.ConnectError("refused"))
    with pytest.raises(EmbeddingFailed, match="refused"):
        await embedder.embed(["a", "b", "c"])
    assert len(model.asked) == asked + 1


def _raise(error: Exception) -> Any:
    raise error


# -- batches ------------------------------------------------------------------------------------


async def held(embedder: CachedEmbedder, model: Model) -> asyncio.Task[Any]:
    """A text that is at the model until `model.open` is set."""
    await until(lambda: embedder.ready)
    model.open.clear()
    first = asyncio.create_task(embedder.embed(["first"]))
    await until(lambda: len(model.asked) == 1)
    return first


async def crowd(embedder: CachedEmbedder, model: Model) -> list[Any]:
    """What comes of a text that is at the model and of a hundred that come meanwhile."""
    first = await held(embedder, model)
    others = [asyncio.create_task(embedder.embed([f"text {n}"])) for n in range(100)]
    await asyncio.sleep(0)
    model.open.set()
    return await asyncio.gather(first, *others)


async def test_calls_that_come_during_a_batch_form_the_next_ones(
    embedder: CachedEmbedder, model: Model
) -> None:
    rows = await crowd(embedder, model)
    assert [len(batch) for batch in model.asked] == [1, 64, 36]
    np.testing.assert_allclose(rows[10], unit_rows([[len("text 9"), 1, 0]]))


async def test_in_a_crowd_the_newest_go_first_and_the_oldest_one_with_them(
    embedder: CachedEmbedder, model: Model
) -> None:
    await crowd(embedder, model)
    assert set(model.asked[1]) == {"text 0", *(f"text {n}" for n in range(37, 100))}


async def test_in_a_crowd_each_tenant_has_its_turn(embedder: CachedEmbedder, model: Model) -> None:
    first = await held(embedder, model)
    tenant.set(("flood", "here"))
    flood = [asyncio.create_task(embedder.embed([f"flood {n}"])) for n in range(200)]
    tenant.set(("quiet", "there"))
    quiet = [asyncio.create_task(embedder.embed([f"quiet {n}"])) for n in range(3)]
    await asyncio.sleep(0)
    model.open.set()
    await asyncio.gather(first, *flood, *quiet)
    assert {"quiet 0", "quiet 1", "quiet 2", "flood 0", "flood 199"} <= set(model.asked[1])


async def test_what_one_namespace_asked_is_news_in_another(
    embedder: CachedEmbedder, model: Model
) -> None:
    await until(lambda: embedder.ready)
    for namespace in ("mine", "yours", "mine"):
        tenant.set(("key", namespace))
        await embedder.embed(["secret plan"])
    assert [batch for batch in model.asked if "secret plan" in batch] == [["secret plan"]] * 2


async def test_of_a_long_text_the_ends_are_embedded(embedder: CachedEmbedder, model: Model) -> None:
    await until(lambda: embedder.ready)
    await embedder.embed(["beginning " + "x" * 1_000_000 + " end"])
    (asked,) = model.asked[-1]
    assert len(asked) == LONGEST_EMBEDDED
    assert asked.startswith("beginning ")
    assert "1000014" in asked
    assert asked.endswith(" end")


async def test_a_text_that_nobody_waits_for_any_more_is_not_encoded(
    embedder: CachedEmbedder, model: Model
) -> None:
    first = await held(embedder, model)
    leaving = asyncio.create_task(embedder.embed(["given up", "shared"]))
    staying = asyncio.create_task(embedder.embed(["shared", "mine"]))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    model.open.set()
    await asyncio.gather(first, staying)
    assert sorted(model.asked[1]) == ["mine", "shared"]
    # It is no worse off when it is asked for again.
    assert (await embedder.embed(["given up"])).shape == (1, 3)


async def test_a_text_that_two_wait_for_is_encoded_once(
    embedder: CachedEmbedder, model: Model
) -> None:
    first, second = await asyncio.gather(embedder.embed(["a", "b"]), embedder.embed(["b", "a"]))
    np.testing.assert_allclose(first, second[::-1])
    assert sorted(text for batch in model.asked for text in batch) == ["a", "b"]


async def test_no_texts_are_no_batch(embedder: CachedEmbedder, model: Model) -> None:
    await until(lambda: embedder.ready)
    rows = await embedder.embed([])
    assert len(rows) == 0
    assert model.asked == []


# -- cache --------------------------------------------------------------------------------------


async def test_a_known_text_is_not_encoded_again(embedder: CachedEmbedder, model: Model) -> None:
    first = await embedder.embed(["a", "\ud800"])
    second = await embedder.embed(["a", "\ud800"])
    np.testing.assert_array_equal(first, second)
    assert len(model.asked) == 1


async def test_the_cache_forgets_what_was_not_used_longest(
    embedder: CachedEmbedder, model: Model
) -> None:
    await embedder.embed([f"text {n}" for n in range(50)])
    await embedder.embed([f"text {n}" for n in range(50, 100)])
    await embedder.embed(["text 0"])  # used again, so "text 1" is the oldest
    await embedder.embed(["one more"])
    before = len(model.asked)
    await embedder.embed(["text 0"])
    assert len(model.asked) == before
    await embedder.embed(["text 1"])
    assert model.asked[before:] == [["text 1"]]


# -- clients that go ----------------------------------------------------------------------------


async def test_a_client_that_goes_takes_no_vector_from_another(
    embedder: CachedEmbedder, model: Model
) -> None:
    await until(lambda: embedder.ready)
    model.open.clear()
    gone = asyncio.create_task(embedder.embed(["shared"]))
    stays = asyncio.create_task(embedder.embed(["shared"]))
    await until(lambda: model.asked)
    late = asyncio.create_task(embedder.embed(["shared", "other"]))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    model.open.set()
    assert (await stays).shape == (1, 3)
    assert (await late).shape == (2, 3)
    assert sorted(text for batch in model.asked for text in batch) == ["other", "shared"]


async def test_a_deadline_of_one_does_not_stop_the_batch(
    embedder: CachedEmbedder, model: Model
) -> None:
    await until(lambda: embedder.ready)
    model.open.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await embedder.embed(["slow"])
    model.open.set()
    await embedder.embed(["slow"])
    assert model.asked == [["slow"]]


async def test_closing_leaves_nobody_waiting(model: Model) -> None:
    embedder = CachedEmbedder("model", model.load)
    embedder.start()
    await until(lambda: embedder.ready)
    model.open.clear()
    computed = asyncio.create_task(embedder.embed(["in the batch"]))
    await until(lambda: model.asked)
    queued = asyncio.create_task(embedder.embed(["waits for the next"]))
    await asyncio.sleep(0)
    await embedder.close()
    # An error and no cancellation, which would look as if the caller itself were being stopped.
    for waiting in (computed, queued, asyncio.create_task(embedder.embed(["too late"]))):
        with pytest.raises(EmbeddingFailed, match="closed"):
            await asyncio.wait_for(waiting, 2)
    model.open.set()


# -- loading ------------------------------------------------------------------------------------


async def test_a_call_before_the_model_is_there_waits_for_it(model: Model) -> None:
    embedder = CachedEmbedder("model", model.load)
    early = asyncio.create_task(embedder.embed(["a"]))
    await asyncio.sleep(0)
    assert (embedder.ready, embedder.dimension) == (False, None)
    embedder.start()
    assert (await early).shape == (1, 3)
    await embedder.close()


async def test_a_model_that_can_not_be_loaded_is_said_and_tried_again(model: Model) -> None:
    model.load_failures = [OSError("no such folder")]
    embedder = CachedEmbedder("my-model", model.load)
    early = asyncio.create_task(embedder.embed(["a"]))
    embedder.start()
    with pytest.raises(EmbeddingFailed, match="my-model can't be loaded: no such folder"):
        await early
    assert embedder.ready is False
    assert "no such folder" in str(embedder.failure)
    with pytest.raises(EmbeddingFailed, match="no such folder"):
        await embedder.embed(["b"])
    # A second later it is there, and what was refused can be had.
    await until(lambda: embedder.ready)
    assert model.loads == 2
    assert embedder.failure is None
    assert (await embedder.embed(["a", "b"])).shape == (2, 3)
    await embedder.close()


async def test_a_model_that_answers_nonsense_is_not_ready(model: Model) -> None:
    model.answer = lambda texts: [[NAN] for _ in texts]
    embedder = CachedEmbedder("model", model.load)
    embedder.start()
    await until(lambda: embedder.failure)
    assert embedder.ready is False
    await embedder.close()


@pytest.mark.parametrize("model_name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all"])
def test_a_folder_that_is_not_there_stops_the_start(model_name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        local_embedder(model_name)
    assert "TTCL_EMBEDDING_MODEL" in str(caught.value)
    assert model_name in str(caught.value)


def test_nothing_is_loaded_by_naming_a_model() -> None:
    embedder = local_embedder("some/model-of-a-hub")
    assert (embedder.name, embedder.ready) == ("some/model-of-a-hub", False)


# -- an embedding server ------------------------------------------------------------------------


class Server(ModelServer):
    """`/v1/embeddings` that lists its rows from the last to the first."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.status = 200
        self.body: Any = None
        self._server = LiveServer(self)

    def __enter__(self) -> Server:
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop()

    @property
    def base_url(self) -> str:
        return f"{self._server.url}/v1"

    def reply(self, scope: Any, raw: bytes) -> tuple[int, Any]:
        assert scope["path"] == "/v1/embeddings"
        self.asked.append(json.loads(raw))
        key = dict(scope["headers"]).get(b"authorization")
        self.keys.append(key and key.decode())
        if self.status != 200 or self.body is not None:
            return self.status, self.body
        data = [
            {"object": "embedding", "index": n, "embedding": [float(len(text)), 1.0]}
            for n, text in enumerate(self.asked[-1]["input"])
        ]
        return 200, {"object": "list", "data": data[::-1]}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


async def test_vectors_of_a_server(server: Server) -> None:
    embedder = remote_embedder(server.base_url, "e5", "secret")
    assert embedder.name == "e5"
    embedder.start()
    rows = await embedder.embed(["aaaa", "a", "aa"])
    np.testing.assert_allclose(rows, unit_rows([[4, 1], [1, 1], [2, 1]]))
    assert set(server.keys) == {"Bearer secret"}
    assert {body["model"] for body in server.asked} == {"e5"}
    assert server.asked[-1]["input"] == ["aaaa", "a", "aa"]
    await embedder.close()


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, None), (401, {"error": "no"}), (200, {}), (200, {"data": []}), (200, [])],
)
async def test_a_server_that_fails_is_an_embedder_that_fails(
    server: Server, status: int, body: Any
) -> None:
    embedder = remote_embedder(server.base_url, None, None)
    embedder.start()
    await embedder.embed(["warm"])
    server.status, server.body = status, body
    with pytest.raises(EmbeddingFailed):
        await embedder.embed(["a"])
    server.status, server.body = 200, None
    await embedder.embed(["a"])
    assert set(server.keys) == {None}
    await embedder.close()


async def test_a_server_that_comes_later_is_found() -> None:
    server = Server()
    with server:
        base_url = server.base_url
    embedder = remote_embedder(base_url, "e5", None)
    embedder.start()
    await until(lambda: embedder.failure)
    with server:
        await until(lambda: embedder.ready)
        assert (await embedder.embed(["a"])).shape == (1, 2)
    await embedder.close()
