"""Append-only files, the call cache, and the lock of a run folder."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.domain.trajectory import Cost
from app.exceptions import ConfigurationError, UpstreamRejected, UpstreamUnavailable
from benchmarks.callcache import CallCache
from benchmarks.journal import Journal, read_rows
from tests.benchmarks.scripted import ScriptedBackend, question

ASK = [{"role": "user", "content": question(4)}]
GREEDY = {"temperature": 0, "seed": 1}


def test_a_torn_last_line_is_dropped_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    journal = Journal(path)
    journal.append({"n": 1})
    offset = journal.append({"n": 2, "text": "zwei\nZeilen"})
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"n": 3, "te')
    journal = Journal(path)
    assert [row["n"] for _, row in journal.rows()] == [1, 2]
    assert journal.read(offset)["text"] == "zwei\nZeilen"
    journal.append({"n": 4})
    assert [row["n"] for _, row in read_rows(path)] == [1, 2, 4]
    journal.close()


@pytest.mark.parametrize("content", [b"", b'{"n":', b"x" * 200_000])
def test_a_file_without_a_whole_line_becomes_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    journal = Journal(path)
    assert list(journal.rows()) == []
    journal.close()
    assert path.read_bytes() == b""


def test_a_long_torn_line_takes_no_whole_line_with_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"n":1}\n' + b"y" * 200_000)
    Journal(path).close()
    assert path.read_bytes() == b'{"n":1}\n'


def test_damage_in_the_middle_is_named_not_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"n":1}\n{"n":\n{"n":3}\n')
    with pytest.raises(ConfigurationError, match="line 2 is damaged"):
        list(Journal(path).rows())


class Flaky(ScriptedBackend):
    """Raises what is queued before it answers."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)
        self.asked = 0

    async def _arrived(self, call: dict[str, object]) -> None:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        await super()._arrived(call)


def cache_of(tmp_path: Path, backend: ScriptedBackend, **options: object) -> CallCache:
    journal = Journal(tmp_path / "calls.jsonl")
    return CallCache(backend, journal, pauses=(0.0, 0.0), **options)  # type: ignore[arg-type]


async def test_a_call_is_made_once_even_when_two_arms_ask_at_once(tmp_path: Path) -> None:
    backend = ScriptedBackend(delay=0.01)
    cache = cache_of(tmp_path, backend)
    one, two = cache.scoped("a"), cache.scoped("b")
    first, second = await asyncio.gather(
        one.complete("m", ASK, GREEDY), two.complete("m", ASK, GREEDY)
    )
    assert first == second
    assert len(backend.history) == 1
    assert one.meter.cost == two.meter.cost == first.cost


@pytest.mark.parametrize(
    ("model", "params", "logprobs"),
    [("other", GREEDY, True), ("m", {**GREEDY, "seed": 2}, True), ("m", GREEDY, False)],
)
async def test_calls_that_differ_in_anything_are_not_shared(
    tmp_path: Path, model: str, params: dict[str, int], logprobs: bool
) -> None:
    backend = ScriptedBackend()
    view = cache_of(tmp_path, backend).scoped("a")
    await view.complete("m", ASK, GREEDY, logprobs=True)
    await view.complete(model, ASK, params, logprobs=logprobs)
    assert len(backend.history) == 2


async def test_a_call_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    before = await cache_of(tmp_path, backend).scoped("a").complete("m", ASK, GREEDY)
    view = cache_of(tmp_path, backend).scoped("b")
    after = await view.complete("m", ASK, GREEDY)
    assert (before, len(backend.history), view.meter.shared) == (after, 1, 1)
    schema = {"properties": {"variants": {}}}
    value, _ = await view.structured("m", ASK, schema, GREEDY)
    again, _ = await cache_of(tmp_path, backend).scoped("c").structured("m", ASK, schema, GREEDY)
    assert value == again
    assert len(backend.history) == 2


async def test_what_may_pass_is_tried_again(tmp_path: Path) -> None:
    backend = Flaky(UpstreamUnavailable("down"), UpstreamRejected("slow down", status=429))
    cache = cache_of(tmp_path, backend)
    assert (await cache.scoped("a").complete("m", ASK, GREEDY)).text
    assert backend.asked == 3
    assert cache.broken is None


async def test_a_refusal_is_a_result_and_is_not_asked_again(tmp_path: Path) -> None:
    backend = Flaky(UpstreamRejected("too long", status=400))
    for _ in range(2):
        view = cache_of(tmp_path, backend).scoped("a")
        with pytest.raises(UpstreamRejected, match="too long"):
            await view.complete("m", ASK, GREEDY)
        assert view.meter.cost == Cost(calls=1)
    assert backend.asked == 1


async def test_a_server_that_stays_away_stops_the_run_and_leaves_no_result(tmp_path: Path) -> None:
    backend = Flaky(*[UpstreamUnavailable("down")] * 3)
    cache = cache_of(tmp_path, backend)
    with pytest.raises(UpstreamUnavailable):
        await cache.scoped("a").complete("m", ASK, GREEDY)
    assert cache.broken is not None
    assert list(read_rows(tmp_path / "calls.jsonl")) == []
    with pytest.raises(UpstreamUnavailable):
        await cache.scoped("a").complete("m", ASK, {"temperature": 0, "seed": 9})
    assert backend.asked == 3, "the next call is not even tried"


async def test_a_caller_that_gives_up_leaves_the_call_to_the_others(tmp_path: Path) -> None:
    backend = ScriptedBackend(delay=0.05)
    cache = cache_of(tmp_path, backend)
    waiting = asyncio.create_task(cache.scoped("a").complete("m", ASK, GREEDY))
    await asyncio.sleep(0.01)
    waiting.cancel()
    assert (await cache.scoped("b").complete("m", ASK, GREEDY)).text
    assert len(backend.history) == 1
