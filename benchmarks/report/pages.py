"""Writes `report.md`, `report.html` and the plots of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from app.exceptions import ConfigurationError
from benchmarks.report import experience, lengths, poisoned
from benchmarks.report.document import (
    Block,
    Bullets,
    Code,
    Heading,
    Image,
    Paragraph,
    Table,
    to_html,
    to_markdown,
)
from benchmarks.report.plots import PLOTS, draw
from benchmarks.report.results import RunResults, read_run
from benchmarks.report.summary import (
    POWER_DIFFERENCES,
    ArmSummary,
    Change,
    Difference,
    RuleUse,
    Summary,
    rule_uses,
    summarise,
)
from benchmarks.statistics import Interval

FEEDBACK = {
    "none": "none",
    "binary": "right or wrong",
    "label": "the right answer",
    "correction": "a better answer, the reference",
}
EXCERPT = 220
"""Characters of a question that are shown with an example."""
EXAMPLES = 6
"""Changed answers shown for each direction, every question once."""


def write_report(folder: Path, *, with_questions: bool = True) -> Summary:
    """Reads the run and writes its report beside it. `with_questions` false leaves out the text of
    questions, for data sets that must not be copied. Raises `ConfigurationError`."""
    run = read_run(folder)
    if not any(arm.passes for arm in run.arms.values()):
        raise ConfigurationError(f"{folder} holds no result yet")
    summary = summarise(run)
    plots = draw(run, summary, folder)
    blocks = build(run, summary, plots, with_questions=with_questions)
    title = f"{run.config['task']['name']}, {run.config['model']}"
    (folder / "report.md").write_text(to_markdown(blocks), encoding="utf-8")
    page = to_html(blocks, title=title, folder=folder)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return summary


def build(
    run: RunResults, summary: Summary, plots: list[str], *, with_questions: bool
) -> list[Block]:
    config = run.config
    blocks: list[Block] = [
        Heading(f"{config['task']['name']} with {config['model']}", 1),
        Paragraph(summary.verdict, strong=True),
        Bullets(_facts(run)),
    ]
    if summary.warnings:
        blocks += [Heading("Read with care"), Bullets(summary.warnings)]
    blocks += [Heading("Results"), _results(summary), Paragraph(_how(run))]
    blocks += _images(plots, "accuracy.png")
    if summary.differences:
        blocks += [Heading("Differences"), _differences(summary.differences)]
        blocks += [
            Paragraph(
                "Paired over the same questions. The interval is a bootstrap over questions, with "
                "the repeats of a question averaged; p is McNemar's exact test on the first "
                "repeat, wins and losses its questions that only one of the two has right."
            ),
            Heading("How many questions would show it"),
            _power(summary.differences),
            Paragraph(
                "Questions at which a true difference of that size would be found with 80% power "
                "at the 5% level, given the spread seen here."
            ),
        ]
    blocks += [Heading("Along the stream"), _along(summary), *_images(plots, "stream.png")]
    blocks += [Heading("Cost"), _costs(summary), Paragraph(_COSTS), *_images(plots, "cost.png")]
    blocks += lengths.blocks(run)
    blocks += experience.blocks(run)
    blocks += poisoned.blocks(run)
    blocks += _rules(run, summary, plots, with_questions=with_questions)
    return blocks + _configuration(run)


def _images(drawn: list[str], name: str) -> list[Block]:
    return [Image(name, PLOTS[name])] if name in drawn else []


def _facts(run: RunResults) -> list[str]:
    config, data = run.config, run.config["data"]
    step, noise = config["concurrency"], config.get("label_noise", 0.0)
    seen = "the question before" if step == 1 else f"the step before (steps of {step} questions)"
    return [
        f"Task: {config['task']['about']}",
        f"Data: {data['source']}, {run.total} questions"
        + (f" (limit {config['limit']})" if config["limit"] else ""),
        f"Repeats: {config['seeds']} seeds times {config['orders']} orders from "
        f"{config.get('first_order', 0)}; order 0 is the file's",
        f"Online: a question may use what was learned up to {seen}",
        f"Feedback after each answer: {FEEDBACK[run.feedback]}"
        + (f", {100 * noise:g}% of them another one instead" if noise else ""),
        f"Grader: {config['task']['grader']}; answers of at most "
        f"{config['task']['max_tokens']} tokens",
        *_distiller(config.get("distiller")),
    ]


def _distiller(config: dict[str, Any] | None) -> list[str]:
    """Where rules are written otherwise than by default."""
    if config is None:
        return []
    by = config["model"] or "the model itself"
    return [f"Rules: written by {by}, variant {config['variant']}"]


def _how(run: RunResults) -> str:
    score = "The mean measure" if run.graded else "The share of right answers"
    return (
        f"{score}. Intervals are Wilson's for a single repeat of right or wrong answers, else a "
        "bootstrap over questions."
    )


def _results(summary: Summary) -> Table:
    return Table(
        ["arm", "score", "95% interval", "questions", "repeats", "calls", "tokens", "no answer"],
        [
            [
                arm.name,
                f"{arm.accuracy.mean:.3f}",
                f"{arm.accuracy.low:.3f} to {arm.accuracy.high:.3f}",
                str(arm.questions),
                str(arm.repeats),
                f"{arm.calls:.1f}",
                f"{arm.prompt_tokens + arm.completion_tokens:.0f}",
                str(arm.failures),
            ]
            for arm in summary.arms
        ],
    )


def _points(value: Interval) -> str:
    return f"{100 * value.mean:+.1f} ({100 * value.low:+.1f} to {100 * value.high:+.1f})"


def _differences(differences: list[Difference]) -> Table:
    return Table(
        ["arm minus baseline", "points (95% interval)", "wins", "losses", "p", "questions"],
        [
            [
                f"{d.arm} - {d.baseline}",
                _points(d.comparison.difference),
                str(d.comparison.wins),
                str(d.comparison.losses),
                "" if d.comparison.p_value is None else f"{d.comparison.p_value:.3f}",
                str(d.questions),
            ]
            for d in differences
        ],
    )


def _power(differences: list[Difference]) -> Table:
    return Table(
        ["arm minus baseline", *(f"{100 * d:.0f} points" for d in POWER_DIFFERENCES)],
        [
            [
                f"{d.arm} - {d.baseline}",
                *("no spread" if n is None else f"{n}" for n in d.needed.values()),
            ]
            for d in differences
        ],
    )


def _along(summary: Summary) -> Table:
    """The last columns are shares of the questions."""
    return Table(
        [
            "arm",
            "first half",
            "second half",
            "last third",
            "95% interval",
            "saw rules",
            "saw examples",
        ],
        [
            [
                arm.name,
                *(f"{half:.3f}" for half in arm.halves),
                f"{arm.last_third.mean:.3f}",
                f"{arm.last_third.low:.3f} to {arm.last_third.high:.3f}",
                f"{100 * arm.saw_rules:.0f}%",
                f"{100 * arm.saw_examples:.0f}%",
            ]
            for arm in summary.arms
        ],
    )


_COSTS = (
    "Means for a question, from the usage that the model server reported, calls for learning "
    "included. A call that several arms share is counted for each. Model seconds add up what each "
    "call took; wall seconds are the median over questions none of whose calls was shared or "
    "replayed."
)


def _costs(summary: Summary) -> Table:
    def wall(arm: ArmSummary) -> str:
        return "" if arm.seconds is None else f"{arm.seconds:.2f} ({arm.timed})"

    return Table(
        [
            "arm",
            "calls",
            "prompt tokens",
            "completion tokens",
            "model seconds",
            "wall seconds (of)",
        ],
        [
            [
                arm.name,
                f"{arm.calls:.2f}",
                f"{arm.prompt_tokens:.0f}",
                f"{arm.completion_tokens:.0f}",
                f"{arm.model_seconds:.1f}",
                wall(arm),
            ]
            for arm in summary.arms
        ],
    )


def _rules(
    run: RunResults, summary: Summary, plots: list[str], *, with_questions: bool
) -> list[Block]:
    learning = [arm for arm in summary.arms if arm.rules]
    if not learning:
        return []
    kinds = sorted({kind for arm in learning for kind in arm.rules})
    rows = [[arm.name, *(f"{arm.rules.get(kind, 0):.1f}" for kind in kinds)] for arm in learning]
    blocks: list[Block] = [
        Heading("Rules"),
        Table(["rules per pass", *kinds], rows),
        *_images(plots, "rules.png"),
    ]
    for arm in learning:
        reference, uses = rule_uses(run, arm.name)
        if uses:
            blocks.append(Heading(f"Most used rules of {arm.name}", 3))
            blocks.append(_used(uses, reference))
            blocks += _examples(run, uses, reference, with_questions=with_questions)
    return blocks


def _used(uses: list[RuleUse], reference: str | None) -> Table:
    against = f" than {reference}" if reference else ""
    return Table(
        ["rule", "questions", f"better{against}", f"worse{against}"],
        [[use.text, str(use.uses), str(len(use.better)), str(len(use.worse))] for use in uses],
    )


def _examples(
    run: RunResults, uses: list[RuleUse], reference: str | None, *, with_questions: bool
) -> list[Block]:
    lines: list[str] = []
    for word, found in (
        ("Better", [(use, change) for use in uses for change in use.better]),
        ("Worse", [(use, change) for use in uses for change in use.worse]),
    ):
        once = {change.id: (use, change) for use, change in reversed(found)}
        for use, change in list(once.values())[::-1][:EXAMPLES]:
            lines.append(_example(run, use, change, word, with_questions=with_questions))
    if not lines:
        return []
    note = (
        f"Answers that differ from {reference}'s on the same question and seed. Other rules were "
        "injected beside these, and sampling differs too: read them as examples, not as proof."
    )
    return [Paragraph(note), Bullets(lines)]


def _example(
    run: RunResults, use: RuleUse, change: Change, word: str, *, with_questions: bool
) -> str:
    prompt = " ".join(run.prompts.get(change.id, "").split())
    shown = prompt if len(prompt) <= EXCERPT else prompt[:EXCERPT] + " ..."
    question = f" ({shown})" if with_questions and shown else ""
    return (
        f"{word}, {change.id}{question}: {change.before or 'nothing'} became "
        f"{change.after or 'nothing'}, right is {change.gold}. Rule: {use.text}"
    )


def _configuration(run: RunResults) -> list[Block]:
    dumped = orjson.dumps(run.config, option=orjson.OPT_INDENT_2).decode()
    return [Heading("Configuration"), Code(dumped)]
