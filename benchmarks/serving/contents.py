"""What a namespace of a measured gateway holds: rules and examples, so many of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.exceptions import ConfigurationError
from app.upstream.embeddings import local_embedder
from benchmarks.serving.material import example, rule
from benchmarks.serving.processes import ADMIN_KEY, Client, gateway
from benchmarks.serving.retrieval import DIMENSION, TOPICS, fill, fill_examples, unit

WRITTEN = 1000
"""Rules, and examples, of a namespace that are written as they come, embeddings and all."""


@dataclass(frozen=True, slots=True)
class Contents:
    rules: int
    examples: int = 0

    def __str__(self) -> str:
        of_rules = f"{self.rules} rules"
        return f"{of_rules} and {self.examples} examples" if self.examples else of_rules

    @property
    def namespace(self) -> str:
        return str(self).replace(" ", "-")

    @property
    def crowded(self) -> bool:
        """Whether it is more than what is written as it comes."""
        return max(self.rules, self.examples) > WRITTEN

    @property
    def headers(self) -> dict[str, str]:
        """Of a request that is steered by it."""
        return {"X-TTCL-Mode": "steer", "X-TTCL-Namespace": self.namespace}


def write(port: int, contents: Contents) -> None:
    """Through the API of a gateway, of rules and of examples at most `WRITTEN`. Raises
    `ConfigurationError`."""
    client = Client(port)
    for number in range(min(contents.rules, WRITTEN)):
        text, trigger = rule(number)
        polarity = ("positive", "negative")[number % 2]
        body = {"polarity": polarity, "text": text, "trigger": trigger}
        _create(client, "rules", contents.namespace, body)
    for number in range(min(contents.examples, WRITTEN)):
        question, answer = example(number)
        _create(client, "examples", contents.namespace, {"question": question, "answer": answer})
    client.close()


def _create(client: Client, what: str, namespace: str, body: dict[str, Any]) -> None:
    whole = {"namespace": namespace, "actor": "benchmark", "reason": "material", **body}
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    status, _, content = client.send("POST", f"/admin/v1/{what}", whole, headers)
    if status != 201:
        raise ConfigurationError(f"{body} was refused with {status}: {content[:200]!r}")


def crowd(upstream_port: int, folder: Path, crowds: Sequence[Contents]) -> None:
    """Before the gateway of this folder starts: some rules and examples as they come, and so many
    more with vectors that no question is near to."""
    with gateway(upstream_port, folder) as (port, _):
        for each in crowds:
            write(port, each)
    (folder / "index" / "rules.index").unlink()
    rng = np.random.default_rng(1)
    centres = unit(rng.normal(size=(TOPICS, DIMENSION)))
    model = local_embedder(None).name
    # Numbers behind those that were written, whose rows have the first ones.
    first = WRITTEN * len(crowds)
    for each in crowds:
        path, space = folder / "ttcl.db", each.namespace
        rules, examples = max(0, each.rules - WRITTEN), max(0, each.examples - WRITTEN)
        fill(path, rules, centres, rng, namespace=space, model=model, first=first)
        fill_examples(path, examples, centres, rng, namespace=space, model=model, first=first)
        first += max(rules, examples)
