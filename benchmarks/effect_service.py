"""Whether the control group keeps its promises, through the code that serves.

    python -m benchmarks.effect_service --seeds 100
    python -m benchmarks.effect_service --http --seeds 2 --only +20,-20

A scripted model is right with a chance that a rule in its prompt changes; half of the conversations
are control, and each answer is judged. Counted is in how many seeds steering is found to help, or
is suspended, within so many requests, and in how many nothing is found where there is nothing.

Without `--http` each request is what the service makes of it for the comparison: the draw by its
hash, the outcome added to its signal's state, verdict and guard after each; no HTTP, no SQL and no
model. With it, it is the whole service: a gateway in a process of its own, its
database, retrieval by embeddings, the rule in the prompt, the answer and the feedback by HTTP, and
the verdict as the admin API tells it. A request takes 0.1 ms the one way, some 50 ms the other.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import orjson
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.model_server import Event, Receive, Send, Served, completion, respond, serving
from benchmarks.serving.processes import ADMIN_KEY, gateway
from rules_store.policy.control import Arm, conversation_of, draw
from rules_store.policy.effect import GUARD_ALPHA, NO_OUTCOMES, EffectVerdict

out = Console(highlight=False)

NAMESPACE = "default"
SHARE = 0.5
RULE = "Check the sum of the invoice before the total is told."
TRIGGER = "total of an invoice"


@dataclass(frozen=True, slots=True)
class Scenario:
    """`base`: the chance of a right answer without the rule."""

    effect: float
    requests: int
    base: float

    @property
    def name(self) -> str:
        return f"{100 * self.effect:+.0f}" if self.effect else "0"


SCENARIOS = (
    Scenario(0.2, 700, 0.5),
    Scenario(0.1, 2500, 0.5),
    Scenario(-0.2, 700, 0.6),
    Scenario(-0.1, 2500, 0.6),
    Scenario(0.0, 2500, 0.5),
)


@dataclass(frozen=True, slots=True)
class Found:
    """`after`: how many requests; None: nothing within those that there were."""

    after: int | None
    what: str = EffectVerdict.UNKNOWN.value

    def fits(self, scenario: Scenario) -> bool:
        """Whether it is what had to be found."""
        if scenario.effect == 0:
            return self.after is None
        wanted = EffectVerdict.HELPS.value if scenario.effect > 0 else "suspended"
        return self.what == wanted


def in_memory(scenario: Scenario, seed: int) -> Found:
    rng = random.Random(f"{scenario.name}/{seed}")
    state = NO_OUTCOMES
    for number in range(1, scenario.requests + 1):
        drawn = draw(conversation_of(NAMESPACE, f"opening:{seed}/{number}"), SHARE)
        steered = drawn is Arm.STEERED
        right = rng.random() < scenario.base + scenario.effect * steered
        state = state.plus(steered=steered, share=SHARE, value=float(right))
        if state.below(0.0, GUARD_ALPHA):
            return Found(number, "suspended")
        if state.above(0.0):
            return Found(number, EffectVerdict.HELPS.value)
        # Harm is not at its end before the guard has seen to it.
        if scenario.effect == 0 and state.below(0.0):
            return Found(number, EffectVerdict.HARMS.value)
    return Found(None)


class Coin(Served):
    """Right or wrong by lot, with a chance that the rule in the prompt changes."""

    model = "coin"

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._scenario = scenario
        self._rng = random.Random(f"{scenario.name}/{seed}/http")

    async def chat(self, scope: Event, raw: bytes, receive: Receive, send: Send) -> None:
        steered = RULE.encode() in raw
        right = self._rng.random() < self._scenario.base + self._scenario.effect * steered
        answer = completion(self.model, "right" if right else "wrong", (20, 1))
        await respond(send, orjson.dumps(answer))


def by_http(scenario: Scenario, seed: int) -> Found:
    with serving(Coin(scenario, seed)) as model, _service(model) as http:
        for number in range(1, scenario.requests + 1):
            asked = {
                "model": model.model,
                "messages": [{"role": "user", "content": f"Total of an invoice {seed}/{number}?"}],
            }
            answer = _checked(http.post("/v1/chat/completions", json=asked)).json()
            if answer["ttcl"]["arm"] is None:
                return Found(number - 1, "suspended")
            right = answer["choices"][0]["message"]["content"] == "right"
            told = {"episode_id": answer["ttcl"]["episode"], "verified": right}
            _checked(http.post("/v1/feedback", json=told))
            if number % 10:
                continue
            effect = _checked(http.get(f"/admin/v1/namespaces/{NAMESPACE}/effect")).json()
            if effect["verdict"] == EffectVerdict.HELPS.value:
                return Found(number, effect["verdict"])
            if effect["verdict"] == EffectVerdict.HARMS.value and scenario.effect == 0:
                return Found(number, effect["verdict"])
    return Found(None)


@contextmanager
def _service(model: Served) -> Iterator[httpx.Client]:
    settings = {
        "EMBEDDING_BASE_URL": model.base_url,
        "EMBEDDING_MODEL": "words",
        "CONTROL_RATE": str(SHARE),
        "POLICY": "paper",
        "LEARN_SAMPLE_RATE": "0",
        "EXAMPLES": "off",
        "SIMILARITY_FLOOR": "0.1",
    }
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    rule: dict[str, Any] = {"polarity": "positive", "text": RULE, "trigger": TRIGGER}
    rule |= {"namespace": NAMESPACE, "state": "active", "actor": "benchmark"}
    with (
        tempfile.TemporaryDirectory() as folder,
        gateway(model.port, Path(folder), **settings) as (port, _),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as http,
    ):
        _checked(http.post("/admin/v1/rules", json=rule))
        yield http


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise RuntimeError(response.text)
    return response


def main(
    seeds: Annotated[int, typer.Option(min=1)] = 100,
    http: Annotated[bool, typer.Option(help="Through the whole service")] = False,
    only: Annotated[str, typer.Option(help="Effects in points, by commas; all without")] = "",
) -> None:
    """Runs each scenario with so many seeds."""
    table = Table(title=f"{seeds} seeds, {'the whole service' if http else 'in memory'}")
    for column in ("points", "requests", "found as it is", "in half", "in nine of ten"):
        table.add_column(column, justify="right")
    for scenario in SCENARIOS:
        if only and scenario.name not in only.split(","):
            continue
        run = by_http if http else in_memory
        found = [run(scenario, seed) for seed in track(range(seeds), scenario.name)]
        right = sum(each.fits(scenario) for each in found)
        after = sorted(scenario.requests + 1 if f.after is None else f.after for f in found)
        row = [after[round(share * (seeds - 1))] for share in (0.5, 0.9)]
        shown = [str(each) if each <= scenario.requests else "never" for each in row]
        table.add_row(scenario.name, str(scenario.requests), f"{right} of {seeds}", *shown)
    out.print(table)


if __name__ == "__main__":
    typer.run(main)
