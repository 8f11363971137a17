"""The variants of the distiller, by what its model server is sent and what the store keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.domain.serialization import contrast_of
from app.domain.trajectory import Contrast
from rules_store.models.episodes import Episode, EpisodeStatus
from tests.fakes import Reply, ScriptedUpstream, is_distiller, is_student, is_tutor, text_of
from tests.gateway import MODEL, Gateway, running_gateway

FIRST = "How many red tiles are left in the box of 17 tiles?"
SECOND = "How many red tiles are left in the bag of tiles?"
RIGHT, WRONG = "Taken one by one it is \\boxed{4}.", "At a glance it is \\boxed{9}."
RULE = "Look at every single piece before you give the total."
SPOILING = "Give a quick estimate of the total and then move on."
BETTER = "Go through all of the pieces slowly and keep a tally."
TRIGGER = "questions about what is left"


def rule(text: str) -> Reply:
    return Reply.of_json({"positive": text, "negative": "", "trigger": TRIGGER})


def revises(body: dict[str, Any]) -> bool:
    return is_distiller(body) and "You wrote advice" in text_of(body)


@contextmanager
def gateway_with(variant: str) -> Iterator[tuple[Gateway, ScriptedUpstream]]:
    """Of three Students one is wrong; no request is given a rule, replays alone are."""
    with ScriptedUpstream() as upstream:
        upstream.when(is_tutor, Reply.of_json({"variants": []}))
        upstream.when(is_student, [Reply(WRONG), Reply(RIGHT), Reply(RIGHT)] * 10)
        upstream.default = Reply(RIGHT)
        given = {"distiller_variant": variant, "max_positive": 0, "max_negative": 0}
        with running_gateway(upstream, **given) as gateway:
            yield gateway, upstream


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Gateway, ScriptedUpstream]]:
    with gateway_with("cluster") as both:
        yield both


@pytest.fixture(scope="module")
def revised() -> Iterator[tuple[Gateway, ScriptedUpstream]]:
    with gateway_with("revised") as both:
        yield both


async def taught(gw: Gateway, namespace: str, question: str) -> dict[str, Any]:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "ttcl": {"mode": "explore", "namespace": namespace},
    }
    response = await gw.post(body)
    assert response.status_code == 200, response.text
    return gw.settled(response.headers["X-TTCL-Episode"], within=60)


def distiller_calls(upstream: ScriptedUpstream) -> list[str]:
    return [call.text for call in upstream.chats if is_distiller(call.body)]


async def test_a_cluster_shows_what_was_learned_from_near(
    cluster: tuple[Gateway, ScriptedUpstream],
) -> None:
    gw, upstream = cluster
    upstream.when(is_distiller, [rule(RULE), rule(BETTER), rule("Start from 17 tiles, always.")])
    assert "others" not in (await taught(gw, "near", FIRST))["distiller"]
    assert (await taught(gw, "near", SECOND))["distiller"]["others"] == 1
    alone, both = distiller_calls(upstream)
    assert "distil_cluster" not in alone
    for text in (FIRST, SECOND, RIGHT, WRONG):
        assert text in both
    assert both.count(WRONG) == 2
    assert {each["text"] for each in gw.rules("near")} == {RULE, BETTER}
    # A number of the other question is told by no rule either.
    await taught(gw, "near", f"{SECOND} Say it again.")
    refused = [each for each in gw.rules("near") if each["state"] == "quarantined"]
    assert [each["reason"].partition(":")[0] for each in refused] == ["question_number"]


async def test_a_cluster_never_crosses_namespaces(
    cluster: tuple[Gateway, ScriptedUpstream],
) -> None:
    gw, upstream = cluster
    before = len(distiller_calls(upstream))
    await taught(gw, "elsewhere", SECOND)
    (call,) = distiller_calls(upstream)[before:]
    assert FIRST not in call


async def test_rules_are_written_again_by_what_they_spoiled(
    revised: tuple[Gateway, ScriptedUpstream],
) -> None:
    gw, upstream = revised
    upstream.when(revises, rule(BETTER))
    upstream.when(lambda b: is_distiller(b) and "bag" in text_of(b), rule(SPOILING))
    upstream.when(is_distiller, rule(RULE))
    upstream.when(SPOILING, Reply(WRONG))
    first = await taught(gw, "spoiled", FIRST)
    assert first["distiller"]["prompt"] == "default/reflect/distil_closed@1"
    second = await taught(gw, "spoiled", SECOND)
    assert second["distiller"]["prompt"] == "default/reflect/revise@1"
    assert second["distiller"]["replays"] == [{"before": 1.0, "after": 0.0}]
    # Written, tried once, written again.
    assert second["learning_cost"]["calls"] == 3
    assert {each["text"] for each in gw.rules("spoiled")} == {RULE, BETTER}
    (asked,) = [call.text for call in upstream.chats if revises(call.body)]
    for text in (SPOILING, FIRST, RIGHT, WRONG):
        assert text in asked


async def test_what_only_helped_is_kept_as_it_is(
    revised: tuple[Gateway, ScriptedUpstream],
) -> None:
    """The Teacher was wrong at first, the majority right."""
    gw, upstream = revised
    upstream.reset()
    upstream.when(is_tutor, Reply.of_json({"variants": []}))
    upstream.when(is_student, Reply(RIGHT))
    upstream.when(revises, rule(SPOILING))
    upstream.when(lambda b: is_distiller(b) and "bag" in text_of(b), rule(BETTER))
    upstream.when(is_distiller, rule(RULE))
    upstream.when(BETTER, Reply(RIGHT))
    upstream.default = Reply(WRONG)
    await taught(gw, "helped", FIRST)
    second = await taught(gw, "helped", SECOND)
    assert second["distiller"]["replays"] == [{"before": 0.0, "after": 1.0}]
    assert {each["text"] for each in gw.rules("helped")} == {RULE, BETTER}
    assert not any(revises(call.body) for call in upstream.chats)


def episode(trace: dict[str, Any]) -> Episode:
    return Episode("e", "n", "steer", EpisodeStatus.LEARNED, None, "Q?", "a", "m", trace, *_TIMES)


_TIMES: Any = (None, None)


@pytest.mark.parametrize(
    ("trace", "found"),
    [
        ({}, None),
        ({"selection": {"better": "teacher", "worse": None}, "trajectories": []}, None),
        (
            {
                "selection": {"better": "teacher", "worse": "student-1"},
                "trajectories": [
                    {"name": "teacher", "text": "good"},
                    {"name": "student-1", "text": "bad"},
                ],
            },
            Contrast("Q?", "good", "bad"),
        ),
        (
            {"lessons": {"a": {"skipped": "x"}, "b": {"contrast": {"better": "r", "worse": "w"}}}},
            Contrast("Q?", "r", "w", verified=True),
        ),
    ],
)
def test_a_contrast_is_what_the_episode_has_kept(
    trace: dict[str, Any], found: Contrast | None
) -> None:
    assert contrast_of(episode(trace)) == found
