"""`ttcl keys`: the API keys in the store, changed where they are stored."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from app.cli.common import default_actor, err, print_json, with_store
from app.cli.operations import add_commands
from app.exceptions import ConfigurationError
from rules_store.models.events import Change
from rules_store.models.keys import ADMIN, ALL, ApiKey, NewKey, Permission

if TYPE_CHECKING:
    from rules_store.store import RuleStore

app = typer.Typer(no_args_is_help=True, add_completion=False)

AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table or a line")]
Reason = Annotated[str, typer.Option(help="Why; kept in the event log")]


@app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="What you know it by")],
    namespace: Annotated[
        list[str], typer.Option(help=f"May be repeated; the first is its default; '{ALL}': all")
    ],
    permission: Annotated[
        list[Permission] | None, typer.Option(help="May be repeated; unset: chat and learn")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="On each gateway; unset: any")
    ] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=1, help="UTC; unset: any")] = None,
    expires_at: Annotated[
        datetime | None,
        typer.Option(help="UTC; unset: never", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    ] = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Make a key. Its secret is printed this once, alone on standard output."""
    new = _checked(
        name=name,
        namespaces=namespace,
        **({"permissions": permission} if permission else {}),
        requests_per_minute=requests_per_minute,
        tokens_per_day=tokens_per_day,
        expires_at=None if expires_at is None else expires_at.replace(tzinfo=UTC),
    )
    change = Change(default_actor(), reason)
    key, secret = with_store(lambda s: s.keys.create(new, change=change), creates=True)
    _say_secret(key, secret, f"for {', '.join(key.namespaces)}", as_json)


@app.command("rotate")
def keys_rotate(
    key_id: Annotated[str, typer.Argument(help="Of a key, or admin for the admin key")],
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=2160, help="For so long the present secret is valid still")
    ] = 1.0,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret, which is printed this once. Running gateways take it within a
    second. Of the admin key: where it is kept in the data folder the new one is put there;
    elsewhere put it into TTCL_ADMIN_API_KEY before the overlap is over."""
    from app.access.admin_key import keep_admin_key, present_admin_key
    from app.settings import load_settings

    change, overlap = Change(default_actor(), reason), timedelta(hours=overlap_hours)
    settings = load_settings()

    async def rotate(store: RuleStore) -> tuple[ApiKey, str]:
        if key_id != ADMIN:
            return await store.keys.rotate(key_id, overlap=overlap, change=change)
        present = present_admin_key(settings)
        rotated = await store.keys.rotate_admin(present, overlap=overlap, change=change)
        await keep_admin_key(settings, rotated[1])
        return rotated

    key, secret = with_store(rotate)
    _say_secret(key, secret, f"has a new secret, {overlap_hours:g} h beside the old", as_json)


def _say_secret(key: ApiKey, secret: str, what: str, as_json: bool) -> None:
    from app.api.schemas.keys import KeyWithSecret

    if as_json:
        print_json(KeyWithSecret.of(key, secret=secret))
        return
    err.print(f"{key.id} {what}. This is the only time the secret is shown:", markup=False)
    sys.stdout.write(f"{secret}\n")


def _checked(**given: Any) -> NewKey:
    """By the admin API's own rules. Raises `ConfigurationError`."""
    from app.api.schemas.keys import KeyCreate

    try:
        return KeyCreate(**given).as_new()
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{first['loc'][0]}: {message}") from error


add_commands(app, "keys")
