"""The `ttcl` command: its verb groups by name, each imported when it is run.

`ttcl --help` and completion know a name and a line of help for each, so that they answer at once.
"""

from __future__ import annotations

import importlib
import signal
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from app import __version__

ENTRY_POINTS = "ttcl.commands"
"""Commands of what stands above this package in the import order mount themselves by these."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A command, or a group of them."""

    help: str
    module: str | None = None
    """Of `app.cli`, where its `app` is; None: all of it is made from the admin API."""
    mounted: bool = False
    """By an entry point (`ENTRY_POINTS`)."""


COMMANDS = {
    "serve": Entry(
        "Run the gateway; with no upstream configured, the embedded model too.", "serve"
    ),
    "worker": Entry(
        "Work through the learning jobs of a PostgreSQL store; start more to learn faster.",
        "worker",
    ),
    "engine": Entry("Run a local model server alone. What follows `--` goes to vLLM.", "engine"),
    "doctor": Entry(
        "Say what is configured, what answers and what is missing; exit code 1 where it can't"
        " work.",
        "doctor",
    ),
    "upgrade": Entry(
        "Bring the database to this version's schema, and say what that did; make one where there"
        " is none.",
        "upgrade",
    ),
    "demo": Entry(
        "Play a stream of tickets, every second one with experience, and draw the accuracy.", "demo"
    ),
    "bench": Entry(
        "Does it help? Compare the loop with the same number of plain calls.", mounted=True
    ),
    "rules": Entry("Rules: look at them, write some, judge and tidy them up.", "rules"),
    "examples": Entry("Verified answers: look at them, add some, tidy them up.", "examples"),
    "episodes": Entry("What was asked, and what came of it."),
    "feedback": Entry("Say how good an answer was, or what the right one is."),
    "effect": Entry(
        "Whether steering helps, and what it costs. Alone: a line for each namespace.", "effect"
    ),
    "namespaces": Entry("Namespaces: set up, freeze, roll back, delete.", "namespaces"),
    "keys": Entry("API keys: make, look at, change and revoke them.", "keys"),
    "jobs": Entry("Learning that waits, runs or failed."),
    "events": Entry("The log of every change, by whom and why."),
    "store": Entry("Move the whole store to another database.", "store"),
    "stats": Entry("Counts of all that is stored, and the index against SQL."),
}


def load(name: str) -> Any:
    """The command of this name, imported; None where there is none."""
    from importlib.metadata import entry_points  # takes longer than all the rest of `--help`

    entry = COMMANDS.get(name)
    if entry is None or entry.mounted:
        mounted = {each.name: each for each in entry_points(group=ENTRY_POINTS)}
        if name not in mounted:
            return None
        found = mounted[name].load()
    elif entry.module is None:
        from app.cli.operations import generated

        found = generated(name)
    else:
        found = importlib.import_module(f"app.cli.{entry.module}").app
    command = typer.main.get_command(found)
    command.name = name
    if entry is not None and not command.help:
        command.help = entry.help
    return command


class LazyGroup(TyperGroup):
    """Names and help come from `COMMANDS`; a command itself is imported when it is asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {
            name: TyperCommand(name, help=entry.help) for name, entry in COMMANDS.items()
        }

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the table."""
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real one of the first argument."""
        if args and (found := load(args[0])) is not None:
            self.commands[args[0]] = found
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    help="Makes a frozen language model better at the work it is given, at test time.",
)


def _show_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"ttcl {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Makes a frozen language model better at the work it is given, at test time."""


def main() -> None:
    """Errors that a user can mend are one sentence and exit code 2, not a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        # Until here Ctrl-C just ended the process (`ttcl`); a command may have to put things right.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        app(prog_name="ttcl")
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        from app.cli.common import err

        err.print(f"ttcl: {sentence}", markup=False, soft_wrap=True)
        raise SystemExit(2) from error


def _sentence(error: Exception) -> str | None:
    """What to say of an error that a user can mend; None for any other."""
    from app.exceptions import TTCLError
    from rules_store.errors import StoreError

    if isinstance(error, TTCLError | StoreError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return None
