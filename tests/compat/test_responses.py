"""Cases 6-9: what an answer looks like and what is in it."""

from __future__ import annotations

import pytest

from tests.compat.helpers import QUESTION, WORDINGS, ask, for_client, script_majority, visible_call
from tests.fakes import Reply, is_distiller, is_student, is_teacher, is_tutor
from tests.gateway import MODEL


async def test_06_fields_of_an_answer(gw, up, mode) -> None:
    answer = (await gw.post(ask(mode))).json()
    assert {"id", "object", "created", "model", "choices", "usage"} <= set(answer)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == MODEL
    choice = answer["choices"][0]
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    assert choice["message"]["role"] == "assistant"
    usage = answer["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["completion_tokens"] > 0
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


async def test_06_official_client(gw, up, mode) -> None:
    up.default = Reply("seven")
    async with gw.client() as client:
        answer = await client.chat.completions.create(**for_client(ask(mode)))
    assert answer.choices[0].message.content == "seven"
    assert isinstance(answer.created, int)


async def test_06_off_leaves_the_bytes_alone(gw, up) -> None:
    odd = (
        b'{"id" : "x","object":"chat.completion","created":1,"model":"scripted-model","v":1.50,'
        b'"choices":[{"index":0,"message":{"role":"assistant","content":"\\u00e9"},'
        b'"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,'
        b'"total_tokens":2}}'
    )
    up.default = Reply(body=odd)
    assert (await gw.post(ask("off"))).content == odd


async def test_06_usage_counts_the_visible_answer_and_cost_the_loop(gw, up) -> None:
    up.default = Reply("one two three", usage=(10, 3))
    answer = (await gw.post(ask("explore"))).json()
    assert answer["usage"]["completion_tokens"] == 3
    cost = answer["ttcl"]["cost"]
    assert cost["calls"] == len(up.chats) == 5
    assert cost["completion_tokens"] > 3 * 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_07_limits_are_kept_and_told(gw, up, mode, name, stream) -> None:
    up.default = Reply("one two three four five")
    body = ask(mode, **{name: 3})
    if stream:
        answer = await gw.sse(body)
        assert (answer.text().split(), answer.finishes()) == (["one", "two", "three"], ["length"])
    else:
        choice = (await gw.post(body)).json()["choices"][0]
        assert choice["finish_reason"] == "length"
        assert choice["message"]["content"].split() == ["one", "two", "three"]
    other = {"max_tokens", "max_completion_tokens"} - {name}
    for call in up.chats:
        if not is_tutor(call.body):
            assert call.body[name] == 3
            assert not other & set(call.body)


async def test_07_no_limit_is_made_up(gw, up, mode) -> None:
    await gw.post(ask(mode))
    sent = visible_call(up, mode).body
    assert not {"max_tokens", "max_completion_tokens", "stop"} & set(sent)


@pytest.mark.parametrize("stop", ["three", ["three", "four"]])
async def test_07_stop_works(gw, up, mode, stop) -> None:
    up.default = Reply("one two three four five")
    choice = (await gw.post(ask(mode, stop=stop))).json()["choices"][0]
    assert (choice["message"]["content"].strip(), choice["finish_reason"]) == ("one two", "stop")
    assert visible_call(up, mode).body["stop"] == stop


@pytest.mark.parametrize("stream", [False, True])
async def test_08_turn_words_do_not_cut(gw, up, mode, stream) -> None:
    text = "User: who are you?\nAssistant: a model.\n\nUser: and I?\nAssistant: a user."
    up.default = Reply(text)
    if stream:
        assert (await gw.sse(ask(mode))).text() == text
    else:
        answer = (await gw.post(ask(mode))).json()
        assert answer["choices"][0]["message"]["content"] == text


@pytest.mark.parametrize("stream", [False, True])
async def test_09_only_the_selected_answer_is_shown(gw, up, stream) -> None:
    teacher, chosen = "TEACHERTEXT: the answer is 9", "CHOSENTEXT: the answer is 7"
    # The Student on the original wording disagrees with the two others.
    up.when(
        lambda body: is_student(body) and QUESTION in body["messages"][-1]["content"],
        Reply("STUDENTTEXT: the answer is 8"),
    )
    script_majority(up, teacher, chosen)
    if stream:
        got = await gw.sse(ask("explore"))
        assert got.text() == chosen
        raw = got.raw.decode()
    else:
        response = await gw.post(ask("explore"))
        assert response.json()["choices"][0]["message"]["content"] == chosen
        raw = response.text
    assert "TEACHERTEXT" not in raw
    assert "STUDENTTEXT" not in raw
    assert not any(wording in raw for wording in WORDINGS)


async def test_09_steer_never_shows_what_is_learned_from(learner, up, namespace) -> None:
    up.when(is_student, Reply("STUDENTTEXT: the answer is 8"))
    up.default = Reply("visible: the answer is 7")
    response = await learner.post(ask("steer", ttcl={"namespace": namespace}))
    assert response.json()["choices"][0]["message"]["content"] == "visible: the answer is 7"
    learner.settled(response.headers["x-ttcl-episode"])
    assert any(is_student(call.body) for call in up.chats)
    assert "STUDENTTEXT" not in response.text


@pytest.mark.parametrize("stream", [False, True])
async def test_09_reasoning_is_kept_apart(gw, up, mode, stream) -> None:
    up.default = Reply("the answer is 7", reasoning="twelve minus five")
    if stream:
        got = await gw.sse(ask(mode))
        reasoning = "".join(c["delta"].get("reasoning_content") or "" for c in got.choices())
        assert (reasoning, got.text()) == ("twelve minus five", "the answer is 7")
    else:
        message = (await gw.post(ask(mode))).json()["choices"][0]["message"]
        assert message["reasoning_content"] == "twelve minus five"
        assert message["content"] == "the answer is 7"


async def test_09_reasoning_is_never_answer_nor_distilled(learner, up, namespace) -> None:
    up.when(is_student, Reply("the answer is 7", reasoning="SECRETTHOUGHT the answer is 1"))
    up.when(is_teacher, Reply("the answer is 7", reasoning="SECRETTHOUGHT the answer is 2"))
    response = await learner.post(ask("explore", ttcl={"namespace": namespace}))
    assert response.json()["choices"][0]["message"]["content"] == "the answer is 7"
    assert learner.settled(response.headers["x-ttcl-episode"])["status"] == "learned"
    distilled = [call for call in up.chats if is_distiller(call.body)]
    assert distilled
    assert not any("SECRETTHOUGHT" in call.text for call in distilled)
