"""Commands made from the description of the admin API: one for each of its operations.

The OpenAPI document says what an operation takes and gives (`operations.json`, which
`app.cli.described` writes from it, so that help and completion need not load the API); here are
only the words that a command line uses for some of that. What needs more than a request (a preview
that asks, a file that is written) is a command of a module of its own, which then goes before the
one made here.

    GET   /rules                        ttcl rules list --namespace NAME --state STATE
    POST  /rules                        ttcl rules add NAMESPACE POLARITY TEXT
    GET   /rules/{rule_id}              ttcl rules show RULE_ID
    POST  /rules/{rule_id}/retire       ttcl rules retire RULE_ID --reason WHY
    POST  /rules:merge                  ttcl rules merge INTO RULES...
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from app.cli.common import AsJson, default_actor
from app.exceptions import InvalidRequest

DESCRIPTION = Path(__file__).parent / "operations.json"
VERBS = {
    "create_rule": ("rules", "add"),
    "search_rules": ("rules", "near"),
    "create_example": ("examples", "add"),
    "search_examples": ("examples", "near"),
    "patch_namespace": ("namespaces", "set"),
    "create_snapshot": ("namespaces", "snapshot"),
    "effect": ("effect", "show"),
    "resume_steering": ("effect", "resume"),
    "spending": ("effect", "spending"),
    "stats": ("stats", "show"),
    "give_feedback": ("feedback", "give"),
    "give_feedback_batch": ("feedback", "batch"),
}
"""Noun and verb of those operations whose path does not say them well, by operation id."""
PLAIN_VERBS = {
    ("get", False): "list",
    ("post", False): "create",
    ("get", True): "show",
    ("patch", True): "edit",
    ("delete", True): "delete",
}
"""By method, and whether one thing is named."""
WORDS = {
    "q": "text",
    "similar_to": "question",
    "source_episode": "episode",
    "episode_id": "episode",
    "request_id": "request",
    "expires_at": "expires",
}
"""Options and arguments that have another name than the API's field."""
PREFIX = "/admin/v1/"
CURSOR, ACTOR = "cursor", "actor"
UNSET: Any = object()
ANNOTATED: Any = Annotated
LITERAL: Any = Literal
"""Types that are made when the program runs, which a type checker can't follow."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value that an operation takes."""

    name: str
    place: Literal["path", "query", "body"]
    kind: str
    """`choice`, or the type of its JSON: string, integer, number, boolean, array, object."""
    required: bool
    help: str = ""
    choices: tuple[str, ...] = ()
    is_moment: bool = False
    nullable: bool = False
    may_be_empty: bool = False
    """Whether an empty text is a value of it."""

    @property
    def word(self) -> str:
        """Its name on the command line."""
        return self.name if self.place == "path" else WORDS.get(self.name, self.name)

    @property
    def shown(self) -> str:
        """As an error names it."""
        return self.word.upper() if self.required else f"--{self.word.replace('_', '-')}"


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    method: str
    path: str
    summary: str
    parameters: tuple[Parameter, ...]
    takes_lines: bool
    """JSON lines are its body."""
    answer: str | None
    """Schema of what it gives, of a list that of its items; None: what it gives is no JSON."""
    is_list: bool

    @property
    def command(self) -> tuple[str, str]:
        """Noun and verb."""
        if self.id in VERBS:
            return VERBS[self.id]
        parts = re.split("[/:]", self.path.removeprefix(PREFIX))
        noun, *verbs = [part for part in parts if "{" not in part]
        return noun, "-".join(verbs) or PLAIN_VERBS[self.method, "{" in self.path]

    @property
    def reads(self) -> bool:
        return self.method == "get"

    @property
    def pages(self) -> bool:
        return any(each.name == CURSOR for each in self.parameters)


@cache
def operations() -> tuple[Operation, ...]:
    """Every operation that has a command, in the order of the API."""
    described = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    return tuple(
        Operation(**{**each, "parameters": tuple(map(_parameter, each["parameters"]))})
        for each in described
    )


def _parameter(described: dict[str, Any]) -> Parameter:
    return Parameter(**{**described, "choices": tuple(described.get("choices", ()))})


def generated(noun: str) -> typer.Typer:
    """A group of commands that is made of operations alone. Where there is nothing but one thing to
    show, the noun itself shows it."""
    app = typer.Typer(no_args_is_help=True, add_completion=False)
    add_commands(app, noun)
    if [command.name for command in app.registered_commands] != ["show"]:
        app.callback()(lambda: None)
    return app


def add_commands(app: typer.Typer, noun: str) -> None:
    """Adds to a group what it has no command for."""
    written = {command.name for command in app.registered_commands}
    for operation in operations():
        of, verb = operation.command
        if of == noun and verb not in written:
            app.command(verb, help=escape(f"{operation.summary}."))(_command(operation))


def _command(operation: Operation) -> Callable[..., None]:
    taken = [each for each in operation.parameters if each.name != CURSOR]

    def command(**given: Any) -> None:
        from app.cli.local_api import perform

        as_json, file = given.pop("as_json"), given.pop("file", None)
        values = {each.name: _value(each, given[each.word], operation) for each in taken}
        sent = {name: value for name, value in values.items() if value is not UNSET}
        perform(operation, sent, file, as_json)

    parameters = [_as_python(each, operation) for each in taken]
    if operation.takes_lines:
        told = typer.Argument(help="A file of JSON lines; - is standard input")
        parameters.append(_keyword("file", ANNOTATED[str, told]))
    parameters.append(_keyword("as_json", AsJson, False))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _keyword(
    name: str, annotation: Any, default: Any = inspect.Parameter.empty
) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _as_python(parameter: Parameter, operation: Operation) -> inspect.Parameter:
    """As the parameter of a function that typer reads."""
    kind, help_ = _type(parameter, operation), escape(parameter.help)
    if parameter.required:
        argument = typer.Argument(help=help_, metavar=parameter.shown)
        return _keyword(parameter.word, ANNOTATED[kind, argument])
    names = parameter.shown
    if parameter.kind == "boolean":
        names = f"{names}/--no-{names[2:]}"
    if parameter.name == ACTOR and not operation.reads:
        help_ = "Who does it, for the event log; unset: cli and your name on this machine"
    # The field's own name is understood too.
    also = [f"--{parameter.name.replace('_', '-')}"] if parameter.word != parameter.name else []
    option = typer.Option(names, *also, help=help_)
    return _keyword(parameter.word, ANNOTATED[kind | None, option], None)


def _type(parameter: Parameter, operation: Operation) -> Any:
    if _clears(parameter, operation):
        return str
    if parameter.kind == "choice":
        return LITERAL[parameter.choices]
    plain = {"array": list[str], "boolean": bool, "integer": int, "number": float}
    return plain.get(parameter.kind, str)


def _clears(parameter: Parameter, operation: Operation) -> bool:
    """Whether an empty value takes away what is there."""
    one = parameter.kind in ("string", "choice", "integer", "number")
    patched = operation.method == "patch" and parameter.place == "body"
    return one and patched and parameter.nullable and not parameter.may_be_empty


def _value(parameter: Parameter, given: Any, operation: Operation) -> Any:
    """What is sent for it; `UNSET`: nothing. Raises `InvalidRequest`."""
    if given is None and parameter.name == ACTOR and not operation.reads:
        return default_actor()
    if given is None or given == []:
        return UNSET
    if given == "" and _clears(parameter, operation):
        return None
    if parameter.required and isinstance(given, str) and not given.strip():
        raise InvalidRequest(
            f"{parameter.shown}: the {parameter.word} is blank", param=parameter.name
        )
    try:
        match parameter.kind:
            case "integer":
                return int(given)
            case "number":
                return float(given)
            case "object":
                return json.loads(given)
            case _ if parameter.is_moment:
                return _with_zone(given)
            case _:
                return given
    except ValueError as error:
        raise InvalidRequest(f"{parameter.shown}: {error}", param=parameter.name) from error


def _with_zone(text: str) -> str:
    """A moment that names no zone is in UTC; what is none is left for the API to refuse."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return moment.replace(tzinfo=moment.tzinfo or UTC).isoformat()
