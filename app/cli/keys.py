"""`ttcl keys`: the API keys in the store, changed where they are stored."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from app.cli.common import default_actor, err, print_json, with_store
from app.cli.operations import add_commands
from app.exceptions import ConfigurationError
from rules_store.models.events import Change
from rules_store.models.keys import ALL, NewKey, Permission

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
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Make a key. Its secret is printed this once, alone on standard output."""
    from app.api.schemas.keys import KeyWithSecret

    new = _checked(
        name=name,
        namespaces=namespace,
        **({"permissions": permission} if permission else {}),
        requests_per_minute=requests_per_minute,
        tokens_per_day=tokens_per_day,
    )
    key, secret = with_store(
        lambda s: s.keys.create(new, change=Change(default_actor(), reason)), creates=True
    )
    if as_json:
        print_json(KeyWithSecret.of(key, secret=secret))
        return
    where = ", ".join(key.namespaces)
    err.print(f"{key.id} for {where}. This is the only time the secret is shown:", markup=False)
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
