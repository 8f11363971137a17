"""Loads the prompt packs under `prompts/` and renders them.

A prompt is a text file `prompts/<domain>/<group>/<name>.md`: YAML front matter between two `---`
lines, then a jinja2 body.

    ---
    version: 1
    description: One line for whoever edits the file.
    role: [system, user]
    placeholders: [question]
    ---
    @@ system
    You restate questions.
    @@ user
    {{ question }}

`role` is `system`, `user`, `block` (a text that is put inside another message) or a list of
`system`, `user` and `assistant`; a list needs one `@@ role` line in front of each part, in the same
order.
A template may ask `{% if question is latin %}`: whether a text is in Latin letters.
Every file is checked when the library is loaded: a wrong one stops the start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import yaml

from app.domain.trajectory import Message
from app.exceptions import ConfigurationError, NotFound

DEFAULT_DOMAIN = "default"
SUFFIX = ".md"

_ROLES = frozenset({"system", "user", "assistant", "block"})
_KEYS = frozenset({"version", "role", "placeholders", "description"})
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---[ \t]*\r?\n(.*)\Z", re.DOTALL)
_PART = re.compile(r"^@@ (\w+)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A filled-in prompt, ready to be sent."""

    messages: tuple[Message, ...]
    ref: str
    """Which file and version it came from, `domain/group/name@version`; kept in the episode."""

    @property
    def text(self) -> str:
        """Content of all parts; for a prompt of one part, that part."""
        return "\n".join(str(message["content"]) for message in self.messages)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One checked prompt file."""

    domain: str
    name: str
    version: int
    description: str
    placeholders: frozenset[str]
    parts: tuple[tuple[str, jinja2.Template], ...]

    @property
    def ref(self) -> str:
        return f"{self.domain}/{self.name}@{self.version}"

    def render(self, **values: Any) -> Rendered:
        """Fills the placeholders; ValueError when one is missing or unknown."""
        missing = sorted(self.placeholders - values.keys())
        extra = sorted(values.keys() - self.placeholders)
        if missing or extra:
            raise ValueError(f"prompt {self.ref}: missing values {missing}, unknown values {extra}")
        messages = tuple(
            {"role": role, "content": template.render(values).strip()}
            for role, template in self.parts
        )
        return Rendered(messages=messages, ref=self.ref)


class PromptLibrary:
    """All prompts of all domains, loaded and checked once, immutable afterwards."""

    def __init__(self, prompts: Mapping[tuple[str, str], Prompt]) -> None:
        self._prompts = dict(prompts)
        self.domains = tuple(sorted({domain for domain, _ in self._prompts}))

    @classmethod
    def bundled(cls) -> PromptLibrary:
        """The packs that ship with the project, in a checkout as well as installed."""
        return cls.load(Path(str(files("prompts"))))

    @classmethod
    def load(cls, root: Path) -> PromptLibrary:
        """Reads every pack under `root`.

        Raises ConfigurationError, one sentence that names the file, for the first fault found.
        """
        if not (root / DEFAULT_DOMAIN).is_dir():
            raise ConfigurationError(
                f"The prompt folder {root} has no pack named '{DEFAULT_DOMAIN}'; restore it or "
                "point to a folder that has one."
            )
        environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=False,
        )
        environment.tests["latin"] = is_latin
        prompts: dict[tuple[str, str], Prompt] = {}
        for path in sorted(root.glob(f"*/**/*{SUFFIX}")):
            prompt = _read(root, path, environment)
            prompts[prompt.domain, prompt.name] = prompt
        _check_packs(root, prompts)
        return cls(prompts)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted({name for _, name in self._prompts}))

    def get(self, domain: str, name: str) -> Prompt:
        """The domain's own file, else the default pack's.

        NotFound for an unknown domain; KeyError for a name no pack has (a programming error).
        """
        if domain not in self.domains:
            raise NotFound(
                f"There is no prompt domain '{domain}'; there are {', '.join(self.domains)}.",
                param="ttcl.domain",
            )
        return self._prompts.get((domain, name)) or self._prompts[DEFAULT_DOMAIN, name]


def is_latin(text: object) -> bool:
    """Whether at least half of the letters are Latin; true where there are none."""
    letters = [character for character in str(text) if character.isalpha()]
    return 2 * sum(ord(character) < 0x250 for character in letters) >= len(letters)


def _check_packs(root: Path, prompts: Mapping[tuple[str, str], Prompt]) -> None:
    """A domain may replace prompts of the default pack, with the same placeholders and parts."""
    if not any(domain == DEFAULT_DOMAIN for domain, _ in prompts):
        raise ConfigurationError(f"The prompt pack {root / DEFAULT_DOMAIN} has no {SUFFIX} files.")
    for (domain, name), prompt in prompts.items():
        base = prompts.get((DEFAULT_DOMAIN, name))
        where = root / domain / f"{name}{SUFFIX}"
        if base is None:
            raise ConfigurationError(
                f"The prompt {where} has no counterpart in the pack '{DEFAULT_DOMAIN}', so nothing "
                "would ever use it; rename or remove it."
            )
        same_parts = [role for role, _ in prompt.parts] == [role for role, _ in base.parts]
        if not same_parts or prompt.placeholders != base.placeholders:
            raise ConfigurationError(
                f"The prompt {where} must have the role and placeholders of its counterpart in the "
                f"pack '{DEFAULT_DOMAIN}': {sorted(base.placeholders)}."
            )


def _read(root: Path, path: Path, environment: jinja2.Environment) -> Prompt:
    def wrong(what: str) -> ConfigurationError:
        return ConfigurationError(f"The prompt {path} {what}.")

    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise wrong(f"can't be read as UTF-8 text: {error}") from error
    match = _FRONT_MATTER.match(source)
    if match is None:
        raise wrong("must begin with YAML front matter between two '---' lines")
    header = _header(match[1], wrong)
    parts = _parts(header["role"], match[2], wrong)

    used: set[str] = set()
    templates: list[tuple[str, jinja2.Template]] = []
    for role, body in parts:
        if not body.strip():
            raise wrong(f"has an empty {role} part; write its text")
        try:
            used |= jinja2.meta.find_undeclared_variables(environment.parse(body))
            templates.append((role, environment.from_string(body.strip())))
        except jinja2.TemplateError as error:
            raise wrong(f"is no valid jinja2 template: {error}") from error
    declared = frozenset(header["placeholders"])
    if used != declared:
        raise wrong(
            f"declares the placeholders {sorted(declared)} but uses {sorted(used)}; make them equal"
        )
    domain, *rest = path.relative_to(root).with_suffix("").parts
    return Prompt(
        domain=domain,
        name="/".join(rest),
        version=header["version"],
        description=header["description"],
        placeholders=declared,
        parts=tuple(templates),
    )


def _header(text: str, wrong: Any) -> dict[str, Any]:
    """The checked front matter; `role` becomes a list."""
    try:
        header = yaml.safe_load(text)
    except yaml.YAMLError as error:
        fault = " ".join(str(error).split())
        raise wrong(f"has front matter that is no valid YAML: {fault}") from error
    if not isinstance(header, dict):
        raise wrong(f"must have front matter with the keys {sorted(_KEYS)}")
    missing, unknown = sorted(_KEYS - header.keys()), sorted(map(str, header.keys() - _KEYS))
    if missing or unknown:
        raise wrong(f"lacks the front matter keys {missing} and has the unknown keys {unknown}")
    version, description = header["version"], header["description"]
    if type(version) is not int or version < 1:
        raise wrong("must have a version that is a whole number from 1 on")
    if not isinstance(description, str) or not description.strip():
        raise wrong("must have a description of one line")
    names = header["placeholders"]
    if not isinstance(names, list) or not all(isinstance(n, str) and n for n in names):
        raise wrong("must have placeholders that are a list of names, [] for none")
    roles = header["role"] if isinstance(header["role"], list) else [header["role"]]
    if not roles or not all(isinstance(role, str) and role in _ROLES for role in roles):
        raise wrong(f"must have a role out of {sorted(_ROLES)}")
    if len(roles) > 1 and "block" in roles:
        raise wrong("mixes the role 'block' with message roles; a block stands alone")
    return {**header, "role": roles}


def _parts(roles: list[str], body: str, wrong: Any) -> list[tuple[str, str]]:
    pieces = _PART.split(body)
    lead, marked = pieces[0], list(zip(pieces[1::2], pieces[2::2], strict=True))
    if len(roles) == 1 and not marked:
        return [(roles[0], lead)]
    if lead.strip() or [role for role, _ in marked] != roles:
        raise wrong(f"must have one '@@ role' line in front of each part, in the order {roles}")
    return marked
