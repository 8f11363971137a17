"""What `ttcl serve` says at its start, and what it says to cost."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.cli import first_screen
from app.cli.cost import cost, learning_cost
from app.settings import Settings

README = Path(__file__).parents[3] / "README.md"
UPSTREAM = {"upstream_base_url": "http://models:8000/v1"}


def settings(**given: Any) -> Settings:
    return Settings(_env_file=None, **given)


def screen(
    capsys: pytest.CaptureFixture[str], listed: tuple[str, ...] = (), **given: Any
) -> list[str]:
    url = "http://127.0.0.1:8080"
    first_screen.show(settings(**given), url, listed=listed, keyed="api_keys" in given)
    return capsys.readouterr().err.splitlines()


def asked_model(lines: list[str]) -> str:
    """Of the curl line."""
    (command,) = [line for line in lines if "/chat/completions" in line]
    words = shlex.split(command)
    return str(json.loads(words[words.index("-d") + 1])["model"])


@pytest.mark.parametrize(
    ("given", "listed", "model"),
    [
        ({}, (), "SmolLM2-135M-Instruct"),
        ({"engine_model": "/models/tiny.gguf"}, (), "tiny"),
        ({"engine": "vllm", "engine_model": "org/model"}, (), "org/model"),
        (UPSTREAM, ("qwen", "llama"), "llama"),
        (UPSTREAM, (), "MODEL"),
        ({**UPSTREAM, "upstream_model": "mine"}, ("llama",), "mine"),
    ],
)
def test_the_model_to_ask_for_is_named(
    capsys: pytest.CaptureFixture[str], given: dict[str, str], listed: tuple[str, ...], model: str
) -> None:
    assert asked_model(screen(capsys, listed, **given)) == model


def test_cost_and_switches_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    lines = screen(capsys, **UPSTREAM)
    (said,) = [line for line in lines if line.startswith("cost: ")]
    assert "one upstream call an answer" in said
    assert "adds 94 to 100 answers at most (10 are explored, 9 calls each" in said
    assert "2,000 an hour" in said
    assert any("TTCL_MODE=off" in line for line in lines)


def test_a_key_is_asked_for_where_there_are_some(capsys: pytest.CaptureFixture[str]) -> None:
    for given, needed in (({}, False), ({"api_keys": ("one",)}, True)):
        commands = [line for line in screen(capsys, **given) if "curl" in line]
        assert [("Bearer YOUR_KEY" in line) for line in commands] == [needed, needed]


def test_json_has_no_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with capture_logs() as logged:
        assert screen(capsys, log_format="json", **UPSTREAM) == []
    (line,) = logged
    assert (line["event"], line["url"]) == ("serving", "http://127.0.0.1:8080/v1")
    assert "one upstream call an answer" in line["cost"]


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("::1", "http://[::1]:1"),
        ("gateway.example", "http://gateway.example:1"),
    ],
)
def test_the_address_can_be_asked(host: str, reached: str) -> None:
    assert first_screen.address(host, 1) == reached


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"learn": False}, "one upstream call an answer; learning is off (TTCL_LEARN)"),
        ({"mode": "explore", "learn": False}, "up to 6 upstream calls an answer"),
        ({}, "adds 70 to 100 answers at most (10 are explored, 7 calls each)"),
        ({**UPSTREAM, "judge_rules": False}, "7 calls each and 0.4 trials of rules"),
        ({"learn_sample_rate": 0}, "adds 0 to 100 answers at most"),
    ],
)
def test_cost_goes_by_the_settings(given: dict[str, Any], said: str) -> None:
    assert said in cost(settings(**given))


def test_the_readme_says_the_same() -> None:
    text = README.read_text()
    told = learning_cost(settings(**UPSTREAM))
    assert f"at most {told.without_feedback:.0f} upstream calls for 100 answers" in text
    assert (
        f"{told.explored:.0f} are learned from, with {told.calls} calls and {told.trials}" in text
    )
    assert f"at most {told.lessons:.0f} upstream calls for 100 answers" in text


def test_the_readme_fits_a_page() -> None:
    assert len(README.read_text().split()) < 900
