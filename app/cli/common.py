"""What the commands share: where they print, and the store while they use it.

Help and completion import this too: what takes long to import is imported where it is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.domain.printable import json_printable, printable
from app.exceptions import InvalidRequest

if TYPE_CHECKING:
    from pydantic import BaseModel

    from app.settings import Settings
    from app.upstream.embeddings import CachedEmbedder
    from rules_store.models.rules import Vector
    from rules_store.operations.curation import PrunePlan
    from rules_store.operations.example_curation import ExamplePrunePlan
    from rules_store.store import RuleStore

T = TypeVar("T")


class PlainConsole(Console):
    """Prints what others wrote as text, whatever is in it."""

    def print(self, *objects: Any, **options: Any) -> None:
        shown = (printable(each) if isinstance(each, str) else each for each in objects)
        super().print(*shown, **options)


err = PlainConsole(stderr=True, highlight=False)
out = PlainConsole(highlight=False, width=None if sys.stdout.isatty() else 150)

AsJson = Annotated[bool, typer.Option("--json", help="JSON lines instead of a table")]
Namespace = Annotated[str | None, typer.Option(help="Only this namespace")]


def default_actor() -> str:
    """Who runs the command, as the machine knows it."""
    from rules_store.models.namespaces import MAX_ACTOR_CHARS

    try:
        return f"cli:{getpass.getuser()}"[:MAX_ACTOR_CHARS]
    except (KeyError, OSError):  # a container's user may have no name
        return "cli"


def _actor(given: str) -> str:
    from rules_store.models.events import is_own_actor
    from rules_store.models.namespaces import MAX_ACTOR_CHARS

    if len(given) > MAX_ACTOR_CHARS:
        raise typer.BadParameter(f"at most {MAX_ACTOR_CHARS} characters")
    if is_own_actor(given):
        raise typer.BadParameter("the service itself acts by this name")
    return given or default_actor()


Actor = Annotated[
    str,
    typer.Option(
        help="Who does it, for the event log; unset: cli and your name on this machine",
        callback=_actor,
        show_default=False,
    ),
]
Reason = Annotated[str, typer.Option(help="Why, for the event log")]


@asynccontextmanager
async def opened(settings: Settings, *, creates: bool = False) -> AsyncIterator[RuleStore]:
    """The store that a gateway of these settings would use, as it is: no database is made, but
    where `creates` says so, and none is brought to another schema. Raises `ConfigurationError`."""
    from app.wiring.factories import explained, opened_store, store_options
    from rules_store.database import migrate

    makes = False
    if creates:
        with explained(settings):
            options = store_options(settings)
            status = await migrate.status(settings.resolved_database_url, options)
        if makes := status.revision is None:
            err.print(f"making a new database: {status.database}", markup=False, soft_wrap=True)
    async with opened_store(settings, upgrade=makes) as store:
        yield store


def with_store(work: Callable[[RuleStore], Coroutine[Any, Any, T]], *, creates: bool = False) -> T:
    """What `work` gives on the store of these settings; `creates` as `opened` has it."""
    from app.settings import load_settings

    async def run() -> T:
        async with opened(load_settings(), creates=creates) as store:
            return await work(store)

    return asyncio.run(run())


def print_json(value: BaseModel | dict[str, Any]) -> None:
    """One line."""
    shown = value if isinstance(value, dict) else value.model_dump(mode="json")
    sys.stdout.write(json.dumps(shown) + "\n")


def table(columns: str) -> Table:
    """An empty table; `columns` are separated by blanks, and an id is never broken."""
    made = Table(box=None, pad_edge=False)
    for column in columns.split():
        made.add_column(column, overflow="fold", no_wrap=column == "id")
    return made


def add_row(to: Table, *cells: object) -> None:
    """Cells are plain text: what a model wrote is no markup."""
    to.add_row(*(Text(printable(str(cell))) for cell in cells))


def print_lines(*texts: str) -> None:
    """As they are: no markup, nothing broken."""
    for text in texts:
        out.print(text, markup=False, soft_wrap=True)


def shortened(text: str, most: int = 60) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def say_pruned(plan: PrunePlan | ExamplePrunePlan, what: str, *, shown: int) -> None:
    """Below a table of the first so many that a prune takes."""
    more = len(plan.victims) - shown
    err.print(
        f"{len(plan.victims)} of {plan.active} active {what}"
        + (f"; {more} more are not shown" if more > 0 else "")
    )


def changed_fields(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    """The fields that an event changed, one a line."""
    if before is None or after is None:
        return ""
    return "\n".join(
        f"{name}: {before.get(name)} -> {value}"
        for name, value in after.items()
        if value != before.get(name)
    )


def write_lines(file: Path | None, lines: Callable[[RuleStore], AsyncIterator[bytes]]) -> int:
    """Writes the lines of an export to the file, None: to standard output; how many they are.
    Raises `InvalidRequest` where the file can't be written."""

    async def write(store: RuleStore) -> int:
        written = 0
        output = contextlib.nullcontext(sys.stdout.buffer) if file is None else file.open("wb")
        with output as target:
            async for some in lines(store):
                # A file gets what is exported; a terminal may be what is behind standard output.
                target.write(some if file is not None else json_printable(some))
                written += some.count(b"\n")
            target.flush()
        return written

    try:
        return with_store(write)
    except OSError as error:
        raise InvalidRequest(f"{file}: {error.strerror}") from error


def read_lines(file: str, namespace: str | None) -> bytes:
    """The content of a file to import, `-` is standard input. Raises `InvalidRequest` where it
    can't be read, or where no namespace is named so."""
    from app.settings import NAMESPACE

    if namespace is not None and not NAMESPACE.match(namespace):
        raise InvalidRequest("--namespace: 1 to 64 letters, digits, '_', '.', '-'")
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{file}: {error.strerror}") from error


@asynccontextmanager
async def loaded_if_needed(
    embedder: CachedEmbedder, store: RuleStore, content: bytes
) -> AsyncIterator[None]:
    """Loads the embedding model where lines to import have vectors and the store does not know yet
    how long those of its model are. Elsewhere, and where it can't be loaded, what comes without
    vectors gets them from a running gateway."""
    from app.upstream.embeddings import EmbeddingFailed

    try:
        if store.dimension is None and b'"vector' in content:
            embedder.start()
            with contextlib.suppress(EmbeddingFailed):
                await embedder.embed(["a text, for the length of its vector"])
        yield
    finally:
        await embedder.close()


@asynccontextmanager
async def started(embedder: CachedEmbedder) -> AsyncIterator[CachedEmbedder]:
    """With its model loaded. Raises `EmbeddingFailed`."""
    embedder.start()
    try:
        await embedder.embed(["ready?"])
        yield embedder
    finally:
        await embedder.close()


async def embedding_of(embedder: CachedEmbedder, text: str) -> Vector:
    """Loads the embedding model for this one text. Raises `EmbeddingFailed`."""
    async with started(embedder):
        row: Vector = (await embedder.embed([text]))[0]
        return row
