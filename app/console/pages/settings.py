"""How the service is set up, and what one namespace does differently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from fastapi.responses import Response
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.api.errors import from_store
from app.console.access import At, Form, Id, Posted, SignedInRequest, console_router
from app.exceptions import InvalidRequest
from app.settings import PREFIX, Settings
from rules_store.errors import StoreError
from rules_store.models.namespaces import NamespaceSettings

router = console_router()

SECRET = "set, not shown"
GROUPS = {
    "Steering": (
        *("policy", "max_positive", "max_negative", "max_examples", "similarity_floor"),
        *("examples", "confidential", "chores"),
    ),
    "Learning": (
        *("learn", "sample_rate", "calls_per_hour", "tokens_per_hour", "capacity", "pruning"),
        *("example_capacity", "example_days"),
    ),
    "Comparison and guard": ("control_rate", "guard", "guard_margin", "resume_after"),
    "Retention": ("retention_days",),
}


LABELS = {
    "policy": ("When a rule comes into use", "gated: after a trial; paper: at once"),
    "max_positive": ("Most rules of what to do", "for one request"),
    "max_negative": ("Most rules of what to avoid", "for one request"),
    "max_examples": ("Most examples", "for one request"),
    "similarity_floor": (
        "Least likeness",
        "from -1 to 1: what is less like a question is not given",
    ),
    "examples": (
        "Examples",
        "verified: those that somebody vouches for; consensus: also agreed ones",
    ),
    "confidential": ("Keep rules and examples secret", "the model is asked not to repeat them"),
    "chores": ("Chores of clients", "titles, tags and the like: neither steered nor learned from"),
    "learn": ("Learn", ""),
    "sample_rate": ("Learned share of requests", "from 0 to 1; 0 spends nothing on learning"),
    "calls_per_hour": ("Most learning calls an hour", ""),
    "tokens_per_hour": ("Most learning tokens an hour", ""),
    "capacity": ("Most rules in use", ""),
    "pruning": ("Which rules make room", "under the policy paper"),
    "example_capacity": ("Most examples in use", ""),
    "example_days": ("Days that a new example is shown", "empty: for good"),
    "control_rate": (
        "Share without rules and examples",
        "of the conversations, to compare with: from 0 to 1, or auto",
    ),
    "guard": ("Stop by itself where it harms", ""),
    "guard_margin": ("Harm that is borne", "0.02: two points of a hundred"),
    "resume_after": ("Hours until it starts again", "empty: a person decides"),
    "retention_days": (
        "Days that requests are kept",
        "older ones are deleted, with what came of them alone; empty: for good",
    ),
}
"""Of a namespace's settings: what they are called, and what that means."""
SERVICE = {
    "sample_rate": "learn_sample_rate",
    "calls_per_hour": "learn_calls_per_hour",
    "tokens_per_hour": "learn_tokens_per_hour",
}
"""Settings that the service has under another name."""


@dataclass(frozen=True, slots=True)
class Field:
    """One setting of a namespace, as its form shows it. `value` empty: as the service does."""

    name: str
    label: str
    value: str
    default: str
    """What the service does, where that is one value."""
    options: list[str]
    """What it can be, where that is a list."""
    number: bool
    hint: str


@router.get("/settings")
async def settings(desk: At) -> Response:
    desk.caller.demand_everywhere()
    return desk.page("settings.html", rows=described(desk.state.settings), prefix=PREFIX)


@router.get("/namespaces/{namespace}/settings")
async def of_namespace(namespace: Id, desk: At) -> Response:
    return await _page(desk, namespace)


@router.post("/namespaces/{namespace}/settings")
async def change(namespace: Id, desk: At, form: Posted) -> Response:
    try:
        changes = {name: _read(name, form) for name in NamespaceSettings.model_fields}
        before = dict(desk.state.store.namespaces.settings_of(namespace))
        changes = {name: value for name, value in changes.items() if value != before[name]}
        if not changes:
            raise InvalidRequest("Nothing was changed in the form")
        await desk.state.store.namespaces.change_settings(
            namespace, changes, change=desk.change(form.reason)
        )
    except (StoreError, InvalidRequest) as error:
        known = from_store(error) if isinstance(error, StoreError) else error
        desk.problem(known.message)
        return await _page(desk, namespace, status=known.status, typed=form)
    return desk.go(f"/console/namespaces/{namespace}", f"Changed: {', '.join(changes)}.")


def described(settings: Settings) -> list[tuple[str, str, bool, str]]:
    """(name, value, whether it is the default, meaning) of each setting; a secret stays one."""
    fields = [
        *((name, field, getattr(settings, name)) for name, field in _flat(Settings).items()),
        *(
            (name, field, getattr(settings.experiment, name))
            for name, field in _flat(type(settings.experiment)).items()
        ),
    ]
    return [
        (name.upper(), _shown(value), value == field.get_default(), field.description or "")
        for name, field, value in fields
    ]


def _flat(model: type[Any]) -> dict[str, FieldInfo]:
    fields: Mapping[str, FieldInfo] = model.model_fields
    return {name: field for name, field in fields.items() if name != "experiment"}


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        return SECRET
    if isinstance(value, tuple | list):
        return (
            SECRET
            if any(isinstance(each, SecretStr) for each in value)
            else ", ".join(map(str, value))
        )
    if isinstance(value, Enum):
        return str(value.value)
    return "" if value is None else str(value)


def _said(value: Any) -> str:
    """As the form of a namespace writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _shown(value)


def _options(field: FieldInfo) -> list[str]:
    for kind in get_args(field.annotation):
        if get_origin(kind) is Literal:
            found = [str(each) for each in get_args(kind)]
            return found if len(found) > 1 else []
        if isinstance(kind, type) and issubclass(kind, Enum):
            return [str(each.value) for each in kind]
        if kind is bool:
            return ["yes", "no"]
    return []


def _read(name: str, form: Form) -> Any:
    """The value of a field, as `change_settings` takes it."""
    text = form.get(name)
    if not text:
        return None
    kinds = get_args(NamespaceSettings.model_fields[name].annotation)
    if bool in kinds:
        return text == "yes"
    if int in kinds:
        return form.number(name)
    if float in kinds:
        try:
            return float(text)
        except ValueError:
            return text
    return text


async def _page(
    desk: SignedInRequest, namespace: str, *, status: int = 200, typed: Form | None = None
) -> Response:
    summary = await desk.state.store.namespaces.summary(namespace)
    own = summary.namespace.settings.model_dump(mode="json")

    def shown(name: str) -> str:
        if typed is not None:
            return typed.get(name)
        return _said(own[name])

    def field(name: str) -> Field:
        info = NamespaceSettings.model_fields[name]
        numeric = bool({int, float} & set(get_args(info.annotation)))
        label, hint = LABELS[name]
        default = _said(getattr(desk.state.settings, SERVICE.get(name, name), None))
        return Field(name, label, shown(name), default, _options(info), numeric, hint)

    return desk.page(
        "namespace_settings.html",
        status=status,
        namespace=namespace,
        groups={title: [field(name) for name in names] for title, names in GROUPS.items()},
        typed=typed.fields if typed else {},
    )
