"""What arms with experience were given, and what became of the examples they kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from benchmarks.report.document import Block, Heading, Paragraph, Table
from benchmarks.report.results import ArmResults, ExampleRow, RunResults
from rules_store.models.examples import Given

KEPT, RETIRED = "kept", "retired"


@dataclass(frozen=True, slots=True)
class Examples:
    """Counts over the passes of an arm; an example is its question's."""

    kept: int = 0
    retired: int = 0
    """Of those that were kept."""

    def __add__(self, other: Examples) -> Examples:
        return Examples(self.kept + other.kept, self.retired + other.retired)


@dataclass(frozen=True, slots=True)
class ArmExperience:
    arm: str
    given: dict[Given, float]
    """Share of the questions by what their prompts had."""
    examples: Examples
    wrong: Examples
    """Those whose label was told wrong."""


def experience(run: RunResults) -> list[ArmExperience]:
    """Of the arms that decide what a request is given."""
    return [
        _measured(run, arm) for arm in run.arms.values() if any(r.given for r in run.rows(arm.name))
    ]


def blocks(run: RunResults) -> list[Block]:
    found = experience(run)
    if not found:
        return []
    shares = Table(
        ["share of the questions given", *(kind.value for kind in Given)],
        [[each.arm, *(f"{100 * each.given[kind]:.0f}%" for kind in Given)] for each in found],
    )
    head = ["examples", KEPT, RETIRED]
    noise = run.config.get("label_noise", 0.0)
    if noise:
        head += ["wrong ones kept", "wrong ones retired"]
    rows = []
    for each in found:
        counted = [each.examples, each.wrong] if noise else [each.examples]
        rows.append([each.arm, *(str(n) for c in counted for n in (c.kept, c.retired))])
    told = f" {100 * noise:g}% of the labels were told wrong." if noise else ""
    note = "Retired: by evidence, or because a newer answer to the same question took its place."
    return [Heading("Experience"), shares, Table(head, rows), Paragraph(note + told)]


def _measured(run: RunResults, arm: ArmResults) -> ArmExperience:
    rows = run.rows(arm.name)
    counts = Counter(row.given for row in rows)
    every, wrong = Examples(), Examples()
    for key in arm.used(run.total):
        mistold = {row.id for row in arm.passes[key].values() if row.told is not None}
        found = arm.examples.get(key, [])
        every += _counted(found)
        wrong += _counted([row for row in found if row.question in mistold])
    given = {kind: counts[kind.value] / len(rows) for kind in Given}
    return ArmExperience(arm.name, given, every, wrong)


def _counted(rows: list[ExampleRow]) -> Examples:
    kept = {row.question for row in rows if row.outcome == KEPT}
    gone = {row.question for row in rows if row.outcome == RETIRED}
    return Examples(len(kept), len(kept & gone))
