"""Rules: read, counted, and changed by an operator. Each change writes one event, in its
transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.json_codec import clean
from rules_store.errors import (
    DuplicateRule,
    InvalidTransition,
    UnknownNamespace,
    UnknownRule,
    VersionConflict,
)
from rules_store.models import paging
from rules_store.models.events import Event
from rules_store.models.paging import Page
from rules_store.models.rules import (
    EVERY_RULE,
    NO_VECTORS,
    Embedded,
    NewRule,
    Rule,
    RuleFilter,
    RuleSort,
    RuleState,
    Vectors,
)
from rules_store.models.stats import Stats
from rules_store.operations import capacity, rule_writes
from rules_store.operations.base import StoreCore
from rules_store.repository import embeddings, episodes, events, jobs, namespaces, rules, standings


class RuleQueries(StoreCore):
    async def list_rules(
        self,
        where: RuleFilter = EVERY_RULE,
        *,
        sort: RuleSort = RuleSort.NEWEST,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Rules in this order. A cursor goes with the order it was given out for.
        Raises InvalidCursor."""
        await self._count_exposures()
        kind = f"rules-{sort.value}"
        after = paging.decode_place(kind, cursor, rules.place_length(sort))
        async with self._database.read() as connection:
            found, total = await rules.page(connection, where, limit + 1, after, sort)
        return paging.page_of_places(kind, found, total, limit)

    async def get_rule(self, rule_id: str) -> Rule:
        """Raises UnknownRule."""
        await self._count_exposures()
        async with self._database.read() as connection:
            return (await find(connection, rule_id))[1]

    async def rule_events(self, rule_id: str) -> list[Event]:
        """The rule's history, oldest first. Raises UnknownRule."""
        async with self._database.read() as connection:
            await find(connection, rule_id)
            return await events.of_rule(connection, rule_id)

    async def rule_history(
        self, rule_id: str, *, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """Events of the rule, newest first. Raises UnknownRule, InvalidCursor."""
        before = paging.decode("history", cursor)
        async with self._database.read() as connection:
            await find(connection, rule_id)
            found, total = await events.page_of_rule(connection, rule_id, limit + 1, before)
        return paging.page("history", found, total, limit)

    async def rule_at_version(self, rule_id: str, version: int) -> Rule:
        """The rule with the text, trigger and domain it had at `version`. Raises UnknownRule."""
        async with self._database.read() as connection:
            rule = (await find(connection, rule_id))[1]
            return await at_version(connection, rule, version)

    async def stats(self) -> Stats:
        async with self._database.read() as connection:
            counts = await rules.counts(connection)
            names = await namespaces.names(connection)
            by_status = await episodes.counts(connection)
            by_job_state = await jobs.counts(connection)
            last = await events.last_id(connection)
        states: Counter[str] = Counter({state.value: 0 for state in RuleState})
        polarities: Counter[str] = Counter()
        spaces: dict[str, dict[str, int]] = {}
        for namespace, polarity, state, count in counts:
            states[state] += count
            if state == RuleState.ACTIVE:
                polarities[polarity] += count
            space = spaces.setdefault(namespace, {})
            space[state] = space.get(state, 0) + count
        return Stats(
            namespaces=len(names),
            rules=dict(states),
            rules_by_polarity=dict(polarities),
            rules_by_namespace=spaces,
            episodes=by_status,
            jobs=by_job_state,
            last_event=last,
        )


class RuleOperations(RuleQueries):
    # -- changing

    async def create_rule(self, new: NewRule, vectors: Vectors, *, actor: str, reason: str) -> Rule:
        """Raises UnknownNamespace, DuplicateRule, InvalidVector; ValueError for an empty text."""
        if not rule_writes.tidy(new.text):
            raise ValueError("a rule needs a text")
        now, units = self._clock(), self._units(vectors)
        async with self._change() as connection:
            if self.namespace(new.namespace) is None:
                raise UnknownNamespace(new.namespace)
            self._check_writable(new.namespace)
            await self._check_unique(connection, new, None)
            _, rule = await rule_writes.create(
                connection, new, units, self.embedding_model, now, actor=actor, reason=reason
            )
            if rule.state is RuleState.ACTIVE:
                await standings.vouch(connection, rule, now)
            await self._make_room(connection, rule)
        return rule

    async def patch_rule(
        self,
        rule_id: str,
        *,
        text: str | None = None,
        trigger: str | None = None,
        domain: str | None = None,
        vectors: Vectors = NO_VECTORS,
        expected_version: int | None = None,
        actor: str,
        reason: str,
    ) -> Rule:
        """Changes what is not None. `vectors` are those of the changed texts; a changed text that
        has none leaves retrieval until `add_embeddings` brings it.

        Raises UnknownRule, VersionConflict, DuplicateRule, InvalidVector; ValueError for an empty
        text.
        """
        if text is not None and not rule_writes.tidy(text):
            raise ValueError("a rule needs a text")
        units = self._units(vectors)
        async with self._change() as connection:
            seq, before = await find(connection, rule_id, expected_version)
            after = replace(
                before,
                text=before.text if text is None else rule_writes.tidy(text),
                trigger=before.trigger if trigger is None else rule_writes.tidy(trigger),
                domain=before.domain if domain is None else clean(domain),
            )
            return await self._reword(
                connection, seq, before, after, units, "rule.patched", actor, reason
            )

    async def restore_rule(
        self,
        rule_id: str,
        *,
        version: int | None = None,
        vectors: Vectors = NO_VECTORS,
        actor: str,
        reason: str,
        expected_version: int | None = None,
    ) -> Rule:
        """Without `version`: makes a retired or quarantined rule active again. With it: gives the
        rule back the text, trigger and domain of that version, state unchanged; `vectors` are
        those of the texts that change by it (see `rule_at_version`).

        Raises UnknownRule, VersionConflict, DuplicateRule, InvalidTransition, InvalidVector.
        """
        units = self._units(vectors)
        async with self._change() as connection:
            seq, before = await find(connection, rule_id, expected_version)
            if version is not None:
                after = await at_version(connection, before, version)
                return await self._reword(
                    connection, seq, before, after, units, "rule.restored", actor, reason
                )
            if before.state not in (RuleState.RETIRED, RuleState.QUARANTINED):
                raise InvalidTransition(f"Rule {rule_id!r} is {before.state}; nothing to restore.")
            after = await self._move(
                connection, before, RuleState.ACTIVE, "rule.restored", actor, reason
            )
            await self._make_room(connection, after)
            return after

    async def retire_rule(
        self, rule_id: str, *, actor: str, reason: str, expected_version: int | None = None
    ) -> Rule:
        """Raises UnknownRule, VersionConflict, InvalidTransition."""
        async with self._change() as connection:
            _, before = await find(connection, rule_id, expected_version)
            return await self._move(
                connection, before, RuleState.RETIRED, "rule.retired", actor, reason
            )

    async def quarantine_rule(
        self, rule_id: str, *, actor: str, reason: str, expected_version: int | None = None
    ) -> Rule:
        """Raises UnknownRule, VersionConflict, InvalidTransition."""
        async with self._change() as connection:
            _, before = await find(connection, rule_id, expected_version)
            return await self._move(
                connection, before, RuleState.QUARANTINED, "rule.quarantined", actor, reason
            )

    async def release_rule(
        self, rule_id: str, *, actor: str, reason: str, expected_version: int | None = None
    ) -> Rule:
        """Makes a quarantined rule active. Raises UnknownRule, VersionConflict,
        InvalidTransition."""
        async with self._change() as connection:
            before = await self._quarantined(connection, rule_id, expected_version)
            after = await self._move(
                connection, before, RuleState.ACTIVE, "rule.released", actor, reason
            )
            await self._make_room(connection, after)
            return after

    async def reject_rule(
        self, rule_id: str, *, actor: str, reason: str, expected_version: int | None = None
    ) -> Rule:
        """Retires a quarantined rule. Raises UnknownRule, VersionConflict, InvalidTransition."""
        async with self._change() as connection:
            before = await self._quarantined(connection, rule_id, expected_version)
            return await self._move(
                connection, before, RuleState.RETIRED, "rule.rejected", actor, reason
            )

    async def _quarantined(
        self, connection: AsyncConnection, rule_id: str, expected_version: int | None
    ) -> Rule:
        """Raises UnknownRule, VersionConflict, InvalidTransition."""
        _, rule = await find(connection, rule_id, expected_version)
        if rule.state is not RuleState.QUARANTINED:
            raise InvalidTransition(f"Rule {rule_id!r} is {rule.state}, not quarantined.")
        return rule

    async def _move(
        self,
        connection: AsyncConnection,
        before: Rule,
        state: RuleState,
        kind: str,
        actor: str,
        reason: str,
    ) -> Rule:
        self._check_writable(before.namespace)
        if before.state is state:
            raise InvalidTransition(f"Rule {before.id!r} is {state} already.")
        # A rollback can leave a retired rule with the text of another one.
        await self._check_unique(connection, before, before.id)
        after = replace(
            before,
            state=state,
            version=before.version + 1,
            reason=clean(reason),
            updated_at=self._clock(),
        )
        await rule_writes.change(connection, before, after, kind, actor=actor, reason=reason)
        if state is RuleState.ACTIVE:
            await standings.vouch(connection, after, after.updated_at)
        return after

    async def _reword(
        self,
        connection: AsyncConnection,
        seq: int,
        before: Rule,
        wanted: Rule,
        vectors: Vectors,
        kind: str,
        actor: str,
        reason: str,
    ) -> Rule:
        """Writes a rule whose texts may have changed. Vectors of unchanged texts stay."""
        self._check_writable(before.namespace)
        after = replace(wanted, version=before.version + 1, updated_at=self._clock())
        await self._check_unique(connection, after, after.id)
        await rule_writes.change(connection, before, after, kind, actor=actor, reason=reason)
        if after.state is RuleState.ACTIVE and after.text != before.text:
            await standings.vouch(connection, after, after.updated_at)
        for changed, name in (
            (after.text != before.text, embeddings.TEXT),
            (after.trigger != before.trigger, embeddings.TRIGGER),
        ):
            if changed:
                await embeddings.forget(connection, seq, name)
        fitting = Vectors(
            text=vectors.text if after.text != before.text else None,
            trigger=vectors.trigger if after.trigger not in (before.trigger, "") else None,
        )
        await embeddings.insert_vectors(connection, seq, self.embedding_model, fitting)
        return after

    async def _check_unique(
        self, connection: AsyncConnection, rule: Rule | NewRule, own_id: str | None
    ) -> None:
        """Raises DuplicateRule."""
        same = await rules.find_by_text(
            connection, rule.namespace, rule.polarity, rule_writes.text_hash(rule.text)
        )
        if same is not None and same[1].id != own_id:
            raise DuplicateRule(same[1].id)

    async def _make_room(self, connection: AsyncConnection, rule: Rule) -> None:
        if rule.state is RuleState.ACTIVE:
            await capacity.make_room(
                connection,
                self._index,
                self.embedding_model,
                rule.namespace,
                self._room(rule.namespace),
                self._clock(),
                [rule.id],
                spare_fresh=True,
            )

    # -- a new embedding model

    async def rules_without_embedding(self, limit: int = 256) -> list[Rule]:
        """Active and candidate rules that lack a vector of the current embedding model."""
        async with self._database.read() as connection:
            return await embeddings.lacking(
                connection, self.embedding_model, self._index.dimension, limit
            )

    async def add_embeddings(self, items: Sequence[Embedded]) -> int:
        """Adds vectors of the current model; returns for how many rules. One event for all.
        Raises InvalidVector."""
        units = [(item, self._units(item.vectors)) for item in items]
        done: list[Rule] = []
        async with self._change() as connection:
            for item, vectors in units:
                found = await rules.find(connection, item.rule_id)
                if found is not None and found[1].version == item.version:
                    await embeddings.replace_vectors(
                        connection, found[0], self.embedding_model, vectors
                    )
                    done.append(found[1])
            for namespace in sorted({rule.namespace for rule in done}):
                await events.append(
                    connection,
                    self._clock(),
                    namespace,
                    "rules.embedded",
                    actor=events.SYSTEM,
                    reason=f"vectors of {self.embedding_model}",
                    after={"rules": [rule.id for rule in done if rule.namespace == namespace]},
                )
        return len(done)


async def find(
    connection: AsyncConnection, rule_id: str, expected_version: int | None = None
) -> tuple[int, Rule]:
    """Sequence number and rule. Raises UnknownRule, VersionConflict."""
    found = await rules.find(connection, rule_id)
    if found is None:
        raise UnknownRule(rule_id)
    if expected_version is not None and found[1].version != expected_version:
        raise VersionConflict(rule_id, expected_version, found[1].version)
    return found


async def at_version(connection: AsyncConnection, rule: Rule, version: int) -> Rule:
    """`rule` with the text, trigger and domain of that version. Raises UnknownRule."""
    for event in await events.of_rule(connection, rule.id):
        after = event.after or {}
        if after.get("version") == version:
            return replace(
                rule, text=after["text"], trigger=after["trigger"], domain=after["domain"]
            )
    raise UnknownRule(rule.id, version)
