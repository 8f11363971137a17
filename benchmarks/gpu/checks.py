"""Checks of a model server and of the gateway in front of it, a line of JSON each.

    python -m benchmarks.gpu.checks --url http://127.0.0.1:8011 --model NAME --out checks.jsonl

Each check stands alone: one that fails is a line with its reason, and the next one runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchmarks.serving.contents import Contents, write
from benchmarks.serving.material import question
from benchmarks.serving.processes import gateway

RULES, FEW_RULES = 20, 4
"""Rules of the namespace that steered requests are sent to; the latter without a GPU."""
AGENT_STEPS = 7
"""A real agent's; two on a machine without a GPU."""
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Lima", "Oslo"]}, "people": {"enum": [1, 2, 3]}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks up a fact.",
        "parameters": {"type": "object", "properties": {"what": {"type": "string"}}},
    },
}

Check = Callable[[], Awaitable[dict[str, Any]]]


class Checks:
    """`small`: sizes for a machine without a GPU."""

    def __init__(self, url: str, model: str, *, small: bool) -> None:
        self._url = url
        self._model = model
        self._small = small
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.AsyncClient(base_url=url, timeout=300, limits=limits)
        self._gateway: httpx.AsyncClient | None = None
        self._contents = Contents(FEW_RULES if small else RULES)

    async def run(self, out: Path) -> None:
        """All checks, each written as it ends."""
        await self._several(
            out,
            [
                ("version", self._version),
                *((f"tokens a second, {n} calls", self._rate(n)) for n in self._sizes()),
                ("json_schema", self._json_schema),
                ("priority", self._priority),
                ("tokenize", self._tokenize),
                ("log-probabilities", self._logprobs),
                ("abort after a disconnect", self._abort),
            ],
        )
        port = urlsplit(self._url).port
        assert port is not None
        with tempfile.TemporaryDirectory() as folder:
            settings = {"LEARN": "false", "STOP_GRACE": "1"}
            with gateway(port, Path(folder), **settings) as (own, _):
                await asyncio.to_thread(write, own, self._contents)
                limits = httpx.Limits(max_connections=None)
                base = f"http://127.0.0.1:{own}"
                self._gateway = httpx.AsyncClient(base_url=base, timeout=300, limits=limits)
                await self._several(
                    out,
                    [
                        ("cached tokens, single turn", self._cached_single),
                        ("cached tokens, agent", self._cached_agent),
                        ("added milliseconds", self._added),
                        ("streams side by side", self._streams),
                    ],
                )
                await self._gateway.aclose()
        await self._http.aclose()

    async def _several(self, out: Path, checks: Sequence[tuple[str, Check]]) -> None:
        for name, check in checks:
            started = time.monotonic()
            try:
                row = {"check": name, "ok": True, **await check()}
            except (httpx.HTTPError, AssertionError, KeyError, IndexError, ValueError) as error:
                row = {"check": name, "ok": False, "reason": f"{type(error).__name__}: {error}"}
            row["seconds"] = round(time.monotonic() - started, 2)
            line = json.dumps(row, ensure_ascii=False)
            with out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def _sizes(self) -> tuple[int, ...]:
        return (1, 2) if self._small else (1, 32, 256)

    # --- the model server

    async def _version(self) -> dict[str, Any]:
        models = (await self._http.get("/v1/models")).json()
        (model,) = models["data"]
        version = await self._http.get("/version")
        told = version.json().get("version") if version.status_code == 200 else None
        return {
            "version": told,
            "owned_by": model.get("owned_by"),
            "max_model_len": model.get("max_model_len"),
        }

    def _rate(self, calls: int) -> Check:
        async def measured() -> dict[str, Any]:
            limit = 8 if self._small else 256
            started = time.monotonic()
            bodies = [
                self._body(question(n), limit=limit, ignore_eos=True, logprobs=True)
                for n in range(calls)
            ]
            answers = await asyncio.gather(*(self._chat(self._http, body) for body in bodies))
            seconds = time.monotonic() - started
            tokens = sum(answer["usage"]["completion_tokens"] for answer in answers)
            return {"tokens": tokens, "tokens_per_second": round(tokens / seconds, 1)}

        return measured

    async def _json_schema(self) -> dict[str, Any]:
        form = {"type": "json_schema", "json_schema": {"name": "place", "schema": _SCHEMA}}
        body = self._body("Name a city and how many live there.", limit=64, response_format=form)
        content = (await self._chat(self._http, body))["choices"][0]["message"]["content"]
        told = json.loads(content)
        assert set(told) == set(_SCHEMA["required"]), f"not of the schema: {content}"
        for name, value in told.items():
            assert value in _SCHEMA["properties"][name]["enum"], f"not of the schema: {content}"
        return {"answer": told}

    async def _priority(self) -> dict[str, Any]:
        """More calls of low priority than are served at once, then one of high priority."""
        flood, limit = (2, 4) if self._small else (2048, 64)
        low = [
            asyncio.create_task(
                self._chat(
                    self._http,
                    self._body(question(n), limit=limit, ignore_eos=True, priority=10),
                )
            )
            for n in range(flood)
        ]
        await asyncio.sleep(0.5)
        waited: dict[int, float] = {}
        for priority in (0, 10):
            started = time.monotonic()
            body = self._body(question(9), limit=8, ignore_eos=True, priority=priority)
            if priority:
                body["messages"][0]["content"] += " Again."
            await self._chat(self._http, body)
            waited[priority] = round(time.monotonic() - started, 3)
        done = sum(task.done() for task in low)
        for task in low:
            task.cancel()
        await asyncio.gather(*low, return_exceptions=True)
        return {"calls_waiting": flood, "seconds_by_priority": waited, "done_meanwhile": done}

    async def _tokenize(self) -> dict[str, Any]:
        response = await self._http.post(
            "/tokenize",
            json={
                "model": self._model,
                "content": "four words of text",
                "prompt": "four words of text",
            },
        )
        assert response.status_code == 200, f"status {response.status_code}"
        told = response.json()
        return {"tokens": told.get("count", len(told["tokens"]))}

    async def _logprobs(self) -> dict[str, Any]:
        body = self._body("Say hello.", limit=8, ignore_eos=True, logprobs=True, top_logprobs=1)
        choice = (await self._chat(self._http, body))["choices"][0]
        found = choice["logprobs"]["content"]
        assert all(entry["logprob"] <= 0 for entry in found), "a log-probability above 0"
        return {"tokens": len(found)}

    async def _abort(self) -> dict[str, Any]:
        """A stream whose reader goes away: seconds until the engine has nothing under way."""
        body = self._body("Count.", limit=64 if self._small else 4000, ignore_eos=True, stream=True)
        async with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
            async for _ in response.aiter_bytes():
                break
        started = time.monotonic()
        while (under_way := await self._under_way()) is not None and under_way > 0:
            assert time.monotonic() - started < 30, "still under way after 30 s"
            await asyncio.sleep(0.05)
        if under_way is None:
            return {"seconds_to_abort": None, "reason": "the server does not tell"}
        seconds = round(time.monotonic() - started, 2)
        assert seconds <= 1.0, f"{seconds} s"
        return {"seconds_to_abort": seconds}

    async def _under_way(self) -> float | None:
        """Requests that vLLM works on, None where it does not say."""
        response = await self._http.get("/metrics")
        lines = [
            line
            for line in response.text.splitlines()
            if line.startswith("vllm:num_requests_running")
        ]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines) if lines else None

    # --- the gateway in front of it

    async def _cached_single(self) -> dict[str, Any]:
        """Different questions under one long system message: what the second finds cached."""
        told: dict[str, Any] = {}
        for mode in ("off", "steer"):
            # The first words are the mode's own, so that no mode finds what the other left.
            long = f"{mode} {time.time_ns()}. " + " ".join(
                question(n) for n in range(2 if self._small else 20)
            )
            system = {"role": "system", "content": long}
            shares = []
            for number in range(2 if self._small else 3):
                asked = {"role": "user", "content": question(number)}
                shares.append(await self._cached([system, asked], mode))
            told[mode] = shares
        return told

    async def _cached_agent(self) -> dict[str, Any]:
        """Each step's messages begin with those of the step before."""
        told: dict[str, Any] = {}
        for mode in ("off", "steer"):
            system = {"role": "system", "content": f"{mode} {time.time_ns()}. Use the tool."}
            messages: list[dict[str, Any]] = [system, {"role": "user", "content": question(5)}]
            shares = []
            for step in range(2 if self._small else AGENT_STEPS):
                shares.append(await self._cached(messages, mode, tools=[_TOOL]))
                call = {
                    "id": f"call_{step}",
                    "type": "function",
                    "function": {"name": "look_up", "arguments": json.dumps({"what": str(step)})},
                }
                result = " ".join(question(step * 10 + n) for n in range(1 if self._small else 4))
                messages = [
                    *messages,
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": f"call_{step}", "content": result},
                ]
            told[mode] = shares
        return told

    async def _cached(
        self, messages: list[dict[str, Any]], mode: str, **fields: Any
    ) -> dict[str, Any]:
        assert self._gateway is not None
        body = {"model": self._model, "messages": messages, "max_tokens": 1, **fields}
        usage = (await self._chat(self._gateway, body, mode))["usage"]
        details = usage.get("prompt_tokens_details") or {}
        return {"prompt": usage["prompt_tokens"], "cached": details.get("cached_tokens")}

    async def _added(self) -> dict[str, Any]:
        """Medians of what a mode adds to an answer of one token, taken within a round."""
        assert self._gateway is not None
        rounds, warm_up = (1, 0) if self._small else (100, 5)
        kinds: dict[str, tuple[httpx.AsyncClient, str | None]] = {
            "bare": (self._http, None),
            "off": (self._gateway, "off"),
            "steer": (self._gateway, "steer"),
        }
        spent: dict[str, list[float]] = {name: [] for name in kinds}
        draw = random.Random(1)
        for number in range(rounds + warm_up):
            for name in draw.sample(sorted(kinds), len(kinds)):
                client, mode = kinds[name]
                body = self._body(question(1000 + number), limit=1)
                started = time.perf_counter()
                await self._chat(client, body, mode)
                spent[name].append((time.perf_counter() - started) * 1000)
        bare = spent["bare"][warm_up:]
        return {
            "rounds": rounds,
            "bare": round(statistics.median(bare), 2),
            **{
                name: round(
                    statistics.median(
                        mine - other
                        for mine, other in zip(spent[name][warm_up:], bare, strict=True)
                    ),
                    2,
                )
                for name in ("off", "steer")
            },
        }

    async def _streams(self) -> dict[str, Any]:
        assert self._gateway is not None
        streams, limit = (2, 8) if self._small else (256, 128)
        told: dict[str, Any] = {"streams": streams}
        kinds = (("bare", self._http, None), ("steer", self._gateway, "steer"))
        for offset, (name, client, mode) in enumerate(kinds):
            started = time.perf_counter()
            firsts = await asyncio.gather(
                *(
                    self._stream(client, question(5000 + 1000 * offset + n), limit, mode)
                    for n in range(streams)
                )
            )
            told[name] = {
                "seconds": round(time.perf_counter() - started, 2),
                "median_first_ms": round(statistics.median(firsts) * 1000),
                "slowest_first_ms": round(max(firsts) * 1000),
            }
        return told

    async def _stream(
        self, client: httpx.AsyncClient, text: str, limit: int, mode: str | None
    ) -> float:
        """Seconds to the first byte. Raises `AssertionError` for a stream that did not end."""
        body = self._body(text, limit=limit, ignore_eos=True, stream=True)
        started = time.perf_counter()
        first, end = 0.0, b""
        path = "/v1/chat/completions"
        async with client.stream("POST", path, json=body, headers=self._headers(mode)) as response:
            assert response.status_code == 200, f"status {response.status_code}"
            async for block in response.aiter_bytes():
                first = first or time.perf_counter() - started
                end = (end + block)[-200:]
        assert b"data: [DONE]" in end, f"a stream ended with {end!r}"
        return first

    # --- requests

    def _body(self, text: str, *, limit: int, **fields: Any) -> dict[str, Any]:
        message = {"role": "user", "content": text}
        return {"model": self._model, "messages": [message], "max_tokens": limit, **fields}

    def _headers(self, mode: str | None) -> dict[str, str]:
        if mode is None:
            return {}
        return {**self._contents.headers, "X-TTCL-Mode": mode}

    async def _chat(
        self, client: httpx.AsyncClient, body: dict[str, Any], mode: str | None = None
    ) -> dict[str, Any]:
        response = await client.post("/v1/chat/completions", json=body, headers=self._headers(mode))
        assert response.status_code == 200, f"status {response.status_code}: {response.text[:200]}"
        answer: dict[str, Any] = response.json()
        return answer


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.checks", description=__doc__)
    parser.add_argument("--url", required=True, help="of the model server, without /v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True, help="file that gets a line a check")
    parser.add_argument("--small", action="store_true", help="sizes for a machine without a GPU")
    options = parser.parse_args(arguments)
    asyncio.run(Checks(options.url, options.model, small=options.small).run(options.out))


if __name__ == "__main__":
    main()
