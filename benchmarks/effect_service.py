"""Whether the control group keeps its promises, through the code that serves.

    python -m benchmarks.effect_service --seeds 100
    python -m benchmarks.effect_service --http --seeds 2 --only +20,-20

A scripted model is right with a chance that a rule in its prompt changes; half of the conversations
are control, and each answer is judged. Counted is in how many seeds steering is found to help, or
is suspended, within so many requests, and in how many nothing is found where there is nothing.

Without `--http` each request is what the service makes of it for the comparison: the draw by its
hash, the outcome added to its signal's state, verdict and guard after each; no HTTP, no SQL and no
model. With it, it is the whole service: a gateway in a process of its own, in which each seed has a
namespace, its database, retrieval by embeddings, the rule in the prompt, the answer and the
feedback by HTTP, and the verdict as the admin API tells it. A request takes 0.1 ms the one way,
some 10 ms the other.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.model_server import Event, Receive, Send, Served, completion, respond, serving
from benchmarks.serving.processes import ADMIN_KEY, Client, gateway
from rules_store.policy.control import Arm, conversation_of, draw
from rules_store.policy.effect import GUARD_ALPHA, NO_OUTCOMES, EffectVerdict

out = Console(highlight=False)

NAMESPACE = "default"
SHARE = 0.5
RULE = "Check the sum of the invoice before the total is told."
QUESTION = "What is the total of the invoice?"
LOOKS = 10
"""Requests whose outcomes are told together, before a look at what is known."""
TRIES = 6
AT_A_TIME = 8
"""Seeds that go through the service side by side."""


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
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


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

    async def chat(self, scope: Event, raw: bytes, receive: Receive, send: Send) -> None:
        conversation = orjson.loads(raw)["user"]
        scenario = BY_NAME[conversation.partition("/")[0]]
        chance = scenario.base + scenario.effect * (RULE.encode() in raw)
        right = random.Random(f"http/{conversation}").random() < chance
        answer = completion(self.model, "right" if right else "wrong", (20, 1))
        await respond(send, orjson.dumps(answer))


@dataclass(frozen=True, slots=True)
class Service:
    """A gateway, as an operator and a client see it."""

    port: int
    model: str

    def found(self, scenario: Scenario, seed: int) -> Found:
        """Asks conversation after conversation, each in a namespace of this seed alone."""
        client = Client(self.port)
        namespace = f"points.{scenario.name.lstrip('+')}.seed.{seed}"
        rule: dict[str, Any] = {"polarity": "positive", "text": RULE, "trigger": QUESTION}
        rule |= {"namespace": namespace, "state": "active", "actor": "benchmark"}
        _call(client, "POST", "/admin/v1/rules", rule)
        told: list[dict[str, Any]] = []
        for number in range(1, scenario.requests + 1):
            asked = {
                "model": self.model,
                "messages": [{"role": "user", "content": QUESTION}],
                "user": f"{scenario.name}/{seed}/{number}",
                "ttcl": {"namespace": namespace},
            }
            answer = _call(client, "POST", "/v1/chat/completions", asked)
            right = answer["choices"][0]["message"]["content"] == "right"
            told.append({"episode_id": answer["ttcl"]["episode"], "verified": right})
            if number % LOOKS:
                continue
            taken = _call(client, "POST", "/v1/feedback:batch", {"items": told})["taken"]
            assert taken == len(told), f"{len(told) - taken} outcomes were refused"
            told = []
            effect = _call(client, "GET", f"/admin/v1/namespaces/{namespace}/effect")
            if effect["suspended"] is not None:
                return Found(number, "suspended")
            at_an_end = [EffectVerdict.HELPS.value]
            if scenario.effect == 0:
                at_an_end.append(EffectVerdict.HARMS.value)
            if effect["verdict"] in at_an_end:
                return Found(number, effect["verdict"])
        return Found(None)


@contextmanager
def service() -> Iterator[Service]:
    """The gateway before the coin."""
    with serving(Coin()) as model, tempfile.TemporaryDirectory() as folder:
        settings = {
            "EMBEDDING_BASE_URL": model.base_url,
            "EMBEDDING_MODEL": "words",
            "CONTROL_RATE": str(SHARE),
            "POLICY": "paper",
            "LEARN_SAMPLE_RATE": "0",
            "EXAMPLES": "off",
            "LOG_LEVEL": "ERROR",
        }
        with gateway(model.port, Path(folder), **settings) as (port, _):
            yield Service(port, model.model)


def _call(client: Client, method: str, path: str, body: Any = None) -> Any:
    """Tried again where the gateway says that it is busy, as OpenAI's clients do."""
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    for attempt in range(TRIES):
        status, _, content = client.send(method, path, body, headers)
        if status < 400:
            return orjson.loads(content)
        if status != 503:
            break
        time.sleep(2**attempt)
    raise RuntimeError(content.decode())


def _each(
    scenario: Scenario, seeds: int, one: Callable[[Scenario, int], Found], at_a_time: int
) -> list[Found]:
    with ThreadPoolExecutor(at_a_time) as pool:
        runs = pool.map(lambda seed: one(scenario, seed), range(seeds))
        return list(track(runs, scenario.name, total=seeds))


def main(
    seeds: Annotated[int, typer.Option(min=1)] = 100,
    http: Annotated[bool, typer.Option(help="Through the whole service")] = False,
    only: Annotated[str, typer.Option(help="Effects in points, by commas; all without")] = "",
) -> None:
    """Runs each scenario with so many seeds."""
    table = Table(title=f"{seeds} seeds, {'the whole service' if http else 'in memory'}")
    for column in ("points", "requests", "found as it is", "in half", "in nine of ten"):
        table.add_column(column, justify="right")
    chosen = [each for each in SCENARIOS if not only or each.name in only.split(",")]
    with ExitStack() as stack:
        one = stack.enter_context(service()).found if http else in_memory
        for scenario in chosen:
            found = _each(scenario, seeds, one, AT_A_TIME if http else 1)
            table.add_row(*_row(scenario, found))
            out.print(table)


def _row(scenario: Scenario, found: list[Found]) -> list[str]:
    right = sum(each.fits(scenario) for each in found)
    after = sorted(scenario.requests + 1 if f.after is None else f.after for f in found)
    shown = [after[round(share * (len(found) - 1))] for share in (0.5, 0.9)]
    told = [str(each) if each <= scenario.requests else "never" for each in shown]
    return [scenario.name, str(scenario.requests), f"{right} of {len(found)}", *told]


if __name__ == "__main__":
    typer.run(main)
