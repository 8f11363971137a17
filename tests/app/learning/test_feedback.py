"""What feedback teaches, from the client's words to the example and the rules."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.app.api.test_keys import make, send
from tests.fakes import HashEmbedder, Reply, ScriptedUpstream, is_distiller, is_teacher, is_tutor
from tests.gateway import CLIENT_KEY, MODEL, Gateway, running_gateway

QUESTION = "Where is the card that I ordered two weeks ago?"
WORK = "First I look at what is asked. " * 12
RULE = "Sort a card that has not come yet under card_arrival, not under lost_card."


@pytest.fixture
def up() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        upstream.when(is_tutor, Reply.of_json({"variants": []}))
        upstream.when(
            is_distiller,
            Reply.of_json(
                {"positive": RULE, "negative": "", "trigger": "questions about cards on their way"}
            ),
        )
        yield upstream


@pytest.fixture
def settings() -> dict[str, Any]:
    return {}


@pytest.fixture
def gw(up: ScriptedUpstream, settings: dict[str, Any]) -> Iterator[Gateway]:
    """Explores nothing by itself; every judged answer pays for a whole lesson."""
    given = {"learn_sample_rate": 0, "feedback_calls_per_answer": 10, **settings}
    with running_gateway(up, **given) as gateway:
        yield gateway


def answered(
    gw: Gateway, up: ScriptedUpstream, answer: str, question: str = QUESTION, **more: Any
) -> str:
    """Id of the episode of a request that was answered so."""
    up.default = Reply(answer)
    secret = more.pop("secret", CLIENT_KEY)
    ttcl = {"mode": "steer", **more.pop("ttcl", {})}
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "ttcl": ttcl,
        **more,
    }
    response = send(gw, secret, "POST", "/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return str(response.headers["X-TTCL-Episode"])


def say(gw: Gateway, episode: str, secret: str = CLIENT_KEY, **said: Any) -> dict[str, Any]:
    body = {"episode_id": episode, **said}
    response: httpx.Response = send(gw, secret, "POST", "/v1/feedback", json=body)
    assert response.status_code == 201, response.text
    return dict(response.json()["effect"])


def rows(gw: Gateway, statement: str) -> list[tuple[Any, ...]]:
    path = gw.app.state.ttcl.settings.data_dir / "ttcl.db"
    connection = sqlite3.connect(path, timeout=5)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def examples(gw: Gateway) -> list[tuple[Any, ...]]:
    """(answer, label, trust, state) of each, oldest first."""
    return rows(gw, "SELECT answer, label, trust, state FROM examples ORDER BY seq")


def lessons(gw: Gateway, within: float = 10) -> list[dict[str, Any]]:
    """The jobs of feedback, once they are over."""
    deadline = time.monotonic() + within
    while True:
        jobs = gw.admin("GET", "/jobs").json()["data"]
        if all(job["state"] in ("done", "failed") for job in jobs):
            return list(jobs)
        assert time.monotonic() < deadline, jobs
        time.sleep(0.02)


def lesson_of(gw: Gateway, episode: str) -> dict[str, Any]:
    (trace,) = rows(gw, f"SELECT trace FROM episodes WHERE id = '{episode}'")
    import json

    (lesson,) = json.loads(trace[0])["lessons"].values()
    return dict(lesson)


# -- the answer was right


@pytest.mark.parametrize(
    ("said", "trust"),
    [
        ({"label": "card_arrival"}, "label"),
        ({"verified": True}, "verifier"),
        ({"score": 0.8}, "score"),
        ({"verified": True, "label": "card_arrival"}, "label"),
    ],
)
def test_a_right_answer_becomes_an_example(
    gw: Gateway, up: ScriptedUpstream, said: dict[str, Any], trust: str
) -> None:
    episode = answered(gw, up, "<think>hm</think>card_arrival")
    effect = say(gw, episode, **said)
    assert (effect["right"], effect["example_state"], effect["lesson"]) == (True, "active", False)
    assert examples(gw) == [("card_arrival", "card_arrival", trust, "active")]
    assert lessons(gw) == []


def test_a_worked_out_right_answer_is_kept_whole(gw: Gateway, up: ScriptedUpstream) -> None:
    text = WORK + "So it is \\boxed{42}."
    say(gw, answered(gw, up, text), label="42")
    assert examples(gw) == [(text, "42", "label", "active")]


def test_an_open_answer_has_no_label(gw: Gateway, up: ScriptedUpstream) -> None:
    text = "Dear customer, your card is on its way and will be with you before the week is over."
    say(gw, answered(gw, up, text, ttcl={"task": "open"}), verified=True)
    assert examples(gw) == [(text, None, "verifier", "active")]


# -- it was wrong


@pytest.mark.parametrize(
    ("variant", "told", "prompt"),
    [
        ("named", "Sort under card_arrival, lost_card or top_up.", "distil_named"),
        ("named", "Sort under arrivals or losses.", "distil_verified"),
        ("contrast", "Sort under card_arrival, lost_card or top_up.", "distil_verified"),
    ],
)
def test_the_distiller_sees_the_task_where_it_lists_the_right_answer(
    up: ScriptedUpstream, variant: str, told: str, prompt: str
) -> None:
    given = {"learn_sample_rate": 0, "feedback_calls_per_answer": 10}
    with running_gateway(up, **given, distiller_variant=variant) as gw:
        asked = [{"role": "system", "content": told}, {"role": "user", "content": QUESTION}]
        episode = answered(gw, up, "lost_card", messages=asked)
        assert say(gw, episode, label="card_arrival")["lesson"]
        lessons(gw)
        assert lesson_of(gw, episode)["distiller"]["prompt"] == f"default/reflect/{prompt}@1"
        (call,) = [call for call in up.chats if is_distiller(call.body)]
        assert (told in str(call.body["messages"])) == (prompt == "distil_named")
        # Unless it was asked for by name, a name is what the client's system message says.
        (kept,) = gw.rules("default")
        assert kept["text"] == RULE
        assert kept["state"] == ("quarantined" if variant == "contrast" else "active")


@pytest.mark.parametrize("said", [{"verified": False}, {"score": 0.0}, {"score": 0.79}])
def test_a_wrong_answer_without_the_right_one_is_no_example(
    gw: Gateway, up: ScriptedUpstream, said: dict[str, Any]
) -> None:
    effect = say(gw, answered(gw, up, "lost_card"), **said)
    assert effect["skipped"] == "right_answer_unknown"
    assert (effect["right"], effect["example"], effect["lesson"]) == (False, None, False)
    assert examples(gw) == []


def test_a_label_is_the_answer_and_the_contrast_a_lesson(gw: Gateway, up: ScriptedUpstream) -> None:
    episode = answered(gw, up, "lost_card")
    effect = say(gw, episode, label="card_arrival")
    assert (effect["right"], effect["example_state"], effect["lesson"]) == (False, "active", True)
    assert examples(gw) == [("card_arrival", "card_arrival", "label", "active")]
    (job,) = lessons(gw)
    assert (job["state"], job["kind"], job["episode"]) == ("done", "feedback", episode)
    (rule,) = gw.rules("default")
    assert (rule["text"], rule["state"]) == (RULE, "active")
    (call,) = [call for call in up.chats if is_distiller(call.body)]
    for part in ("lost_card", "card_arrival", QUESTION):
        assert part in str(call.body["messages"])
    assert lesson_of(gw, episode)["distiller"]["prompt"] == "default/reflect/distil_verified@1"
    settled = gw.settled(episode)
    assert settled["status"] == "learned"
    assert [each["text"] for each in settled["rules_learned"]] == [RULE]


def test_a_correction_is_the_answer_of_an_open_task(gw: Gateway, up: ScriptedUpstream) -> None:
    episode = answered(gw, up, "No idea. Ask somebody else about it.", ttcl={"task": "open"})
    better = "Your card is on its way. It takes ten days at most."
    effect = say(gw, episode, correction=better)
    assert (effect["right"], effect["lesson"]) == (False, True)
    assert examples(gw) == [(better, None, "label", "active")]
    lessons(gw)
    assert lesson_of(gw, episode)["distiller"]["prompt"] == "default/reflect/distil_corrected@1"
    same = answered(gw, up, better, "Where is it?", ttcl={"task": "open"})
    assert say(gw, same, correction=better)["right"] is True


def test_a_right_trajectory_of_the_episode_comes_before_the_label(
    gw: Gateway, up: ScriptedUpstream
) -> None:
    right = WORK + "So \\boxed{42}."
    up.when(is_teacher, Reply(right))
    up.default = Reply("So \\boxed{41}.")
    episode = answered(gw, up, "So \\boxed{41}.", ttcl={"mode": "explore", "learn": True})
    gw.settled(episode)
    say(gw, episode, label="42", correction="It is 42.")
    assert examples(gw)[-1] == (right, "42", "label", "active")


def test_a_bare_label_waits_for_the_steps_that_lead_to_it(
    gw: Gateway, up: ScriptedUpstream
) -> None:
    right = WORK + "So \\boxed{42}."
    episode = answered(gw, up, WORK + "So \\boxed{41}.")
    up.default = Reply(right)
    effect = say(gw, episode, label="42")
    assert effect["example_state"] == "candidate"
    lessons(gw)
    assert examples(gw) == [(right, "42", "label", "active")]


def test_an_exploration_that_finds_nothing_leaves_the_candidate(
    gw: Gateway, up: ScriptedUpstream
) -> None:
    say(gw, answered(gw, up, WORK + "So \\boxed{41}."), label="42")
    lessons(gw)
    assert examples(gw) == [("42", "42", "label", "candidate")]


# -- what is not learned


@pytest.mark.parametrize("settings", [{"feedback_calls_per_answer": 0.5}])
def test_a_lesson_that_is_not_paid_for_is_left_out(gw: Gateway, up: ScriptedUpstream) -> None:
    first = answered(gw, up, "lost_card")
    say(gw, first, label="card_arrival")
    lessons(gw)
    assert lesson_of(gw, first)["skipped"] == "feedback_budget_exhausted"
    assert examples(gw) == [("card_arrival", "card_arrival", "label", "active")]
    assert gw.rules("default") == []
    second = answered(gw, up, "lost_card", "And my other card?")
    say(gw, second, label="card_arrival")
    lessons(gw)
    assert lesson_of(gw, second)["skipped"] is None
    assert [rule["text"] for rule in gw.rules("default")] == [RULE]


def test_personal_data_waits_in_quarantine(gw: Gateway, up: ScriptedUpstream) -> None:
    question = "Write to ann.bell@example.com: where is my card?"
    effect = say(gw, answered(gw, up, "card_arrival", question), label="card_arrival")
    assert effect["example_state"] == "quarantined"
    assert rows(gw, "SELECT reason FROM examples") == [("personal_data: e-mail",)]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"ttcl": {"learn": False}}, "learning_off"),
        ({"n": 2}, "several_choices"),
        ({"question": "x" * 4001}, "too_long"),
    ],
)
def test_what_may_not_be_learned_from_makes_no_example(
    gw: Gateway, up: ScriptedUpstream, more: dict[str, Any], reason: str
) -> None:
    effect = say(gw, answered(gw, up, "card_arrival", **more), label="card_arrival")
    assert (effect["right"], effect["example"], effect["skipped"]) == (True, None, reason)
    assert examples(gw) == []


@pytest.mark.parametrize("settings", [{"examples": "off"}])
def test_without_examples_there_are_lessons_still(gw: Gateway, up: ScriptedUpstream) -> None:
    effect = say(gw, answered(gw, up, "lost_card"), label="card_arrival")
    assert (effect["skipped"], effect["lesson"]) == ("examples_off", True)
    assert examples(gw) == []


def test_who_may_not_teach_is_heard_and_nothing_follows(gw: Gateway, up: ScriptedUpstream) -> None:
    mute = make(gw, "default", permissions=["chat"])["secret"]
    episode = answered(gw, up, "lost_card")
    effect = say(gw, episode, mute, label="card_arrival")
    assert (effect["right"], effect["example"], effect["lesson"]) == (None, None, False)
    asked = answered(gw, up, "lost_card", "And this one?", secret=mute)
    assert say(gw, asked, label="card_arrival")["skipped"] == "key_may_not_learn"
    assert examples(gw) == []
    assert lessons(gw) == []


class MovedAway(HashEmbedder):
    """Fails once `gone`."""

    gone = False

    async def embed(self, texts: Any) -> Any:
        if self.gone:
            raise RuntimeError("no embedder")
        return await super().embed(texts)


@pytest.mark.parametrize("settings", [{"embedder": MovedAway()}])
def test_an_embedder_that_fails_loses_nothing(gw: Gateway, up: ScriptedUpstream) -> None:
    episode = answered(gw, up, "card_arrival")
    assert isinstance(gw.embedder, MovedAway)
    gw.embedder.gone = True
    assert say(gw, episode, label="card_arrival")["example_state"] == "active"
    assert rows(gw, "SELECT vector FROM examples") == [(None,)]


@pytest.mark.parametrize("settings", [{"learn_sample_rate": 1.0}])
def test_where_clients_say_what_is_right_nothing_is_explored(
    gw: Gateway, up: ScriptedUpstream
) -> None:
    reasons = []
    for number in range(12):
        episode = answered(gw, up, "card_arrival", f"Where is card number {number}?")
        reasons.append(gw.settled(episode)["reason"])
        say(gw, episode, label="card_arrival")
    assert "feedback_teaches" not in reasons[:7]
    assert reasons[8:] == ["feedback_teaches"] * 4
