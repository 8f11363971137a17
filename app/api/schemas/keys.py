"""What the endpoints of keys take and give."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from app.api.schemas.common import AT, ResponseModel, Timestamp, example, example_of
from app.api.schemas.rules import Moment, Write
from app.settings import NAMESPACE_PATTERN
from rules_store.models.events import is_own_actor
from rules_store.models.keys import ADMIN, ALL, KeyChanges, NewKey, Permission

MOST = 2**31 - 1
NAMESPACE_OR_ALL = rf"^\*$|{NAMESPACE_PATTERN}"


def _alone(names: tuple[str, ...]) -> tuple[str, ...]:
    if ALL in names and len(names) > 1:
        raise ValueError("'*' stands for every namespace, and alone")
    return tuple(dict.fromkeys(names))


def _each_once(permissions: tuple[Permission, ...]) -> tuple[Permission, ...]:
    return tuple(each for each in Permission if each in permissions)


def _nobody_elses(name: str) -> str:
    if is_own_actor(name) or name.casefold() == ADMIN:
        raise ValueError("who acts by this name is another one: it stands in the log for its key")
    return name


def _to_come(moment: datetime) -> datetime:
    if moment <= datetime.now(UTC):
        raise ValueError("must be in the future")
    return moment


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100),
    Field(description="Whose key it is: the actor of all changes that are made with it"),
    AfterValidator(_nobody_elses),
]
Names = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=NAMESPACE_OR_ALL)], ...],
    Field(
        min_length=1,
        max_length=100,
        description="The first is the default of requests that name none; ['*'] is all",
    ),
    AfterValidator(_alone),
]
Permissions = Annotated[
    tuple[Permission, ...], Field(min_length=1, max_length=10), AfterValidator(_each_once)
]
PerMinute = Annotated[
    int | None, Field(ge=1, le=MOST, description="Requests a minute, on each gateway; null: any")
]
PerDay = Annotated[int | None, Field(ge=1, le=MOST, description="Tokens a UTC day; null: any")]

ExpiresAt = Annotated[
    Annotated[Moment, AfterValidator(_to_come)] | None,
    Field(description="From then on the key is refused; null: never"),
]


class KeyCreate(Write):
    model_config = example(
        name="help desk",
        namespaces=["support"],
        permissions=["chat", "learn"],
        requests_per_minute=60,
        actor="kim",
        reason="a new client",
    )

    name: Name
    namespaces: Names
    permissions: Permissions = (Permission.CHAT, Permission.LEARN)
    requests_per_minute: PerMinute = None
    tokens_per_day: PerDay = None
    expires_at: ExpiresAt = None

    def as_new(self) -> NewKey:
        return NewKey(**self.content())


class KeyPatch(Write):
    model_config = example(requests_per_minute=120, actor="kim", reason="they grew")

    name: Name | None = None
    namespaces: Names | None = None
    permissions: Permissions | None = None
    requests_per_minute: PerMinute = None
    tokens_per_day: PerDay = None
    expires_at: ExpiresAt = None

    @model_validator(mode="after")
    def _something(self) -> KeyPatch:
        if not self.model_fields_set - set(Write.model_fields):
            raise ValueError(f"nothing to change: give {', '.join(KeyChanges.__annotations__)}")
        for name in ("name", "namespaces", "permissions"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise ValueError(f"{name} can't be null")
        return self

    def changes(self) -> KeyChanges:
        """What was given. A null limit or end takes it away."""
        return cast(KeyChanges, self.content(exclude_unset=True))


class KeyRotate(Write):
    model_config = example(overlap_hours=24, actor="kim", reason="once a quarter")

    overlap_hours: float = Field(
        1.0, ge=0, le=24 * 90, description="For so long the present secret is valid beside the new"
    )

    @property
    def overlap(self) -> timedelta:
        return timedelta(hours=self.overlap_hours)


class Spend(ResponseModel):
    requests: int = Field(0, examples=[12])
    tokens: int = Field(0, examples=[3400])


class Key(ResponseModel):
    object: Literal["api_key"] = "api_key"
    id: str = Field(examples=["key_0123456789abcdef"])
    name: str = Field(examples=["help desk"])
    shown: str = Field(description="The secret's first characters", examples=["ttcl_ab12"])
    namespaces: list[str] = Field(examples=[["support"]])
    permissions: list[Permission] = Field(examples=[["chat", "learn"]])
    requests_per_minute: int | None = Field(examples=[60])
    tokens_per_day: int | None = Field(examples=[100_000])
    created_at: Timestamp
    last_used_at: Timestamp | None = Field(examples=[AT])
    revoked_at: Timestamp | None = Field(examples=[AT])
    expires_at: Timestamp | None = Field(examples=[AT])
    used_today: Spend = Field(Spend(), examples=[example_of(Spend)])


class Withdrawal(ResponseModel):
    object: Literal["withdrawal"] = "withdrawal"
    key_id: str = Field(examples=["key_0123456789abcdef"])
    begun_at: Timestamp
    ended_at: Timestamp | None = Field(
        description="Null: rules or examples of frozen namespaces wait to be judged anew",
        examples=[AT],
    )
    counts: dict[str, int] = Field(
        description="What was taken back, all runs together",
        examples=[{"feedback": 12, "outcomes": 12, "trials": 6, "lessons": 2, "exposures": 31}],
    )


class KeyWithSecret(Key):
    secret: str = Field(description="Shown this once", examples=["ttcl_ab12cd34ef56"])
