"""Confidence, degeneration and likeness of trajectories."""

from __future__ import annotations

import math

import numpy as np
import pytest

from app.domain.trajectory import Trajectory
from app.loop.reflect.scoring import cosine, degenerate, exclusion, medoid, perplexity
from tests.app.loop.group import LOOP, at, said


@pytest.mark.parametrize(
    ("logprobs", "expected"),
    [
        ([0.0], 1.0),
        ([math.log(0.5)] * 3, 2.0),
        ([math.log(0.5), math.log(0.125)], 4.0),
        ([-1.0, -3.0], math.exp(2.0)),
        ([0.0, -0.0], 1.0),
        ([1e-9], 1.0),  # rounding of the server
        ([-1.0, -9999.0], math.exp(1.0)),  # vLLM's and llama.cpp's 'unknown'
        ([-1.0, float("-inf")], math.exp(1.0)),
        ([-1.0, float("nan"), -1.0], math.exp(1.0)),
    ],
)
def test_perplexity_is_the_exponential_of_the_mean(logprobs: list[float], expected: float) -> None:
    assert perplexity(logprobs) == pytest.approx(expected)


@pytest.mark.parametrize(
    "logprobs", [None, [], (), [float("nan")], [float("-inf")] * 3, [-9999.0, -9999.0, -1.0]]
)
def test_no_perplexity_without_log_probabilities(logprobs: list[float] | None) -> None:
    assert perplexity(logprobs) is None


@pytest.mark.parametrize("logprobs", [[-999.0] * 3, [-1e300, -1.0], [float("inf"), -1.0], [900.0]])
def test_a_perplexity_is_finite_and_at_least_one(logprobs: list[float]) -> None:
    value = perplexity(logprobs)
    assert value is not None
    assert math.isfinite(value)
    assert value >= 1.0


@pytest.mark.parametrize(
    ("trajectory", "reason"),
    [
        (said(1, "It is 7."), None),
        (said(1, "7"), None),
        (said(1, "It is 7.", failure="timeout"), "failed"),
        (said(1, "", failure="cancelled"), "failed"),
        (said(1, "It is 7, bec", finish_reason="length"), "truncated"),
        (said(1, "", finish_reason="length"), "truncated"),
        (said(1, ""), "empty"),
        (said(1, " \n"), "empty"),
        (said(1, "<think>It is 7."), "empty"),
        (said(1, "<think>It is 7.</think>"), "empty"),
        (said(1, LOOP), "degenerate"),
        (said(1, LOOP, finish_reason="length"), "degenerate"),
        (said(1, f"<think>{LOOP}</think>It is 7."), None),
    ],
)
def test_why_a_trajectory_takes_no_part(trajectory: Trajectory, reason: str | None) -> None:
    assert exclusion(trajectory) == reason


LOOPS = {
    "one letter": "a" * 400,
    "a word": "the " * 100,
    "a sentence": "We know that the total is 12. " * 15,
    "a sentence cut anywhere": ("We know that the total is 12. " * 15)[:-11],
    "a loop after a good beginning": (
        "First we count the apples in both baskets, then we take away what was eaten. "
        + "So the answer is 7. " * 20
    ),
    "a paragraph": (
        "Let us see whether this is right.\nThe train goes for two hours.\n"
        "Then it stops and waits for the other train to pass.\n\n" * 9
    ),
    "digits": "0." + "142857" * 60,
}
NORMAL = {
    "short": "7",
    "short and repeated": "No, no, no, no, no.",
    "mathematics": (
        "Let x be the price of one pen and y that of one book. From 3x + 2y = 19 and x + 4y = 23 "
        "we get x = 23 - 4y. Put into the first: 3(23 - 4y) + 2y = 19, so 69 - 12y + 2y = 19, "
        "so 10y = 50 and y = 5. Then x = 23 - 20 = 3.\n"
        "Check: 3*3 + 2*5 = 9 + 10 = 19, and 3 + 4*5 = 23. So a pen costs \\boxed{3}."
    ),
    "steps of one form": "\n".join(
        f"Step {n}: {n} + {n * n} = {n + n * n}, so the sum is now {n * (n + 1) // 2}."
        for n in range(1, 25)
    ),
    "a list": "\n".join(
        f"- **{word}**: a good choice for {use}."
        for word, use in [
            ("Oak", "floors and stairs"),
            ("Pine", "shelves"),
            ("Walnut", "fine furniture"),
            ("Ash", "tool handles"),
            ("Teak", "boats and garden tables"),
            ("Maple", "kitchen boards"),
            ("Birch", "plywood"),
            ("Cedar", "chests that keep moths out"),
        ]
    ),
    "a table": "\n".join(f"| {n} | {n**2} | {n**3} |" for n in range(1, 40)),
    "code": "It is a plain table:\n```python\n"
    + "row.append(0)\n" * 60
    + "```\nEach line adds one more zero to the row.",
    "code without a fence": "\n".join(
        f"    {name} = config.get('{name}', {value})"
        for name, value in [
            ("host", "'localhost'"),
            ("port", "8080"),
            ("debug", "False"),
            ("workers", "4"),
            ("timeout", "30"),
            ("retries", "1"),
        ]
    ),
    "a rule under a table": "Name and price\n" + "-" * 60 + "\nPen 3\nBook 5",
}


@pytest.mark.parametrize("text", LOOPS.values(), ids=LOOPS.keys())
def test_a_loop_is_degenerate(text: str) -> None:
    assert degenerate(text)


@pytest.mark.parametrize("text", NORMAL.values(), ids=NORMAL.keys())
def test_normal_text_is_not(text: str) -> None:
    assert not degenerate(text)


def test_cosine() -> None:
    assert cosine(at(0), at(60)) == pytest.approx(0.5)
    assert cosine(at(0), at(180)) == pytest.approx(-1.0)
    for degrees in range(0, 360, 7):
        assert -1.0 <= cosine(at(degrees), at(degrees)) <= 1.0


@pytest.mark.parametrize(
    ("degrees", "index"),
    [((30.0,), 0), ((0, 20, 80), 1), ((80, 0, 20), 2), ((10, 10, 10), 0), ((0, 40), 0)],
)
def test_the_medoid_is_the_most_typical(degrees: tuple[float, ...], index: int) -> None:
    assert medoid([at(d) for d in degrees]) == index


def test_the_medoid_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        medoid(list(np.zeros((0, 2), dtype=np.float32)))
