"""`ttcl keys`: the API keys in the store, changed where they are stored."""

from __future__ import annotations

import getpass
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from app.access.admin_key import keep_admin_key, present_admin_key
from app.cli.common import add_row, err, out, print_json, table, with_store
from app.exceptions import ConfigurationError
from app.settings import load_settings
from rules_store.models.events import Change
from rules_store.models.keys import ADMIN, ALL, ApiKey, NewKey, Permission
from rules_store.models.namespaces import MAX_ACTOR_CHARS
from rules_store.store import RuleStore

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")

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
    key, secret = with_store(lambda s: s.keys.create(new, change=Change(_actor(), reason)))
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
    change, overlap = Change(_actor(), reason), timedelta(hours=overlap_hours)
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


@app.command("list")
def keys_list(
    limit: Annotated[int, typer.Option(min=1, help="Most keys shown")] = 100,
    as_json: AsJson = False,
) -> None:
    """List keys, newest first; revoked ones too."""
    from app.api.schemas.keys import Key

    page = with_store(lambda s: s.keys.list(limit=limit))
    if as_json:
        for key in page.items:
            # What it used is known to a running gateway before it is to the store.
            print_json(Key.of(key).model_dump(mode="json", exclude={"used_today"}))
        return
    _show(page.items)
    err.print(f"{len(page.items)} of {page.total}")


@app.command("revoke")
def keys_revoke(key_id: str, reason: Reason = "", as_json: AsJson = False) -> None:
    """Revoke a key, for good. Running gateways refuse it within a second."""
    from app.api.schemas.keys import Key

    key = with_store(lambda s: s.keys.revoke(key_id, change=Change(_actor(), reason)))
    if as_json:
        print_json(Key.of(key))
    else:
        err.print(f"{key.id} ({key.name}) is revoked", markup=False)


@app.command("withdraw")
def keys_withdraw(
    key_id: Annotated[
        str,
        typer.Argument(help="Of a key, or environment-1 for the first of TTCL_API_KEYS, or anyone"),
    ],
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Take back all that was said with a key, and judge anew what stood on it. Revoke it first
    where it must not go on. Run again, it goes on where it ended."""
    from app.api.schemas.keys import Withdrawal

    done = with_store(lambda s: s.keys.withdraw(key_id, change=Change(_actor(), reason)))
    if as_json:
        print_json(Withdrawal.of(done))
        return
    taken = ", ".join(f"{count} {name}" for name, count in sorted(done.counts.items()))
    err.print(f"{done.key_id}: {taken or 'nothing to take back'}", markup=False)
    if done.ended_at is None:
        err.print("Rules or examples of frozen namespaces wait: unfreeze, and withdraw again")


def _checked(**given: Any) -> NewKey:
    """By the admin API's own rules. Raises `ConfigurationError`."""
    from app.api.schemas.keys import KeyCreate

    try:
        return KeyCreate(**given).as_new()
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{first['loc'][0]}: {message}") from error


def _actor() -> str:
    try:
        return f"cli:{getpass.getuser()}"[:MAX_ACTOR_CHARS]
    except (KeyError, OSError):  # a container's user may have no name
        return "cli"


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "live"
    live = key.live(datetime.now(UTC))
    return f"{'live until' if live else 'expired'} {key.expires_at:%Y-%m-%d %H:%M}"


def _show(keys: list[ApiKey]) -> None:
    shown = table("id name begins namespaces permissions limits used state")
    for key in keys:
        rate, budget = key.requests_per_minute, key.tokens_per_day
        limits = [f"{rate}/min" if rate else "", f"{budget} tokens/day" if budget else ""]
        add_row(
            shown,
            key.id,
            key.name,
            key.shown,
            ", ".join(key.namespaces),
            ", ".join(permission.value for permission in key.permissions),
            ", ".join(filter(None, limits)) or "-",
            f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never",
            _state(key),
        )
    out.print(shown)
