"""The rule store of one pass: a file that is made anew each time, under a clock of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.wiring.factories import store_options
from benchmarks.arms.base import NAMESPACE, Repeat, Setting
from rules_store.store import RuleStore

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""The time of every pass: evidence must not fade differently when a pass is replayed."""
QUESTION_TIME = timedelta(minutes=1)


class PassClock:
    """Goes on by `tick` alone, a minute a question."""

    def __init__(self) -> None:
        self._now = EPOCH

    def __call__(self) -> datetime:
        return self._now

    def tick(self) -> None:
        self._now += QUESTION_TIME


@dataclass(frozen=True, slots=True)
class PassStore:
    store: RuleStore
    folder: Path

    async def close(self) -> None:
        await self.store.close()
        shutil.rmtree(self.folder, ignore_errors=True)


async def opened_store(
    setting: Setting, arm: str, repeat: Repeat, clock: Callable[[], datetime] = lambda: EPOCH
) -> PassStore:
    """Empty, with the namespace of all passes."""
    folder = setting.scratch / f"{arm}-{repeat.seed}-{repeat.order}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    store = await RuleStore.open(
        f"sqlite:///{folder / 'rules.db'}",
        embedding_model=setting.embedder.name,
        dimension=setting.embedder.dimension,
        # Every question of a measurement gets what its arm gives it.
        options=replace(store_options(setting.settings), control_rate=0.0),
        clock=clock,
    )
    await store.namespaces.ensure(NAMESPACE)
    return PassStore(store, folder)
