"""What an operator does with rules: every change is one event, and every wrong one an error."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rules_store.errors import (
    DuplicateRule,
    InvalidCursor,
    InvalidTransition,
    UnknownNamespace,
    UnknownRule,
    VersionConflict,
)
from rules_store.models import paging
from rules_store.models.events import Change
from rules_store.models.rules import (
    NewRule,
    Polarity,
    Rule,
    RuleEmbedding,
    RuleFilter,
    RuleState,
    Vectors,
)
from rules_store.store import RuleStore
from tests.rules_store.helpers import (
    NEGATIVE,
    POSITIVE,
    Clock,
    all_rules,
    axis,
    begin,
    draft,
    learn,
    open_store,
    random_vector,
    sql,
    write,
)


def texts(store: RuleStore, number: int, namespace: str = "default") -> list[str]:
    """Texts of the active rules that are near an axis at all."""
    hits = store.search(namespace, axis(number), POSITIVE, 50).hits
    return [candidate.text for candidate in hits if candidate.similarity > 0.5]


async def event_count(store: RuleStore) -> int:
    return (await store.stats()).last_event


# -- namespaces


async def test_a_namespace_is_made_once(store: RuleStore, tmp_path: Path) -> None:
    await store.namespaces.ensure("b")
    await store.namespaces.ensure("b")
    assert await store.namespaces.names() == ["b", "default"]
    assert await store.namespaces.exists("b")
    assert not await store.namespaces.exists("c")
    other = await open_store(tmp_path)
    await other.namespaces.ensure("c")
    await other.namespaces.ensure("b")
    assert await store.namespaces.exists("c")
    assert sql(tmp_path, "SELECT count(*) FROM events WHERE kind = 'namespace.created'") == [(3,)]
    await other.close()


async def test_unknown_names(store: RuleStore) -> None:
    with pytest.raises(UnknownNamespace, match="'nowhere'"):
        await write(store, "x", axis(0), namespace="nowhere")
    for call in (
        store.rules.get("rule_0"),
        store.rules.events("rule_0"),
        store.rules.patch("rule_0", text="x", change=Change("a", "r")),
        store.rules.retire("rule_0", change=Change("a", "r")),
        store.rules.restore("rule_0", change=Change("a", "r")),
        store.rules.quarantine("rule_0", change=Change("a", "r")),
    ):
        with pytest.raises(UnknownRule, match="'rule_0'"):
            await call
    rule = await write(store, "x", axis(0))
    with pytest.raises(UnknownRule, match="version 7"):
        await store.rules.at_version(rule.id, 7)
    with pytest.raises(UnknownRule, match="version 7"):
        await store.rules.restore(rule.id, version=7, change=Change("a", "r"))


# -- one rule's life


async def test_create_and_get(store: RuleStore) -> None:
    new = NewRule("default", NEGATIVE, "  Don't guess. ", " sums ", "maths")
    rule = await store.rules.create(
        new, Vectors(axis(0), axis(1)), change=Change("ann", "seen in the logs")
    )
    assert rule == await store.rules.get(rule.id)
    assert rule.id.startswith("rule_")
    assert (rule.text, rule.trigger, rule.domain) == ("Don't guess.", "sums", "maths")
    assert (rule.state, rule.version, rule.frequency, rule.exposures) == ("active", 1, 1, 0)
    assert rule.created_at.tzinfo is not None
    (event,) = await store.rules.events(rule.id)
    assert (event.kind, event.actor, event.reason) == ("rule.created", "ann", "seen in the logs")
    assert event.before is None
    assert (event.after or {})["text"] == "Don't guess."


@pytest.mark.parametrize(
    "text", ["be exact", " BE  exact\n", "Be\u00a0Exact", "\uff42\uff45 exact"]
)
async def test_the_same_text_twice_is_refused(store: RuleStore, text: str) -> None:
    first = await write(store, "Be exact", axis(0))
    with pytest.raises(DuplicateRule) as raised:
        await write(store, text, axis(5))
    assert raised.value.rule_id == first.id
    await write(store, text, axis(5), polarity=NEGATIVE)
    await store.namespaces.ensure("other")
    await write(store, text, axis(5), namespace="other")
    second = await write(store, "Be brief", axis(6))
    before = await event_count(store)
    with pytest.raises(DuplicateRule):
        await store.rules.patch(second.id, text=text, change=Change("a", "r"))
    assert await event_count(store) == before
    assert (await store.rules.get(second.id)).text == "Be brief"
    # Its own text in another spelling is no duplicate.
    await store.rules.patch(first.id, text=text, vectors=Vectors(axis(0)), change=Change("a", "r"))


@pytest.mark.parametrize("text", ["", "  \n", "\u2003"])
async def test_an_empty_text_is_refused(store: RuleStore, text: str) -> None:
    with pytest.raises(ValueError, match="needs a text"):
        await write(store, text, axis(0))
    rule = await write(store, "x", axis(0))
    with pytest.raises(ValueError, match="needs a text"):
        await store.rules.patch(rule.id, text=text, change=Change("a", "r"))


async def test_patch(store: RuleStore, clock: Clock) -> None:
    rule = await write(store, "old", axis(0), trigger="when", trigger_vector=axis(1))
    clock.forward(60)
    patched = await store.rules.patch(
        rule.id,
        text="new",
        vectors=Vectors(axis(2)),
        expected_version=1,
        change=Change("ann", "clearer"),
    )
    assert (patched.text, patched.trigger, patched.version) == ("new", "when", 2)
    assert (patched.updated_at - patched.created_at).total_seconds() == 60
    assert texts(store, 2) == ["new"]
    assert texts(store, 1) == ["new"]  # the trigger's vector stayed
    assert texts(store, 0) == []
    event = (await store.rules.events(rule.id))[-1]
    assert ((event.before or {})["text"], (event.after or {})["text"]) == ("old", "new")
    with pytest.raises(VersionConflict) as raised:
        await store.rules.patch(rule.id, text="newer", expected_version=1, change=Change("b", "r"))
    assert raised.value.current == 2


async def test_patch_of_trigger_and_domain(store: RuleStore) -> None:
    rule = await write(store, "text", axis(0), trigger="when", trigger_vector=axis(1))
    patched = await store.rules.patch(
        rule.id,
        trigger="then",
        domain="maths",
        vectors=Vectors(trigger=axis(3)),
        change=Change("a", "r"),
    )
    assert (patched.text, patched.trigger, patched.domain) == ("text", "then", "maths")
    assert (texts(store, 0), texts(store, 1), texts(store, 3)) == (["text"], [], ["text"])
    await store.rules.patch(rule.id, trigger="", change=Change("a", "r"))
    assert texts(store, 3) == []
    assert await store.rules.without_embedding() == []
    assert (await store.parity()).ok


async def test_a_new_text_without_a_vector_waits_for_one(store: RuleStore) -> None:
    rule = await write(store, "old", axis(0))
    patched = await store.rules.patch(rule.id, text="new", change=Change("a", "embedder is down"))
    assert texts(store, 0) == []
    parity = await store.parity()
    assert (parity.ok, parity.indexed, parity.stored, parity.unembedded) == (False, 0, 1, 1)
    assert await store.rules.without_embedding() == [patched]
    stale = RuleEmbedding(rule.id, 1, Vectors(axis(0)))
    assert await store.rules.add_embeddings([stale]) == 0
    assert await store.rules.add_embeddings([RuleEmbedding(rule.id, 2, Vectors(axis(4)))]) == 1
    assert texts(store, 4) == ["new"]
    assert (await store.parity()).ok


async def test_retire_restore_quarantine(store: RuleStore) -> None:
    rule = await write(store, "x", axis(0))
    retired = await store.rules.retire(rule.id, change=Change("ann", "wrong"), expected_version=1)
    assert (retired.state, retired.reason, retired.version) == ("retired", "wrong", 2)
    assert texts(store, 0) == []
    with pytest.raises(InvalidTransition, match="retired already"):
        await store.rules.retire(rule.id, change=Change("ann", "again"))
    back = await store.rules.restore(rule.id, change=Change("ann", "right after all"))
    assert (back.state, back.version) == ("active", 3)
    assert texts(store, 0) == ["x"]
    with pytest.raises(InvalidTransition, match="active"):
        await store.rules.restore(rule.id, change=Change("ann", "again"))
    await store.rules.quarantine(rule.id, change=Change("ann", "odd"))
    assert texts(store, 0) == []
    with pytest.raises(InvalidTransition, match="quarantined already"):
        await store.rules.quarantine(rule.id, change=Change("ann", "again"))
    with pytest.raises(VersionConflict):
        await store.rules.restore(rule.id, change=Change("ann", "ok"), expected_version=3)
    await store.rules.restore(rule.id, change=Change("ann", "ok"))
    assert texts(store, 0) == ["x"]
    kinds = [event.kind for event in await store.rules.events(rule.id)]
    assert kinds == [
        "rule.created",
        "rule.retired",
        "rule.restored",
        "rule.quarantined",
        "rule.restored",
    ]


async def test_every_version_can_be_restored(store: RuleStore) -> None:
    rule = await write(store, "one", axis(0), trigger="t1", trigger_vector=axis(10))
    await store.rules.patch(
        rule.id, text="two", domain="d", vectors=Vectors(axis(1)), change=Change("a", "r")
    )
    await store.rules.retire(rule.id, change=Change("a", "r"))
    assert (await store.rules.at_version(rule.id, 2)).text == "two"
    assert (await store.rules.at_version(rule.id, 1)).text == "one"
    back = await store.rules.restore(
        rule.id, version=1, vectors=Vectors(axis(0), axis(10)), change=Change("a", "r")
    )
    assert (back.text, back.domain, back.state, back.version) == ("one", "default", "retired", 4)
    await store.rules.restore(rule.id, change=Change("a", "r"))
    assert (texts(store, 0), texts(store, 1), texts(store, 10)) == (["one"], [], ["one"])
    assert await store.rules.without_embedding() == []
    # Merges and restores in between do not hide an old version.
    await learn(store, "ep", draft("one", axis(0)))
    again = await store.rules.restore(
        rule.id, version=2, vectors=Vectors(axis(1)), change=Change("a", "r")
    )
    assert (again.text, again.domain, again.frequency) == ("two", "d", 2)
    assert texts(store, 1) == ["two"]


async def test_each_change_is_exactly_one_event(store: RuleStore) -> None:
    rule = await write(store, "x", axis(0))
    for call in (
        lambda: store.rules.patch(rule.id, domain="d", change=Change("a", "r")),
        lambda: store.rules.retire(rule.id, change=Change("a", "r")),
        lambda: store.rules.restore(rule.id, change=Change("a", "r")),
        lambda: store.rules.quarantine(rule.id, change=Change("a", "r")),
        lambda: store.rules.restore(rule.id, version=1, change=Change("a", "r")),
    ):
        before = await event_count(store)
        await call()
        assert await event_count(store) == before + 1
    versions = [(event.after or {})["version"] for event in await store.rules.events(rule.id)]
    assert versions == [1, 2, 3, 4, 5, 6]


async def test_what_no_database_stores_is_replaced(store: RuleStore) -> None:
    rule = await write(store, "half a \ud83d pair and \x00", axis(0), reason="\udc00")
    assert (await store.rules.get(rule.id)).text == "half a \ufffd pair and \ufffd"
    assert texts(store, 0) == ["half a \ufffd pair and \ufffd"]


# -- a new embedding model


async def test_rules_of_another_model_are_embedded_again(store: RuleStore, tmp_path: Path) -> None:
    rule = await write(store, "x", axis(0), trigger="t", trigger_vector=axis(1))
    await write(store, "retired", axis(3))
    (retired,) = await all_rules(store, text="retired")
    await store.rules.retire(retired.id, change=Change("a", "r"))
    fresh = await open_store(tmp_path, model="larger", dimension=64)
    other = await open_store(tmp_path, model="larger", dimension=64)
    assert [each.id for each in await fresh.rules.without_embedding()] == [rule.id]
    wide = random_vector(1).repeat(2)
    assert await fresh.rules.add_embeddings([RuleEmbedding(rule.id, 1, Vectors(wide, wide))]) == 1
    assert await fresh.rules.without_embedding() == []
    for each in (fresh, other):
        await each.catch_up()
        assert len(each.search("default", wide, POSITIVE, 3).hits) == 1
        assert (await each.parity()).ok
        await each.close()
    # The old model's vectors are still there.
    await store.catch_up()
    assert texts(store, 1) == ["x"]
    assert (await store.parity()).ok


async def test_vectors_of_a_wrong_length_count_as_missing(store: RuleStore, tmp_path: Path) -> None:
    await write(store, "x", axis(0))
    changed = await open_store(tmp_path, dimension=8)  # the same name, another model
    assert len(await changed.rules.without_embedding()) == 1
    parity = await changed.parity()
    assert (parity.ok, parity.unembedded) == (False, 1)
    await changed.close()


async def test_the_dimension_may_be_unknown_at_first(tmp_path: Path) -> None:
    store = await open_store(tmp_path, dimension=None)
    await store.namespaces.ensure("default")
    assert store.search("default", axis(0), POSITIVE, 3).hits == ()
    await write(store, "x", axis(0))
    with pytest.raises(ValueError, match="shape"):
        store.search("default", random_vector(0)[:5], POSITIVE, 3)
    await store.close()


# -- listing


async def test_filters(store: RuleStore) -> None:
    await store.namespaces.ensure("other")
    await write(store, "Carry the unit", axis(0), domain="maths")
    await write(store, "Guess 100% of_it", axis(1), polarity=NEGATIVE)
    await write(store, "Elsewhere", axis(2), namespace="other", trigger="long division")
    await learn(store, "ep_7", draft("Learned", axis(3), reason=None))
    await learn(
        store,
        "ep_8",
        draft("See http://x", axis(4), state=RuleState.QUARANTINED, reason="url"),
    )

    async def listed(**where: object) -> list[str]:
        page = await store.rules.list(RuleFilter(**where))  # type: ignore[arg-type]
        assert page.total == len(page.items)
        return [rule.text for rule in page.items]

    assert await listed() == [
        "See http://x",
        "Learned",
        "Elsewhere",
        "Guess 100% of_it",
        "Carry the unit",
    ]
    assert await listed(namespace="other") == ["Elsewhere"]
    assert await listed(polarity=NEGATIVE) == ["Guess 100% of_it"]
    assert await listed(state=RuleState.QUARANTINED) == ["See http://x"]
    assert await listed(domain="maths") == ["Carry the unit"]
    assert await listed(source_episode="ep_7") == ["Learned"]
    assert await listed(text="CARRY") == ["Carry the unit"]
    assert await listed(text="Division") == ["Elsewhere"]
    assert await listed(text="0% of_") == ["Guess 100% of_it"]
    assert await listed(text="e_") == []  # no wildcard
    assert await listed(text="%") == ["Guess 100% of_it"]
    assert await listed(namespace="default", text="elsewhere") == []
    assert await listed(text="\ud800") == []


@pytest.mark.parametrize("cursor", ["", "x", "ü", "AAAA", "cnVsZXM6", "ZXBpc29kZXM6MQ", "=" * 9])
async def test_a_bad_cursor(store: RuleStore, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        await store.rules.list(cursor=cursor)
    with pytest.raises(ValueError, match="cursor"):
        await store.rules.list(cursor=paging.encode("episodes", 3))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")

    async def fill() -> None:
        store = await open_store(folder)
        for namespace in ("a", "b"):
            await store.namespaces.ensure(namespace)
        for number in range(30):
            await write(
                store,
                f"rule {number}",
                random_vector(number),
                namespace="ab"[number % 2],
                polarity=list(Polarity)[number % 3 % 2],
                state=list(RuleState)[number % 3],
            )
        await store.close()

    asyncio.run(fill())
    return folder


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    limit=st.integers(1, 40),
    where=st.builds(
        RuleFilter,
        namespace=st.sampled_from([None, "a", "b", "c"]),
        polarity=st.sampled_from([None, *Polarity]),
        state=st.sampled_from([None, *RuleState]),
        text=st.sampled_from([None, "1", "RULE", "none of them"]),
    ),
)
async def test_pages_are_complete_and_totals_exact(
    many: Path, limit: int, where: RuleFilter
) -> None:
    store = await open_store(many)
    everything = (await store.rules.list(limit=1000)).items
    expected = [rule for rule in everything if _fits(rule, where)]
    got: list[Rule] = []
    cursor = None
    while True:
        page = await store.rules.list(where, limit=limit, cursor=cursor)
        assert page.total == len(expected)
        assert len(page.items) <= limit
        got += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert got == expected
    await store.close()


def _fits(rule: Rule, where: RuleFilter) -> bool:
    return (
        where.namespace in (None, rule.namespace)
        and where.polarity in (None, rule.polarity)
        and where.state in (None, rule.state)
        and (where.text is None or where.text.lower() in rule.text.lower())
    )


async def test_a_page_does_not_shift_when_rules_are_added(store: RuleStore) -> None:
    for number in range(4):
        await write(store, f"rule {number}", axis(number))
    first = await store.rules.list(limit=2)
    await write(store, "late", axis(9))
    second = await store.rules.list(limit=2, cursor=first.next_cursor)
    assert [rule.text for rule in second.items] == ["rule 1", "rule 0"]
    assert second.next_cursor is None
    assert second.total == 5


async def test_stats(store: RuleStore) -> None:
    await write(store, "a", axis(0))
    await write(store, "b", axis(1), polarity=NEGATIVE)
    await write(store, "c", axis(2), state=RuleState.CANDIDATE)
    await begin(store, "ep")
    stats = await store.stats()
    assert stats.namespaces == 1
    assert stats.rules == {"candidate": 1, "active": 2, "quarantined": 0, "retired": 0}
    assert stats.rules_by_polarity == {"positive": 1, "negative": 1}
    assert stats.rules_by_namespace == {"default": {"active": 2, "candidate": 1}}
    assert stats.episodes == {"pending": 1}
    assert stats.jobs == {}
    assert stats.last_event == 4
