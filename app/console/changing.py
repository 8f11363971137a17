"""What every form that changes a rule or an example does: the change, and then the next page; or
the same page with what was refused, and with what was typed still in the form."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from fastapi.responses import Response

from app.api.errors import from_store
from app.console.access import Form, SignedInRequest
from app.exceptions import InvalidRequest, TTCLError
from rules_store.errors import StoreError, UnknownExample, UnknownRule, VersionConflict
from rules_store.models.events import Change
from rules_store.models.examples import Example
from rules_store.models.rules import Rule

BACK = ("/console/quarantine", "/console/conflicts")
"""Lists that a form may ask to come back to."""
Action = Callable[[], Awaitable[Rule | Example]]
Refused = Callable[[int], Awaitable[Response]]
"""The page of what was not changed, under this status."""


class Move(Protocol):
    """One of the store's moves of a rule or an example from state to state."""

    async def __call__(
        self, id: str, /, *, change: Change, expected_version: int | None = None
    ) -> Rule | Example: ...


def moving(desk: SignedInRequest, id: str, move: Move, form: Form) -> Action:
    """The action that the form of a move asks for."""

    async def action() -> Rule | Example:
        return await move(
            id,
            change=desk.change(form.reason),
            expected_version=form.number("expected_version"),
        )

    return action


async def carry_out(
    desk: SignedInRequest, action: Action, form: Form, *, page: str, done: str, refused: Refused
) -> Response:
    """To `page`, or where the form wants to be, with the sentence `done`, which may hold
    `{version}`. Raises UnknownRule, UnknownExample."""
    try:
        changed = await action()
    except (UnknownRule, UnknownExample):
        raise
    except VersionConflict as error:
        desk.problem(
            f"Somebody else changed this meanwhile: it is version {error.current} now. "
            "Nothing of yours was saved."
        )
        return await refused(409)
    except (StoreError, InvalidRequest) as error:
        known = from_store(error) if isinstance(error, StoreError) else error
        assert isinstance(known, TTCLError)
        desk.problem(known.message)
        return await refused(known.status)
    back = form.get("back")
    return desk.go(back if back in BACK else page, done.format(version=changed.version))
