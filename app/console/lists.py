"""What the lists of the console share: filters, dates among them, a page, and changes to many rows
at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol, TypeVar

from fastapi.responses import Response

from app.console.access import LIFTS, Form, SignedInRequest, Text, among
from app.console.changing import Move
from app.exceptions import InvalidRequest
from rules_store.errors import StoreError, UnknownExample, UnknownRule
from rules_store.models.events import Change
from rules_store.models.examples import Example
from rules_store.models.paging import Page
from rules_store.models.rules import Rule, RuleSort, RuleState

Where = TypeVar("Where", contravariant=True)
PICKED = "pick:"
"""How the name of a row's check box begins; the id follows, and its value is the version."""
RANGES = (1, 7, 30, 90)
"""Days that charts can show."""


@dataclass(frozen=True, slots=True)
class Dates:
    """From the first day to the last, both included, in UTC."""

    since: datetime | None
    until: datetime | None


def dates(since: str, until: str) -> Dates:
    """Of two date fields, empty ones for no bound. Raises `InvalidRequest`."""
    return Dates(_day(since, "since", 0), _day(until, "until", 1))


def days_of(text: str, default: int = 30) -> int:
    """One of `RANGES`; another one comes from a hand-made address."""
    return next((each for each in RANGES if text == str(each)), default)


def _day(text: str, name: str, later: int) -> datetime | None:
    text = text.strip()
    if not text:
        return None
    try:
        found = date.fromisoformat(text) + timedelta(days=later)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"{name}: not a day, as in 2026-01-31", param=name) from None
    return datetime(found.year, found.month, found.day, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ItemSearch:
    """What the form of a list of rules or examples sends. An empty field is no filter."""

    q: Text = ""
    namespace: Text = ""
    state: Text = ""
    lift: Text = ""
    since: Text = ""
    until: Text = ""
    sort: Text = RuleSort.NEWEST.value
    cursor: Text = ""

    def chosen(self, within: frozenset[str] | None) -> dict[str, Any]:
        """By the names of both filters. Raises `InvalidRequest`."""
        least, most = LIFTS.get(self.lift, (None, None))
        made = dates(self.since, self.until)
        return {
            "min_lift": least,
            "max_lift": most,
            "namespace": self.namespace or None,
            "namespaces": within,
            "state": among(RuleState, self.state),
            "text": self.q.strip() or None,
            "created_after": made.since,
            "created_before": made.until,
        }


class Listed(Protocol[Where]):
    """`store.rules`, or `store.examples`."""

    async def list(
        self, where: Where, /, *, limit: int, cursor: str | None, sort: RuleSort
    ) -> Page: ...


async def list_page(
    desk: SignedInRequest,
    items: Listed[Where],
    where: Where,
    search: ItemSearch,
    template: str,
    *,
    size: int,
    status: int,
    typed: Form | None,
) -> Response:
    """`typed`: the form of a new one that was refused."""
    sort = among(RuleSort, search.sort) or RuleSort.NEWEST
    page = await items.list(where, sort=sort, limit=size, cursor=search.cursor or None)
    filters = asdict(search)
    del filters["cursor"]
    ids = [each.id for each in page.items]
    return desk.page(
        template,
        status=status,
        page=page,
        standings=await desk.state.store.evidence.standings_of(ids),
        search=search,
        filters=filters,
        namespaces=await desk.namespaces(),
        sort=sort.value,
        moves=MOVES,
        typed=typed.fields if typed else None,
        first=desk.state.settings.namespace,
    )


LONGEST_QUERY = 4000
"""Of the list that one comes back to."""
Step = Callable[[str, int | None, Change], Awaitable[object]]
"""Changes one row by its id, if it has this version still."""


@dataclass(frozen=True, slots=True)
class Done:
    changed: int
    refused: tuple[str, ...]
    """Why, once each."""

    def sentence(self, one: str, many: str, verb: str) -> str:
        what = one if self.changed == 1 else many
        said = f"{self.changed} {what} {verb}."
        return f"{said} Not done: {'; '.join(self.refused)}" if self.refused else said


def picked(form: Form) -> dict[str, int | None]:
    """Ids of the chosen rows with the versions that were shown. Raises `InvalidRequest` where
    none is chosen."""
    found: dict[str, int | None] = {}
    for name in form.fields:
        if name.startswith(PICKED):
            found[name.removeprefix(PICKED)] = form.number(name)
    if not found:
        raise InvalidRequest("Choose at least one row", param="pick")
    return found


MOVES = {
    "retire": "retired",
    "restore": "restored",
    "quarantine": "held back",
    "release": "released",
}
"""What can be done with many rows, and how it is told."""


class Movable(Protocol):
    """Rules, or examples: what has a namespace and moves from state to state."""

    async def get(self, id: str, /) -> Rule | Example: ...

    @property
    def retire(self) -> Move: ...
    @property
    def restore(self) -> Move: ...
    @property
    def quarantine(self) -> Move: ...
    @property
    def release(self) -> Move: ...


async def move_picked(
    desk: SignedInRequest, form: Form, items: Movable, *, page: str, noun: str
) -> Response:
    """To the list at `page`, as the form saw it, with a sentence on what was done. Raises
    `InvalidRequest`."""
    name = form.get("do")
    if name not in MOVES:
        raise InvalidRequest("Say what to do with them", param="do")
    move: Move = getattr(items, name)

    async def step(id: str, version: int | None, change: Change) -> None:
        if not desk.caller.reaches((await items.get(id)).namespace):
            raise UnknownRule(id) if noun == "rule" else UnknownExample(id)
        await move(id, change=change, expected_version=version)

    done = await change_each(desk, form, step)
    verb = "was" if done.changed == 1 else "were"
    said = done.sentence(noun, f"{noun}s", f"{verb} {MOVES[name]}")
    back = form.get("back")
    where = page + back if back.startswith("?") and len(back) < LONGEST_QUERY else page
    return desk.go(where, said, "done" if done.changed else "problem")


async def change_each(desk: SignedInRequest, form: Form, step: Step) -> Done:
    """Each by itself: one that is refused stops no other. Raises `InvalidRequest` without a choice
    or a reason."""
    chosen, change = picked(form), desk.change(form.reason)
    changed, refused = 0, dict[str, None]()
    for id, version in chosen.items():
        try:
            await step(id, version, change)
            changed += 1
        except StoreError as error:
            refused[str(error)] = None
    return Done(changed, tuple(refused)[:5])
