"""Case 18: chores of clients are answered, and that is all."""

from __future__ import annotations

import pytest

from tests.compat.helpers import MODEL, QUESTION, RULE, ask
from tests.fakes import Reply

HISTORY = f"<chat_history>\nUSER: {QUESTION}\nASSISTANT: Seven.\n</chat_history>"
CHORES = {
    "title": f'### Task:\nGenerate a title.\n### Output:\n{{ "title": "..." }}\n{HISTORY}',
    "tags": f'### Task:\nGenerate tags.\n### Output:\n{{ "tags": ["..."] }}\n{HISTORY}',
    "follow_ups": f'### Task:\nSuggest more.\n### Output:\n{{ "follow_ups": [] }}\n{HISTORY}',
    "search_query": f'### Task:\nWhat to look up?\n### Output:\n{{ "queries": [] }}\n{HISTORY}',
}


@pytest.mark.parametrize("kind", CHORES)
async def test_a_chore_is_one_call_and_teaches_nothing(learner, up, namespace, mode, kind) -> None:
    learner.add_rule(namespace, RULE, QUESTION)
    body = ask(mode, CHORES[kind], ttcl={"namespace": namespace})
    response = await learner.post(body)
    assert response.status_code == 200, response.text
    await up.settled()
    (call,) = up.chats
    assert call.body == {"model": MODEL, "messages": body["messages"]}
    if mode == "off":
        return
    told = response.json()["ttcl"]
    assert (told["mode"], told["degraded"]) == ("steer", [f"chore:{kind}"])
    assert response.headers["x-ttcl-degraded"] == f"chore:{kind}"
    episode = learner.settled(told["episode"])
    assert (episode["status"], episode["reason"]) == ("skipped", "chore")
    fed = learner.admin("GET", f"/episodes/{told['episode']}").json()
    assert fed["rules_injected"] == []


@pytest.mark.parametrize("question", [QUESTION, CHORES["title"]], ids=["question", "chore"])
async def test_feedback_on_a_chore_makes_no_example_of_it(learner, up, namespace, question) -> None:
    up.default = Reply("\\boxed{7}")
    body = ask("steer", question, ttcl={"namespace": namespace})
    episode = (await learner.post(body)).json()["ttcl"]["episode"]
    async with learner.client() as client:
        said = {"episode_id": episode, "label": "7"}
        await client.post("/feedback", body=said, cast_to=object)
    page = learner.admin("GET", "/examples", params={"namespace": namespace}).json()
    assert len(page["data"]) == (question == QUESTION)


async def test_a_persons_own_words_are_no_chore(gw, up, mode) -> None:
    response = await gw.post(ask(mode, "write a concise title for my blog post"))
    assert "chore" not in response.text
    assert "chore" not in response.headers.get("x-ttcl-degraded", "")


@pytest.mark.parametrize("how", ["header", "body"])
async def test_a_request_can_say_itself_what_it_is(gw, up, how) -> None:
    async def told(question: str, chore: bool) -> dict:
        if how == "header":
            response = await gw.post(ask("steer", question), X_TTCL_Chore=str(chore))
        else:
            response = await gw.post(ask("steer", question, ttcl={"chore": chore}))
        return response.json()["ttcl"]

    declared = await told(QUESTION, True)
    assert (declared["rules"], declared["degraded"]) == ([], ["chore:declared"])
    assert (await told(CHORES["tags"], True))["degraded"] == ["chore:tags"]
    assert (await told(CHORES["tags"], False))["degraded"] is None


async def test_a_namespace_can_say_what_its_requests_are(gw, up) -> None:
    async def degraded(question: str, **headers: str) -> list[str] | None:
        answer = await gw.post(ask("steer", question, ttcl={"namespace": "tasks"}), **headers)
        return answer.json()["ttcl"]["degraded"]

    def set_to(value: str | None) -> None:
        change = {"settings": {"chores": value}, "actor": "t", "reason": "t"}
        response = gw.admin("PATCH", "/namespaces/tasks", json=change)
        assert response.status_code == 200, response.text

    assert await degraded(QUESTION) is None
    set_to("all")
    assert await degraded(QUESTION) == ["chore:declared"]
    assert await degraded(QUESTION, X_TTCL_Chore="false") is None
    set_to("none")
    assert await degraded(CHORES["title"]) is None
    set_to(None)
    assert await degraded(CHORES["title"]) == ["chore:title"]
    wrong = {"settings": {"chores": "some"}, "actor": "t", "reason": "t"}
    refused = gw.admin("PATCH", "/namespaces/tasks", json=wrong)
    assert refused.status_code in (400, 422)
    assert "chores" in refused.text


async def test_a_header_keeps_a_request_from_teaching(learner, up, namespace) -> None:
    body = ask("steer", ttcl={"namespace": namespace})
    response = await learner.post(body, X_TTCL_Learn="false")
    episode = learner.settled(response.json()["ttcl"]["episode"])
    assert (episode["status"], episode["reason"]) == ("skipped", "learning_off")
    body["ttcl"]["learn"] = True
    response = await learner.post(body, X_TTCL_Learn="false")
    assert learner.settled(response.json()["ttcl"]["episode"])["reason"] != "learning_off"


@pytest.mark.parametrize("name", ["X_TTCL_Learn", "X_TTCL_Chore"])
@pytest.mark.parametrize("given", ["", "perhaps", "2"])
async def test_a_wrong_header_is_named(gw, name, given) -> None:
    response = await gw.post(ask("steer"), **{name: given})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == name.replace("_", "-")
