"""Prompt packs: what ships is whole, and a broken file stops the start with its own name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import ConfigurationError, NotFound
from app.prompt_library import PromptLibrary

GOOD = """---
version: 2
description: Asks.
role: [system, user]
placeholders: [question]
---
@@ system
You answer.
@@ user
{{ question }}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "default/explore/ask.md", GOOD)
    return tmp_path


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


SHIPPED = PromptLibrary.bundled()
EVERY = [(domain, name) for domain in SHIPPED.domains for name in SHIPPED.names]


@pytest.mark.parametrize(("domain", "name"), EVERY)
def test_every_shipped_prompt_renders(domain: str, name: str) -> None:
    prompt = SHIPPED.get(domain, name)
    values: dict[str, Any] = {each: [f"<{each}>"] for each in prompt.placeholders}
    if "examples" in values:
        values["examples"] = [("<examples>", "84")]
    parts = ("question", "better", "worse", "without", "answer", "before", "after")
    for each in values.keys() & {"cases", "replays"}:
        values[each] = [dict.fromkeys(parts, f"<{each}>") | {"verified": False}]
    rendered = prompt.render(**values)
    assert rendered.ref == f"{prompt.domain}/{name}@{prompt.version}"
    assert all(str(message["content"]).strip() for message in rendered.messages)
    for placeholder in prompt.placeholders - {"count"}:
        assert f"<{placeholder}>" in rendered.text
    assert not re.search(r"\{\{|\}\}|\{%|@@", rendered.text)


_GOLD = re.compile(
    r"\b(?:(?:correct|right|true|gold|reference|expected|wrong|incorrect|false) "
    r"(?:answer|solution|result|attempt)|ground[- ]truth|answer key|labels?|ROUGE|accuracy)\b",
    re.IGNORECASE,
)


KNOWING = ("reflect/distil_verified", "reflect/distil_named")
"""Of a contrast whose right answer somebody has said."""


@pytest.mark.parametrize(("domain", "name"), EVERY)
def test_no_prompt_claims_to_know_the_truth_or_names_a_metric(domain: str, name: str) -> None:
    prompt = SHIPPED.get(domain, name)
    text = prompt.render(**dict.fromkeys(prompt.placeholders, "")).text
    assert (_GOLD.search(text) is not None) == (name in KNOWING)


@pytest.mark.parametrize("domain", sorted({*SHIPPED.domains} - {"plain"}))
@pytest.mark.parametrize("kind", ["closed", "auto"])
def test_a_box_is_asked_for_with_its_backslash(domain: str, kind: str) -> None:
    text = SHIPPED.get(domain, f"explore/answer_{kind}").render().text
    assert text.count("\\boxed{") == text.count("boxed") == 1


@pytest.mark.parametrize("kind", ["closed", "auto"])
def test_a_plain_answer_is_asked_for_alone(kind: str) -> None:
    text = SHIPPED.get("plain", f"explore/answer_{kind}").render().text
    assert "answer alone" in text
    assert "boxed" not in text


@pytest.mark.parametrize("domain", SHIPPED.domains)
def test_an_open_task_is_asked_for_no_box(domain: str) -> None:
    assert "boxed" not in SHIPPED.get(domain, "explore/answer_open").render().text


@pytest.mark.parametrize("domain", SHIPPED.domains)
def test_only_the_prompts_for_a_contrast_see_a_worse_answer(domain: str) -> None:
    assert "worse" in SHIPPED.get(domain, "reflect/distil_closed").placeholders
    assert "worse" in SHIPPED.get(domain, "reflect/distil_open").placeholders
    agree = SHIPPED.get(domain, "reflect/distil_agree")
    assert agree.placeholders == {"question", "better"}
    assert "negative" not in agree.render(question="", better="").text


def test_a_domain_falls_back_on_the_default_pack_prompt_by_prompt(root: Path) -> None:
    write(root, "default/explore/other.md", GOOD)
    write(root, "physics/explore/ask.md", GOOD.replace("You answer.", "You are a physicist."))
    library = PromptLibrary.load(root)
    assert library.domains == ("default", "physics")
    assert library.get("physics", "explore/ask").domain == "physics"
    assert library.get("physics", "explore/other").domain == "default"
    with pytest.raises(NotFound, match="cooking"):
        library.get("cooking", "explore/ask")
    with pytest.raises(KeyError):
        library.get("physics", "explore/nowhere")


def test_parts_become_messages_and_values_are_taken_as_they_are(root: Path) -> None:
    prompt = PromptLibrary.load(root).get("default", "explore/ask")
    value = "{{ evil }} {% raw %} <b> & \\frac{1}{2} @@ system"
    rendered = prompt.render(question=value)
    assert rendered.messages == (
        {"role": "system", "content": "You answer."},
        {"role": "user", "content": value},
    )
    assert rendered.ref == "default/explore/ask@2"


BROKEN = {
    "no front matter": ("Just a text.", "front matter"),
    "front matter left open": ("---\nversion: 1\nYou answer.", "front matter"),
    "front matter that is no YAML": (GOOD.replace("version: 2", "version: [2"), "YAML"),
    "front matter that is a list": ("---\n- 1\n---\nText", "front matter"),
    "a missing key": (GOOD.replace("description: Asks.\n", ""), "description"),
    "an unknown key": (GOOD.replace("version: 2", "version: 2\ntemperature: 1"), "temperature"),
    "a version that is no number": (GOOD.replace("version: 2", "version: two"), "version"),
    "version 0": (GOOD.replace("version: 2", "version: 0"), "version"),
    "an empty description": (GOOD.replace("Asks.", "''"), "description"),
    "placeholders that are no list": (GOOD.replace("[question]", "question"), "placeholders"),
    "an unused placeholder": (GOOD.replace("[question]", "[question, extra]"), "extra"),
    "an undeclared placeholder": (GOOD.replace("{{ question }}", "{{ question }} {{ x }}"), "x"),
    "an empty part": (GOOD.replace("You answer.\n", ""), "empty system part"),
    "an unknown role": (GOOD.replace("[system, user]", "[system, robot]"), "role"),
    "no role": (GOOD.replace("[system, user]", "[]"), "role"),
    "a block among messages": (GOOD.replace("[system, user]", "[block, user]"), "block"),
    "parts in another order": (GOOD.replace("[system, user]", "[user, system]"), "order"),
    "a part too few": (GOOD.replace("@@ user\n", ""), "@@ role"),
    "text in front of the parts": (GOOD.replace("@@ system", "Hello\n@@ system"), "@@ role"),
    "jinja that does not parse": (GOOD.replace("{{ question }}", "{{ question "), "jinja2"),
}


@pytest.mark.parametrize(("text", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_prompt_stops_the_start(root: Path, text: str, says: str) -> None:
    path = write(root, "default/explore/broken.md", text)
    with pytest.raises(ConfigurationError) as caught:
        PromptLibrary.load(root)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_a_prompt_that_is_no_text(root: Path) -> None:
    path = root / "default/explore/broken.md"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=re.escape(str(path))):
        PromptLibrary.load(root)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("physics/explore/lost.md", GOOD),
        (
            "physics/explore/ask.md",
            GOOD.replace("[question]", "[q]").replace("{{ question }}", "{{ q }}"),
        ),
        (
            "physics/explore/ask.md",
            GOOD.replace("[system, user]", "user").replace("@@ system\nYou answer.\n", ""),
        ),
    ],
    ids=["no counterpart", "other placeholders", "other parts"],
)
def test_a_domain_must_fit_the_default_pack(root: Path, name: str, text: str) -> None:
    path = write(root, name, text)
    with pytest.raises(ConfigurationError, match=re.escape(str(path))):
        PromptLibrary.load(root)


def test_no_default_pack(tmp_path: Path) -> None:
    write(tmp_path, "physics/explore/ask.md", GOOD)
    with pytest.raises(ConfigurationError, match=re.escape(str(tmp_path))):
        PromptLibrary.load(tmp_path)
    (tmp_path / "default").mkdir()
    with pytest.raises(ConfigurationError, match=re.escape(str(tmp_path / "default"))):
        PromptLibrary.load(tmp_path)


@pytest.mark.parametrize("values", [{}, {"question": "?", "answer": "!"}, {"answer": "!"}])
def test_render_takes_exactly_the_placeholders(root: Path, values: dict[str, str]) -> None:
    prompt = PromptLibrary.load(root).get("default", "explore/ask")
    with pytest.raises(ValueError, match="default/explore/ask@2"):
        prompt.render(**values)
