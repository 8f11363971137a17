"""A task is one YAML file: where its questions are, how they are asked and how they are graded.

A new task needs no code: `ttcl bench run --task my.yaml`. The shipped ones are in `tasks/`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from app.domain.trajectory import Message
from app.domain.trajectory import Task as Kind
from app.exceptions import ConfigurationError

TASKS_DIR = Path(__file__).parent / "tasks"
GRADERS = ("math", "exact", "choice", "rouge", "bertscore")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSource(_Strict):
    """Where the rows are: a file beside the YAML, or a data set by hub name."""

    path: str | None = None
    hub: str | None = None
    config: str | None = None
    split: str = "test"


class Columns(_Strict):
    """Names of the columns; several names are tried in turn, as copies of one set differ."""

    id: tuple[str, ...] = ("id",)
    question: tuple[str, ...] = ("question",)
    answer: tuple[str, ...] = ("answer",)
    grader: tuple[str, ...] = ()

    @field_validator("*", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class Sample(_Strict):
    question: str
    answer: str


class Shot(_Strict):
    """A worked example, shown as an earlier turn of the conversation."""

    question: str
    answer: str


class BertScoreModel(_Strict):
    """The encoder of BERTScore, by hub name or folder, and the layer whose output is compared."""

    model: str = "roberta-large"
    layer: int = Field(17, ge=1)


class Where(_Strict):
    """Keeps the rows whose column holds one of these texts, written exactly so."""

    column: str
    contains: tuple[str, ...] = Field(min_length=1)


class FromData(_Strict):
    """Stands for a list that is read from the rows."""

    source: Literal["data"] = Field(alias="from")


class TaskFile(_Strict):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    version: int = Field(ge=1)
    about: str
    sample: Sample
    source: DataSource | None = None
    columns: Columns = Columns()
    answer_pattern: str | None = None
    """Regular expression whose first group is the gold answer within its column."""
    where: Where | None = None
    """Which rows of the data belong to the task; None for all."""
    labels: tuple[str, ...] | FromData | None = None
    """What an answer may be; `from: data` for the distinct answers of the task's rows, sorted, of
    all of them whatever `--limit` says."""
    instructions: str | None = None
    """Jinja template of a system message in front of every question; it sees `labels`."""
    prompt: str = "{{ question }}"
    """Jinja template of the user message; it sees `labels` and the row's columns, `answer`
    excepted."""
    shots: tuple[Shot, ...] = ()
    """What every arm shows the model first: how long an answer is and how it ends."""
    domain: str = "default"
    """Prompt pack."""
    kind: Kind = Kind.CLOSED
    grader: str
    bertscore: BertScoreModel = BertScoreModel()
    max_tokens: int = Field(1024, ge=1)
    """Limit of every answer, in every arm."""

    @field_validator("labels", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        # YAML reads yes, no and 1 as something else than a text.
        listed = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
        if value is None or listed or value == {"from": "data"}:
            return value
        raise ValueError("must be a list of texts (in quotes, if need be) or {from: data}")

    @field_validator("answer_pattern")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        try:
            if value is not None and re.compile(value).groups < 1:
                raise ValueError("must have one group")
        except re.error as error:
            raise ValueError(f"is not a regular expression ({error})") from error
        return value

    @model_validator(mode="after")
    def _consistent(self) -> TaskFile:
        if self.grader not in GRADERS:
            raise ValueError(f"grader: '{self.grader}' is none of {', '.join(GRADERS)}")
        if self.kind is Kind.AUTO:
            raise ValueError("kind: must be closed or open")
        for name, template in (("prompt", self.prompt), ("instructions", self.instructions or "")):
            try:
                _JINJA.from_string(template)
            except TemplateError as error:
                raise ValueError(f"{name}: {error}") from error
        return self

    def messages(self, prompt: str) -> tuple[Message, ...]:
        """The conversation that ends with this user message."""
        turns: list[Message] = []
        if self.instructions is not None:
            turns.append({"role": "system", "content": self._render("instructions", {})})
        for shot in self.shots:
            turns.append({"role": "user", "content": shot.question})
            turns.append({"role": "assistant", "content": shot.answer})
        return (*turns, {"role": "user", "content": prompt})

    def render(self, row: dict[str, Any]) -> str:
        """The user message of one row. Raises `ConfigurationError` for a column it lacks."""
        return self._render("prompt", row)

    def _render(self, field: str, row: dict[str, Any]) -> str:
        known = {"labels": self.labels} if isinstance(self.labels, tuple) else {}
        try:
            return _JINJA.from_string(getattr(self, field)).render(row | known).strip()
        except TemplateError as error:
            raise ConfigurationError(f"task {self.name}: {field}: {error}") from error

    def described(self) -> dict[str, Any]:
        """Its fields for a run's configuration. What no task had at first is left out where it is
        not used, so that older runs go on."""
        fields = self.model_dump(mode="json", by_alias=True)
        unused = {name for name in ("where", "labels", "instructions") if fields[name] is None}
        return {name: value for name, value in fields.items() if name not in unused}


_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


def shipped_tasks() -> list[str]:
    return sorted(path.stem for path in TASKS_DIR.glob("*.yaml"))


def task_path(name: str) -> Path:
    """The file of a shipped task's name, or of a path. Raises `ConfigurationError`."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ConfigurationError(f"the task file {name} does not exist")
        return path
    if name not in shipped_tasks():
        raise ConfigurationError(
            f"there is no task '{name}': name a YAML file, or one of {', '.join(shipped_tasks())}"
        )
    return TASKS_DIR / f"{name}.yaml"


def load_task(name: str) -> TaskFile:
    """Read a task by name or path. Raises `ConfigurationError` with one sentence."""
    path = task_path(name)
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        raise ConfigurationError(f"{path} is not readable YAML: {detail}") from error
    if not isinstance(fields, dict):
        raise ConfigurationError(f"{path} must hold a mapping of task fields")
    try:
        return TaskFile.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{path}: {where + ': ' if where else ''}{reason}") from error
