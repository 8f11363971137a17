"""Examples: which are recalled, how they are written into a conversation, what explain says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.loop.steer.block import CUT, LONGEST, render_block
from app.loop.steer.budget import BLOCK_OVERHEAD, EXAMPLE_OVERHEAD, TokenCounter, fit
from app.loop.steer.conversations import ConversationCache, is_agents, turn_key
from app.loop.steer.experience import Experience
from app.loop.steer.explain import Explainer, Explanation, InjectionVerdict, Question
from app.loop.steer.injector import instructions_of
from app.loop.steer.retriever import Retriever, RetrieverOptions
from app.loop.steer.writer import ExperienceWriter, takes_turns
from app.prompt_library import PromptLibrary
from app.settings import ExamplePlace, ExperienceLimits, Experiment, Policy
from rules_store.models.events import Change
from rules_store.models.evidence import Outcome, Signal, Standing
from rules_store.models.examples import Example, ExampleHit, ExampleUse, Given, NewExample, Trust
from rules_store.models.rules import NewRule, Polarity, RuleHit, Vectors
from rules_store.policy.lift import Tally
from rules_store.repository import choices, standings
from rules_store.store import RuleStore
from tests.fakes import HashEmbedder

WHY = Change("t", "t")
QUESTION = "count apples in the basket"
FOUR = ExperienceLimits(3, 3, 4)
PROMPTS = PromptLibrary.bundled()
AT = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RuleStore]:
    opened = await RuleStore.open(
        f"sqlite:///{tmp_path / 'store.db'}", embedding_model="hash-384", data_dir=tmp_path
    )
    await opened.namespaces.ensure("default")
    yield opened
    await opened.close()


async def vector_of(text: str) -> Any:
    return (await HashEmbedder().embed([text]))[0]


async def example(store: RuleStore, question: str, answer: str = "4", **more: Any) -> Example:
    given = {"trust": Trust.LABEL, "label": answer, **more}
    new = NewExample("default", question, answer, **given)
    return await store.examples.create(new, await vector_of(question), change=WHY)


async def rule(store: RuleStore, text: str) -> str:
    rows = await HashEmbedder().embed([text, QUESTION])
    new = NewRule("default", Polarity.POSITIVE, text, QUESTION)
    return (await store.rules.create(new, Vectors(*rows), change=WHY)).id


def retriever(store: RuleStore, embedder: HashEmbedder | None = None, **more: Any) -> Retriever:
    given = {"floor": 0.3, "example_floor": 0.3, "timeout": 0.2, **more}
    return Retriever(store, embedder or HashEmbedder(), RetrieverOptions(**given))


async def recalled(found: Retriever, limits: ExperienceLimits = FOUR, **more: Any) -> list[str]:
    got = await found.retrieve("default", QUESTION, limits, **more)
    assert got.degraded is None
    return [hit.id for hit in got.experience.examples]


def hit(name: str, similarity: float = 0.9, question: str = "Q?", answer: str = "A.") -> ExampleHit:
    return ExampleHit(name, question, answer, None, Trust.LABEL, AT, similarity)


# -- which -----------------------------------------------------------------------------------------


async def test_the_nearest_above_the_floor_come_first_and_no_more_than_asked_for(
    store: RuleStore,
) -> None:
    words = ["count apples in the basket now", "count apples in a box", "count in a bin"]
    made = [(await example(store, text)).id for text in words]
    await example(store, "paint a wall with a brush")
    assert await recalled(retriever(store)) == made
    assert await recalled(retriever(store), ExperienceLimits(3, 3, 2)) == made[:2]
    assert await recalled(retriever(store, example_floor=0.9)) == made[:1]


async def test_those_of_the_same_task_are_shown_however_far_their_questions_are(
    store: RuleStore,
) -> None:
    def told(instructions: str) -> str | None:
        return instructions_of([{"role": "system", "content": instructions}])

    near = await example(store, "count apples in the basket now")
    task = {"instructions": told("Sort the ticket.")}
    far = await example(store, "paint a wall", "home", **task)
    await example(store, "paint a door", "It takes a brush.", label=None, **task)
    await example(store, "paint a gate", "home", instructions=told("Translate."))
    found = retriever(store)
    assert await recalled(found, **task) == [near.id, far.id]
    for other in (None, told("Say hello."), instructions_of([{"role": "user", "content": "Hi"}])):
        assert await recalled(found, instructions=other) == [near.id]
    await store.examples.retire(far.id, change=WHY)
    assert await recalled(found, **task) == [near.id]


async def test_of_equally_near_ones_the_more_trusted_and_then_the_newer_comes_first(
    store: RuleStore,
) -> None:
    # The same words in other orders: the bag of words is the same.
    old = await example(store, "basket the in apples count", trust=Trust.SCORE, label=None)
    new = await example(store, "the basket in apples count", trust=Trust.SCORE, label=None)
    best = await example(store, "apples count in the basket", trust=Trust.VERIFIER, label=None)
    vector = await vector_of(QUESTION)
    near = store.search_examples("default", vector, 9)
    if len(near) == 3:  # the store takes them for three questions
        assert await recalled(retriever(store)) == [best.id, new.id, old.id]
    else:
        assert await recalled(retriever(store)) == [near[0].id]


async def test_where_all_are_near_the_nearest_still_come_before_the_newest(
    store: RuleStore,
) -> None:
    # As where every question has the form of the others.
    words = [f"word{n}" for n in range(400)]
    near = await example(store, " ".join(words[6:]))
    far = await example(store, " ".join(words[9:]))
    vector = await vector_of(" ".join(words))
    hits = store.search_examples("default", vector, 9)
    assert [hit.id for hit in hits] == [near.id, far.id]
    assert 0.001 < hits[0].similarity - hits[1].similarity < 0.01
    found = retriever(store).recall("default", vector, 1, None)
    assert [hit.id for hit in found.chosen] == [near.id]


async def test_only_a_namespace_that_says_so_recalls_what_a_consensus_vouches_for(
    store: RuleStore,
) -> None:
    weak = await example(store, QUESTION, trust=Trust.CONSENSUS, label=None)
    assert await recalled(retriever(store)) == []
    assert await recalled(retriever(store, examples=ExampleUse.CONSENSUS)) == [weak.id]
    await store.namespaces.change_settings("default", {"examples": "consensus"}, change=WHY)
    assert await recalled(retriever(store)) == [weak.id]


async def test_where_examples_are_off_nothing_is_embedded_for_them(store: RuleStore) -> None:
    await example(store, QUESTION)
    embedder = HashEmbedder()
    off = retriever(store, embedder, examples=ExampleUse.OFF)
    assert await recalled(off) == []
    assert await recalled(retriever(store, embedder), ExperienceLimits(3, 3, 0)) == []
    assert embedder.history == []


async def test_one_embedding_serves_rules_and_examples(store: RuleStore) -> None:
    ours = await rule(store, "Touch each apple once.")
    theirs = await example(store, QUESTION)
    embedder = HashEmbedder()
    got = await retriever(store, embedder).retrieve("default", QUESTION, FOUR)
    assert got.experience.ids == {ours, theirs.id}
    assert got.experience.given is Given.BOTH
    assert embedder.history == [[QUESTION]]


@pytest.mark.parametrize(("policy", "left_out"), [(Policy.GATED, True), (Policy.PAPER, False)])
async def test_an_example_that_does_harm_for_sure_is_left_out_under_the_gated_policy(
    store: RuleStore, policy: Policy, left_out: bool
) -> None:
    bad = await example(store, QUESTION)
    good = await example(store, "count apples in a box")
    await standing(store, bad, with_it=Tally(5, 95), without=Tally(95, 5))
    experiment = Experiment(hold_out_rate=0)
    found = await recalled(retriever(store, policy=policy, experiment=experiment))
    assert found == ([good.id] if left_out else [bad.id, good.id])


async def standing(store: RuleStore, of: Example, *, with_it: Tally, without: Tally) -> None:
    now = store.context.clock()
    known = Standing(of.id, 1, "default", now, with_it, without).relifted()
    async with store.context.database.write() as connection:
        await standings.put(connection, known)
    await store.catch_up()


async def test_one_of_all_is_left_out_by_lot(store: RuleStore) -> None:
    ours = await rule(store, "Touch each apple once.")
    theirs = await example(store, QUESTION)
    found = retriever(store, policy=Policy.GATED, experiment=Experiment(hold_out_rate=1.0))
    withheld = set()
    for number in range(40):
        got = (await found.retrieve("default", QUESTION, FOUR, seed=str(number))).experience
        assert got.withheld is not None
        withheld.add(got.withheld.id)
        assert got.ids == {ours, theirs.id} - {got.withheld.id}
        assert [each.item_id for each in got.exposures() if each.withheld] == [got.withheld.id]
    assert withheld == {ours, theirs.id}


async def test_what_was_reworded_or_has_expired_is_not_there_any_more(store: RuleStore) -> None:
    ours = await rule(store, "Touch each apple once.")
    kept, reworded = await example(store, QUESTION), await example(store, "count pears in a bin")
    found = retriever(store, example_floor=-1)
    given = (await found.retrieve("default", QUESTION, FOUR)).experience
    assert found.still_there("default", given) == given
    await store.examples.patch(reworded.id, answer="5", change=WHY)
    await store.rules.patch(ours, text="Touch each apple twice.", change=WHY)
    assert found.still_there("default", given).ids == {kept.id}
    await store.examples.patch(kept.id, expires_at=datetime.now(UTC) - timedelta(1), change=WHY)
    assert not found.still_there("default", given)
    assert not found.still_there("other", given)


# -- budget ----------------------------------------------------------------------------------------


class Words:
    """One token a word."""

    async def count_tokens(self, model: str, text: str, *, seconds: float = 1.0) -> int | None:
        return len(text.split())


async def fitted(experience: Experience, budget: int, context: int | None = None) -> Any:
    return await fit(
        experience,
        model="m",
        counter=TokenCounter(Words()),
        budget=budget,
        context=context,
        messages=[{"role": "user", "content": "Why?"}],
        answer_tokens=0,
    )


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(54, {"r", "near", "far"}), (53, {"near", "r"}), (32, {"near", "r"}), (31, {"near"})],
)
async def test_rules_and_examples_share_one_budget(budget: int, expected: set[str]) -> None:
    """The rule has ten words; an example ten, and its overhead of twelve."""
    ten = "word " * 9
    rules = (RuleHit("r", Polarity.POSITIVE, "r " + ten, "", 0.5),)
    examples = (hit("near", 0.9, ten, "4"), hit("far", 0.4, ten, "4"))
    assert (await fitted(Experience(rules, examples), budget)).ids == expected


async def test_in_a_small_context_examples_give_way_too() -> None:
    given = Experience((), (hit("near", 0.9, "word " * 9, "4"), hit("far", 0.4, "word " * 9, "4")))
    one = BLOCK_OVERHEAD + 2 + 10 + EXAMPLE_OVERHEAD
    assert (await fitted(given, 1000, context=one)).ids == {"near"}
    assert not await fitted(given, 1000, context=one - 1)


# -- how they are written --------------------------------------------------------------------------


def written(examples: list[ExampleHit], messages: Any, place: str = "turns", **fields: Any) -> Any:
    writer = ExperienceWriter(PROMPTS, ExamplePlace(place))
    found = writer.write([], examples, domain="default", messages=messages, fields=fields)
    return found.into(messages)


def test_turns_keep_the_lines_of_an_answer_and_the_block_has_one_for_each() -> None:
    asked = [{"role": "user", "content": "Why?"}]
    one = hit("a", question="How\nmany?", answer="Count:\n1, 2, 3")
    assert [m["content"] for m in written([one], asked)] == [
        "How\nmany?",
        "Count:\n1, 2, 3",
        "Why?",
    ]
    block = written([one], asked, place="block")[0]["content"]
    assert "- Question: How many?\n  Answer: Count: 1, 2, 3\n" in block


def test_what_is_too_long_is_cut_with_a_sign() -> None:
    asked = [{"role": "user", "content": "Why?"}]
    question, answer, _ = written([hit("a", question="q" * 5000, answer="a" * LONGEST)], asked)
    assert question["content"] == "q" * LONGEST + CUT
    assert answer["content"] == "a" * LONGEST


def test_an_example_of_which_nothing_is_left_is_none() -> None:
    asked = [{"role": "user", "content": "Why?"}]
    assert written([hit("a", answer="<|im_end|>")], asked) == asked
    assert render_block(PROMPTS, "default", [], [hit("a", question="</advice>")]) == ""


def test_roles_alternate_where_the_clients_own_do() -> None:
    system = {"role": "system", "content": "Be kind."}
    for messages in (
        [{"role": "user", "content": "Why?"}],
        [system, {"role": "user", "content": "Why?"}],
        [
            system,
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Why?"},
        ],
    ):
        roles = [m["role"] for m in written([hit("a"), hit("b")], messages)]
        talk = [role for role in roles if role != "system"]
        assert talk == [("user", "assistant")[n % 2] for n in range(len(talk))]
        assert roles.count("system") <= 1


@pytest.mark.parametrize(
    ("fields", "turns"),
    [
        ({}, True),
        ({"response_format": {"type": "text"}}, True),
        ({"response_format": None, "tools": []}, True),
        ({"response_format": {"type": "json_object"}}, False),
        ({"tools": [{"type": "function"}]}, False),
        ({"functions": [{"name": "f"}]}, False),
    ],
)
def test_where_examples_may_be_turns(fields: dict[str, Any], turns: bool) -> None:
    assert takes_turns([{"role": "user", "content": "Why?"}], fields) is turns


# -- agents' turns ---------------------------------------------------------------------------------


def test_all_steps_of_a_turn_have_one_key() -> None:
    asked = [{"role": "system", "content": "s"}, {"role": "user", "content": "Why?"}]
    steps = [*asked, {"role": "assistant", "content": None}, {"role": "tool", "content": "x"}]
    key = turn_key("default", "m", asked, FOUR)
    assert turn_key("default", "m", steps, FOUR) == key
    others = [
        turn_key("other", "m", asked, FOUR),
        turn_key("default", "n", asked, FOUR),
        turn_key("default", "m", asked, replace(FOUR, examples=0)),
        turn_key("default", "m", [*steps, {"role": "user", "content": "And?"}], FOUR),
        turn_key("default", "m", [*asked[:1], {"role": "user", "content": "What?"}], FOUR),
    ]
    assert len({key, *others}) == 6


def test_a_plain_question_is_no_agents() -> None:
    asked = [{"role": "user", "content": "Why?"}]
    assert not is_agents(asked, {})
    assert is_agents(asked, {"tools": [{}]})
    assert is_agents([*asked, {"role": "assistant", "content": "Be"}], {})
    assert not is_agents([], {})


def test_the_least_lately_kept_turns_are_forgotten_and_all_after_a_while() -> None:
    cache = ConversationCache(turns=2)
    for key in ("a", "b", "c"):
        cache.keep(key, Experience(scores={key: 1.0}))
    assert cache.get("a") is None
    assert cache.get("c") == Experience(scores={"c": 1.0})
    old = ConversationCache(seconds=-1.0)
    old.keep("a", Experience())
    assert old.get("a") is None


# -- explain ---------------------------------------------------------------------------------------


async def explained(store: RuleStore, found: Retriever, budget: int = 1000) -> Explanation:
    writer = ExperienceWriter(PROMPTS, ExamplePlace.TURNS)
    explainer = Explainer(store, found, TokenCounter(Words()), writer, budget)
    question = Question(
        namespace="default",
        messages=[{"role": "user", "content": QUESTION}],
        vector=await vector_of(QUESTION),
        limits=FOUR,
        domain="default",
        model="m",
        context=None,
    )
    return await explainer.explain(question)


def verdicts(explanation: Explanation) -> dict[str, InjectionVerdict]:
    return {each.id: each.verdict for each in explanation.examples}


async def test_each_example_near_a_question_has_its_verdict(store: RuleStore) -> None:
    good = await example(store, "count apples in the basket now")
    weak = await example(store, "count apples in a box", trust=Trust.CONSENSUS, label=None)
    far = await example(store, "paint a wall with a brush")
    retired = await example(store, "count apples in the cellar")
    await store.examples.retire(retired.id, change=WHY)
    over = datetime.now(UTC) - timedelta(1)
    expired = await example(store, "count apples in the attic", expires_at=over)
    found = await explained(store, retriever(store))
    assert verdicts(found) == {
        good.id: InjectionVerdict.INJECTED,
        weak.id: InjectionVerdict.UNTRUSTED,
        far.id: InjectionVerdict.BELOW_FLOOR,
        retired.id: InjectionVerdict.STATE,
        expired.id: InjectionVerdict.EXPIRED,
    }
    similarities = [each.similarity for each in found.examples]
    assert similarities == sorted(similarities, reverse=True)
    assert all(each.reason for each in found.examples)
    assert found.messages[0] == {"role": "user", "content": "count apples in the basket now"}
    assert found.decision.choices == ()  # under `paper` nothing is decided
    no_room = await explained(store, retriever(store), budget=5)
    assert verdicts(no_room)[good.id] is InjectionVerdict.BUDGET


async def test_a_conflict_is_told(store: RuleStore) -> None:
    made = [(await example(store, QUESTION, answer)).id for answer in ("4", "5")]
    found = verdicts(await explained(store, retriever(store)))
    assert {found[each] for each in made} <= {InjectionVerdict.CONFLICT, InjectionVerdict.FARTHER}
    assert InjectionVerdict.INJECTED not in found.values()


async def test_the_decision_is_told_with_what_is_thought_of_each_choice(store: RuleStore) -> None:
    bad = await example(store, QUESTION)
    async with store.context.database.write() as connection:
        for number in range(80):
            given, value = (Given.EXAMPLES, 0.0) if number % 2 else (Given.NONE, 1.0)
            await choices.put(
                connection,
                f"ep{number}",
                "default",
                given,
                Outcome(Signal.LABEL, value),
                "hash-384",
                None,
                store.context.clock(),
            )
    await store.catch_up()
    found = await explained(store, retriever(store, policy=Policy.GATED))
    assert found.decision.given is Given.NONE
    assert found.decision.exploring == pytest.approx(80 / 90, abs=0.01)
    beliefs = {each.given: each.belief for each in found.decision.choices}
    assert set(beliefs) == {Given.NONE, Given.EXAMPLES}
    assert beliefs[Given.NONE].mean > beliefs[Given.EXAMPLES].mean
    assert beliefs[Given.NONE].size == pytest.approx(40, abs=0.1)
    assert verdicts(found) == {bad.id: InjectionVerdict.DECISION}
    assert found.messages == [{"role": "user", "content": QUESTION}]


def test_what_is_confidential_says_so_before_the_block_ends() -> None:
    """Examples too are in the block then, under the line."""
    writer = ExperienceWriter(PROMPTS, ExamplePlace.TURNS, lambda namespace: namespace == "quiet")
    rules, examples = [RuleHit("r", Polarity.POSITIVE, "Count.", "", 0.5)], [hit("a")]
    asked = [{"role": "user", "content": "Why?"}]
    line = PROMPTS.get("default", "steer/confidential").render().text
    texts = {}
    for namespace in ("quiet", "loud"):
        found = writer.write(
            rules, examples, domain="default", messages=asked, fields={}, namespace=namespace
        )
        texts[namespace] = found
    assert texts["quiet"].block.splitlines()[-2:] == [line, "</advice>"]
    assert "- Question:" in texts["quiet"].block
    assert texts["quiet"].turns == ()
    assert line not in texts["loud"].block
    assert texts["loud"].turns
    nothing = writer.write([], [], domain="default", messages=asked, fields={}, namespace="quiet")
    assert nothing.block == ""
