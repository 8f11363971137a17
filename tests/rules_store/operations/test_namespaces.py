"""Namespaces: settings that count at once and everywhere, freezing, deletion, jobs, retention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import postgresql

from rules_store.errors import (
    DuplicateNamespace,
    InvalidCursor,
    InvalidSetting,
    InvalidTransition,
    LeaseLost,
    NamespaceFrozen,
    UnknownEpisode,
    UnknownJob,
    UnknownNamespace,
    UnknownRule,
)
from rules_store.index.caches import Caches
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.events import Change, EventFilter
from rules_store.models.jobs import JobFilter, JobState
from rules_store.models.namespaces import NamespaceSettings
from rules_store.models.rules import Pruning, Rule, RuleState, Vectors
from rules_store.repository import episodes, examples, namespaces
from rules_store.store import RuleStore
from tests.rules_store.helpers import (
    POSITIVE,
    Clock,
    all_rules,
    axis,
    begin,
    claimed,
    draft,
    learn,
    new_job,
    open_store,
    random_vector,
    sql,
    write,
)

WHO = Change("ann", "because")
DAY = 86_400


async def events_of(store: RuleStore, **where: Any) -> list[Any]:
    page = await store.history.events(EventFilter(**where), limit=1000)
    assert page.total == len(page.items)
    return list(reversed(page.items))


async def kinds(store: RuleStore, namespace: str = "default") -> list[str]:
    return [event.kind for event in await events_of(store, namespace=namespace)]


# -- records and settings -----------------------------------------------------------------------


async def test_a_namespace_is_created_once_and_listed_with_its_counts(store: RuleStore) -> None:
    made = await store.namespaces.create("maths", NamespaceSettings(capacity=2), change=WHO)
    assert made.settings.capacity == 2
    assert not made.frozen
    assert store.namespaces.get("maths") == made
    with pytest.raises(DuplicateNamespace):
        await store.namespaces.create("maths", change=WHO)
    await write(store, "one", axis(0), namespace="maths")
    await write(store, "two", axis(1), namespace="maths", state=RuleState.QUARANTINED)
    await new_job(store, "ep_1", "maths")
    summary = await store.namespaces.summary("maths")
    assert summary.namespace == made
    assert summary.rules == {"active": 1, "quarantined": 1}
    assert summary.episodes == {"learning": 1}
    assert summary.jobs == {"pending": 1}
    assert not summary.paused
    with pytest.raises(UnknownNamespace):
        await store.namespaces.summary("nowhere")
    (created,) = await events_of(store, namespace="maths", kind="namespace.created")
    assert created.actor == "ann"
    assert created.after == {"frozen": False, "settings": {"capacity": 2}}


async def test_the_listing_goes_page_by_page_in_order_of_name(store: RuleStore) -> None:
    for name in ("c", "a", "b", "Z"):
        await store.namespaces.ensure(name)
    names, cursor = [], None
    while True:
        page = await store.namespaces.list(limit=2, cursor=cursor)
        assert page.total == 5
        names += [each.namespace.name for each in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert names == ["Z", "a", "b", "c", "default"]
    some = await store.namespaces.list(within=["a", "nowhere"])
    assert [each.namespace.name for each in some.items] == ["a"]
    assert some.total == 1
    with pytest.raises(InvalidCursor):
        await store.namespaces.list(cursor="nonsense")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learn", 1),
        ("sample_rate", 1.1),
        ("sample_rate", float("nan")),
        ("calls_per_hour", -1),
        ("calls_per_hour", 1.5),
        ("tokens_per_hour", True),
        ("capacity", 0),
        ("pruning", "random"),
        ("max_positive", 31),
        ("similarity_floor", -2),
        ("retention_days", 0),
        ("retention_days", "7"),
        ("policy", "free"),
        ("nothing", 1),
    ],
)
async def test_a_wrong_setting_is_refused_by_its_name(
    store: RuleStore, field: str, value: Any
) -> None:
    with pytest.raises(InvalidSetting) as refused:
        await store.namespaces.change_settings("default", {field: value}, change=WHO)
    assert refused.value.field == field
    assert store.namespaces.settings_of("default") == NamespaceSettings()
    assert await kinds(store) == ["namespace.created"]


async def test_settings_are_changed_one_by_one_and_kept(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    await store.namespaces.change_settings(
        "default", {"learn": False, "pruning": Pruning.SIMILARITY}, change=WHO
    )
    await store.namespaces.change_settings("default", {"sample_rate": 0, "learn": None}, change=WHO)
    # Nothing changes, so nothing is written.
    await store.namespaces.change_settings("default", {"sample_rate": 0}, change=WHO)
    expected = NamespaceSettings(pruning=Pruning.SIMILARITY, sample_rate=0)
    assert store.namespaces.settings_of("default") == expected
    assert store.namespaces.settings_of("nowhere") == NamespaceSettings()
    changes = await events_of(store, kind="namespace.changed")
    assert [event.after["settings"] for event in changes] == [
        {"learn": False, "pruning": "similarity"},
        {"pruning": "similarity", "sample_rate": 0},
    ]
    again = await open_store(tmp_path, clock=clock)
    assert again.namespaces.settings_of("default") == expected
    assert again.namespaces.settings_of("default").pruning is Pruning.SIMILARITY
    await again.close()
    with pytest.raises(UnknownNamespace):
        await store.namespaces.change_settings("nowhere", {"learn": True}, change=WHO)


async def test_other_processes_follow(store: RuleStore, tmp_path: Path, clock: Clock) -> None:
    other = await open_store(tmp_path, clock=clock)
    await store.namespaces.create("new", NamespaceSettings(learn=False), change=WHO)
    await store.namespaces.change_settings("default", {"similarity_floor": 0.9}, change=WHO)
    await store.namespaces.freeze("default", change=WHO)
    assert other.namespaces.get("new") is None
    await other.catch_up()
    assert other.namespaces.settings_of("new").learn is False
    assert other.namespaces.settings_of("default").similarity_floor == 0.9
    assert other.namespaces.is_frozen("default")
    await other.close()


async def test_capacity_and_pruning_are_the_namespaces_own(store: RuleStore) -> None:
    await store.namespaces.change_settings("default", {"capacity": 2}, change=WHO)
    await store.namespaces.create("wide", change=WHO)
    for number in range(4):
        for name in ("default", "wide"):
            await learn(
                store,
                f"ep_{name}_{number}",
                draft(f"rule {number}", random_vector(number), namespace=name),
            )
    kept = await all_rules(store, namespace="default", state=RuleState.ACTIVE)
    assert [rule.text for rule in kept] == ["rule 3", "rule 2"]
    assert len(await all_rules(store, namespace="wide", state=RuleState.ACTIVE)) == 4
    await store.namespaces.change_settings("default", {"pruning": "similarity"}, change=WHO)
    # Rule 3 says nearly the same, so it goes, and not rule 2, which is older.
    await write(store, "like rule 3", random_vector(3) + 0.6 * random_vector(9))
    kept = await all_rules(store, namespace="default", state=RuleState.ACTIVE)
    assert sorted(rule.text for rule in kept) == ["like rule 3", "rule 2"]


# -- frozen -------------------------------------------------------------------------------------


async def test_nobody_changes_the_rules_of_a_frozen_namespace(store: RuleStore) -> None:
    active = await write(store, "stays", axis(0))
    retired = await store.rules.retire((await write(store, "gone", axis(1))).id, change=WHO)
    job = await claimed(store, "ep_1")
    await store.namespaces.freeze("default", change=WHO)
    before = await all_rules(store), await kinds(store)
    refused = [
        store.rules.create(draft("new", None).rule, Vectors(axis(2)), change=WHO),
        store.rules.patch(active.id, text="other", change=WHO),
        store.rules.retire(active.id, change=WHO),
        store.rules.quarantine(active.id, change=WHO),
        store.rules.restore(retired.id, change=WHO),
        store.rules.restore(active.id, version=1, change=WHO),
        store.namespaces.change_settings("default", {"learn": False}, change=WHO),
        store.namespaces.delete("default", change=WHO),
        store.jobs.apply(job, [draft("learned", axis(3))]),
        # The same text again would only be counted, which is a change too.
        store.jobs.apply(job, [draft("stays", axis(0))]),
    ]
    for attempt in refused:
        with pytest.raises(NamespaceFrozen):
            await attempt
    assert (await all_rules(store), await kinds(store)) == before
    await store.namespaces.freeze("default", change=WHO)
    assert await kinds(store) == before[1]
    assert [c.id for c in store.search("default", axis(0), POSITIVE, 5).hits] == [active.id]
    await store.namespaces.unfreeze("default", change=WHO)
    assert (await store.jobs.apply(job, [draft("learned", axis(3))])).learned
    assert (await kinds(store)).count("namespace.frozen") == 1


async def test_a_freeze_by_another_process_counts_at_once(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    other = await open_store(tmp_path, clock=clock)
    job = await claimed(other, "ep_1")
    await store.namespaces.freeze("default", change=WHO)
    assert not other.namespaces.is_frozen("default")  # it has not caught up, and yet
    with pytest.raises(NamespaceFrozen):
        await write(other, "too late", axis(0))
    with pytest.raises(NamespaceFrozen):
        await other.jobs.apply(job, [draft("learned", axis(3))])
    await other.jobs.skip(job, "namespace_frozen")
    episode = await other.episodes.get("ep_1")
    assert (episode.status, episode.reason) == (EpisodeStatus.SKIPPED, "namespace_frozen")
    await other.close()


async def test_a_freeze_while_another_process_starts_is_heard_of(
    store: RuleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(store, "one", axis(0))
    rebuild = Caches.rebuild

    async def meanwhile(starting: Caches) -> None:
        await store.namespaces.freeze("default", change=WHO)
        await rebuild(starting)

    monkeypatch.setattr(Caches, "rebuild", meanwhile)
    other = await open_store(tmp_path)
    assert other.namespaces.is_frozen("default")
    with pytest.raises(NamespaceFrozen):
        await write(other, "two", axis(1))
    await other.close()


# -- deleted ------------------------------------------------------------------------------------


async def filled(store: RuleStore, namespace: str) -> Rule:
    await store.namespaces.ensure(namespace)
    await learn(store, f"ep_a_{namespace}", draft("learned", axis(0), namespace=namespace))
    await new_job(store, f"ep_b_{namespace}", namespace)
    await store.history.snapshot(namespace, "here", change=WHO)
    await store.jobs.pause(namespace, change=WHO)
    return (await all_rules(store, namespace=namespace))[0]


async def test_a_deleted_namespace_leaves_one_event(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    kept, gone = await filled(store, "kept"), await filled(store, "gone")
    other = await open_store(tmp_path, clock=clock)
    assert len(other.search("gone", axis(0), POSITIVE, 5).hits) == 1
    deleted = await store.namespaces.delete("gone", change=WHO)
    assert (deleted.rules, deleted.episodes, deleted.jobs) == (1, 2, 2)
    (event,) = await events_of(store, namespace="gone")
    assert (event.id, event.kind, event.actor) == (deleted.event, "namespace.deleted", "ann")
    for table in ("rules", "episodes", "jobs", "learn_spend", "learning_pauses"):
        assert sql(tmp_path, f"SELECT 1 FROM {table} WHERE namespace = 'gone'") == []
    assert sql(tmp_path, "SELECT count(*) FROM embeddings") == [(1,)]
    with pytest.raises(UnknownRule):
        await store.rules.get(gone.id)
    with pytest.raises(UnknownEpisode):
        await store.episodes.get("ep_a_gone")
    with pytest.raises(UnknownNamespace):
        await store.namespaces.delete("gone", change=WHO)
    await other.catch_up()
    for each in (store, other):
        assert each.search("gone", axis(0), POSITIVE, 5).hits == ()
        assert each.namespaces.get("gone") is None
        assert [c.id for c in each.search("kept", axis(0), POSITIVE, 5).hits] == [kept.id]
        assert (await each.parity()).ok
    await other.close()


async def test_a_start_after_a_deletion_does_not_bring_it_back(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    await filled(store, "gone")
    await store.save_snapshot()
    await store.namespaces.delete("gone", change=WHO)
    again = await open_store(tmp_path, clock=clock)  # from the index snapshot of before
    assert again.search("gone", axis(0), POSITIVE, 5).hits == ()
    assert (await again.parity()).ok
    await again.close()


async def test_the_default_namespace_comes_back_with_its_first_use(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    other = await open_store(tmp_path, clock=clock)
    await write(store, "old", axis(0))
    await store.namespaces.delete("default", change=WHO)
    with pytest.raises(UnknownNamespace):
        await begin(store, "ep_0")
    # A process that has not heard of it yet says the same.
    with pytest.raises(UnknownNamespace):
        await begin(other, "ep_0")
    await other.namespaces.ensure("default")
    await begin(other, "ep_0")
    await write(other, "new", axis(1))
    await store.catch_up()
    for each in (store, other):
        assert [c.text for c in each.search("default", axis(0), POSITIVE, 5).hits] == ["new"]
        assert (await each.parity()).ok
    await other.close()


async def test_work_under_way_ends_quietly(store: RuleStore) -> None:
    job = await claimed(store, "ep_1")
    await begin(store, "ep_2")
    await store.namespaces.delete("default", change=WHO)
    with pytest.raises(LeaseLost):
        await store.jobs.apply(job, [draft("learned", axis(0))])
    with pytest.raises(LeaseLost):
        await store.jobs.heartbeat(job)
    with pytest.raises(UnknownEpisode):
        await store.episodes.finish("ep_2", answer="4", trace={}, job_payload={})


# -- jobs ---------------------------------------------------------------------------------------


async def test_jobs_are_listed_and_a_failed_one_is_tried_again(
    store: RuleStore, clock: Clock
) -> None:
    await store.namespaces.ensure("other")
    job = await claimed(store, "ep_1")
    await store.jobs.fail(job, "the model said no")
    await new_job(store, "ep_2")
    await new_job(store, "ep_3", "other")
    page = await store.jobs.list(limit=2)
    assert ([each.episode_id for each in page.items], page.total) == (["ep_3", "ep_2"], 3)
    rest = await store.jobs.list(limit=2, cursor=page.next_cursor)
    assert ([each.episode_id for each in rest.items], rest.next_cursor) == (["ep_1"], None)
    for where, expected in (
        (JobFilter(state=JobState.FAILED), ["ep_1"]),
        (JobFilter(namespace="other"), ["ep_3"]),
        (JobFilter(within=["default"]), ["ep_2", "ep_1"]),
        (JobFilter(within=["default"], namespace="other"), []),
    ):
        found = await store.jobs.list(where)
        assert [each.episode_id for each in found.items] == expected
        assert found.total == len(expected)
    failed = rest.items[0]
    assert (failed.attempts, failed.last_error) == (1, "the model said no")
    retried = await store.jobs.retry_failed(failed.id, change=WHO)
    assert (retried.state, retried.attempts) == (JobState.PENDING, 0)
    assert (await store.episodes.get("ep_1")).status is EpisodeStatus.LEARNING
    (event,) = await events_of(store, kind="job.retried")
    assert event.before["last_error"] == "the model said no"
    assert event.actor == "ann"
    again = await store.jobs.claim("worker", key="ep_1")
    assert again is not None
    assert again.attempts == 1
    with pytest.raises(InvalidTransition):
        await store.jobs.retry_failed(failed.id, change=WHO)
    with pytest.raises(UnknownJob):
        await store.jobs.retry_failed(999, change=WHO)


async def test_a_pause_holds_in_every_process_and_over_a_restart(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    await store.namespaces.ensure("other")
    await new_job(store, "ep_1")
    await new_job(store, "ep_2", "other")
    await store.jobs.pause("default", change=WHO)
    await store.jobs.pause("default", change=WHO)
    other = await open_store(tmp_path, clock=clock)
    job = await other.jobs.claim("worker")
    assert job is not None
    assert job.episode_id == "ep_2"
    await other.jobs.release(job)
    await other.jobs.pause(None, change=WHO)
    assert await store.jobs.claim("worker") is None
    assert await store.jobs.paused() == ["*", "default"]
    assert (await store.namespaces.summary("other")).paused
    await store.jobs.resume(None, change=WHO)
    assert not (await store.namespaces.summary("other")).paused
    assert (await store.namespaces.summary("default")).paused
    await store.jobs.resume("default", change=WHO)
    await store.jobs.resume("default", change=WHO)
    job = await other.jobs.claim("worker")
    assert job is not None
    assert job.episode_id == "ep_1"
    told = [(e.namespace, e.kind) for e in await events_of(store, kind="learning.")]
    assert told == [
        ("default", "learning.paused"),
        ("*", "learning.paused"),
        ("*", "learning.resumed"),
        ("default", "learning.resumed"),
    ]
    with pytest.raises(UnknownNamespace):
        await store.jobs.pause("nowhere", change=WHO)
    await other.close()


async def test_a_job_whose_worker_was_lost_waits_out_a_pause_too(
    store: RuleStore, clock: Clock
) -> None:
    await claimed(store, "ep_1")
    await store.jobs.pause("default", change=WHO)
    clock.forward(1000)
    assert await store.jobs.claim("another") is None
    await store.jobs.resume("default", change=WHO)
    assert await store.jobs.claim("another") is not None


# -- retention ----------------------------------------------------------------------------------


async def test_old_episodes_go_and_those_to_be_learned_from_stay(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    await store.namespaces.ensure("kept")
    await store.namespaces.change_settings("default", {"retention_days": 2}, change=WHO)
    await begin(store, "ep_kept", "kept")
    await learn(store, "ep_done", draft("learned", axis(0)))
    await new_job(store, "ep_waiting")
    await store.jobs.fail(await claimed(store, "ep_failed"), "no")
    clock.forward(DAY)
    await begin(store, "ep_young")
    assert await store.episodes.expire() == 0
    clock.forward(DAY + 1)
    assert await store.episodes.expire() == 2
    assert await store.episodes.expire() == 0
    left = [row[0] for row in sql(tmp_path, "SELECT id FROM episodes ORDER BY id")]
    assert left == ["ep_kept", "ep_waiting", "ep_young"]
    assert [rule.text for rule in await all_rules(store)] == ["learned"]
    (event,) = await events_of(store, kind="episodes.expired")
    assert event.after == {"episodes": 2}
    job = await store.jobs.claim("worker", key="ep_waiting")
    assert job is not None
    await store.jobs.skip(job, "nothing")
    assert await store.episodes.expire() == 1


class Told:
    """A PostgreSQL connection, as far as one can be told what is said to it: statements are kept
    in its dialect."""

    dialect = postgresql.dialect()

    def __init__(self) -> None:
        self.said: list[str] = []

    async def execute(self, statement: Any) -> list[Any]:
        self.said.append(str(statement.compile(dialect=self.dialect)))
        return []

    scalars = execute


async def test_deletion_and_retention_lock_what_they_remove() -> None:
    told: Any = Told()
    await namespaces.lock(told, "default")
    await episodes.expired(told, "default", Clock()(), 5)
    await examples.learned_before(told, "default", Clock()(), 5)
    whole, *old = told.said
    assert whole.endswith("FOR UPDATE")
    assert all(each.endswith("FOR UPDATE SKIP LOCKED") for each in old)


async def test_retention_waits_for_its_turn_before_it_locks(
    store: RuleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion has the turn and wants the episodes: with the episodes in hand the sweep would
    wait for it, and it for the sweep."""
    await store.namespaces.change_settings("default", {"retention_days": 2}, change=WHO)
    order: list[str] = []

    async def turn(connection: Any) -> None:
        order.append("turn")

    async def expired(*_: Any) -> list[str]:
        order.append("episodes")
        return []

    monkeypatch.setattr(store.context.database, "order_events", turn)
    monkeypatch.setattr(episodes, "expired", expired)
    assert await store.episodes.expire() == 0
    assert order == ["turn", "episodes"]


# -- events and numbers -------------------------------------------------------------------------


async def test_events_are_filtered_and_paged(store: RuleStore, clock: Clock) -> None:
    start = clock.now
    await store.namespaces.ensure("other")
    rule = await write(store, "one", axis(0))
    clock.forward(60)
    await store.rules.retire(rule.id, change=Change("bob", "bad"))
    everything = await events_of(store)
    assert [event.id for event in everything] == [1, 2, 3, 4]
    for where, expected in (
        ({"namespace": "other"}, [2]),
        ({"rule_id": rule.id}, [3, 4]),
        ({"kind": "rule.retired"}, [4]),
        ({"kind": "rule."}, [3, 4]),
        ({"kind": "rule"}, []),
        ({"kind": "%."}, []),
        ({"actor": "bob"}, [4]),
        ({"since_event": 2, "until_event": 3}, [2, 3]),
        ({"since": clock.now}, [4]),
        ({"until": start}, [1, 2, 3]),
        ({"within": ["other"]}, [2]),
        ({"within": []}, []),
    ):
        assert [event.id for event in await events_of(store, **where)] == expected, where
    page = await store.history.events(limit=3)
    assert [event.id for event in page.items] == [4, 3, 2]
    rest = await store.history.events(limit=3, cursor=page.next_cursor)
    assert ([event.id for event in rest.items], rest.next_cursor) == ([1], None)
    with pytest.raises(InvalidCursor):
        await store.history.events(cursor=(await store.jobs.list()).next_cursor or "x")


async def test_the_curve_counts_by_day_and_hour(store: RuleStore, clock: Clock) -> None:
    await learn(store, "ep_1", draft("one", axis(0)))
    clock.forward(DAY)
    await learn(store, "ep_2", draft("one", axis(0)))
    await begin(store, "ep_3")
    clock.forward(3600)
    await store.rules.retire((await all_rules(store))[0].id, change=WHO)
    days = await store.history.curve("default", points=3)
    assert [point.start.isoformat()[:16] for point in days] == [
        "2025-12-31T00:00",
        "2026-01-01T00:00",
        "2026-01-02T00:00",
    ]
    assert [(p.episodes, p.learned) for p in days] == [(0, 0), (1, 1), (2, 1)]
    rules = [(p.rules_created, p.rules_merged, p.rules_retired) for p in days]
    assert rules == [(0, 0, 0), (1, 0, 0), (0, 1, 1)]
    hours = await store.history.curve("default", points=2, hourly=True)
    assert [(p.start.hour, p.episodes, p.rules_retired) for p in hours] == [(12, 2, 0), (13, 0, 1)]
    with pytest.raises(UnknownNamespace):
        await store.history.curve("nowhere", points=1)
