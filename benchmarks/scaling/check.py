"""The simulation against reality in one point: a gateway that has one core for everything, clients
that ask one after the other, and a model that answers at once.

The gateway is pinned to the first core, the clients, the model and PostgreSQL to the others. What
other processes take of that core is read from /proc/stat and taken off the simulated rate.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.exceptions import ConfigurationError
from benchmarks.scaling.costs import UnitCosts
from benchmarks.scaling.processes import cpu, family, model_server
from benchmarks.scaling.queues import VISITS, Gateway, services
from benchmarks.scaling.server import database, postgres
from benchmarks.scaling.traffic import CLIENTS, RULES, ask
from benchmarks.serving.latency import load_rules
from benchmarks.serving.processes import gateway


@dataclass(frozen=True, slots=True)
class Checked:
    simulated: float
    """Requests a second, the gateway's core all its own."""
    available: float
    """Share of the core's time that other processes left."""
    measured: float
    busy: float
    """Share of the core's time that the gateway used."""

    @property
    def error(self) -> float:
        """Of the simulated rate, where the gateway gets what was left of its core."""
        return self.simulated * self.available / self.measured - 1


def check(costs: UnitCosts, requests: int) -> Checked:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise ConfigurationError("a check needs two cores")
    with (
        postgres() as (address, server, _),
        database(address) as url,
        tempfile.TemporaryDirectory() as folder,
        model_server() as model,
        gateway(model, Path(folder), DATABASE_URL=url, LEARN="false") as (port, pid),
    ):
        load_rules(port, RULES)
        for each in family(os.getpid()):
            _pin(each, set(cores[1:]))
        for each in family(server):
            _pin(each, set(cores[1:]))
        _pin(pid, {cores[0]})
        try:
            ask(port, 60)
            busy, own, began = _core(cores[0]), cpu(pid), time.monotonic()
            ask(port, requests)
            seconds = time.monotonic() - began
            used = cpu(pid) - own
            others = max(0.0, _core(cores[0]) - busy - used)
        finally:
            os.sched_setaffinity(0, cores)
    return Checked(
        simulated=simulated(costs, CLIENTS),
        available=1 - others / seconds,
        measured=requests / seconds,
        busy=used / seconds,
    )


def simulated(costs: UnitCosts, clients: int, *, seconds: float = 120.0) -> float:
    """Requests a second of a gateway with one core, of `clients` without a pause."""
    dice = np.random.default_rng(0)
    turns = services(costs.gateway.loop_ms / 1000 / VISITS, 4096, 1.0, dice)
    drawn = iter(range(10**12))
    one = Gateway(
        visit=lambda _: float(turns[next(drawn) % len(turns)]),
        batch=lambda texts: costs.embedding.of(texts) / 1000,
        most=costs.embedding.batch,
        shared=True,
    )
    return one.closed(clients, seconds)


def _core(number: int) -> float:
    """Seconds that a core has been busy, or taken from this machine by its host."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{number}":
            user, nice, system, _, _, irq, soft, steal = (int(each) for each in ticks[:8])
            return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
    raise ConfigurationError(f"/proc/stat knows no core {number}")


def _pin(pid: int, cores: set[int]) -> None:
    """All threads of a process."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)
