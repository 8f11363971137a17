"""Settings: what is wrong stops the start with one sentence that names it; docs/settings.md names
all."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.domain.trajectory import Mode
from app.exceptions import ConfigurationError
from app.settings import SETTINGS, Policy, Settings, is_loopback, load_settings

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "docs" / "settings.md"


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without settings, in a folder without a `.env` file."""
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def refusal(env_file: Path | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env_file)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 250
    return message


def test_nothing_set_is_a_good_start(env: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.mode) == ("127.0.0.1", 8080, Mode.STEER)
    assert settings.resolved_database_url.startswith("sqlite+aiosqlite:///")
    assert settings.resolved_database_url.endswith(".ttcl/ttcl.db")


def test_the_environment_beats_the_file(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TTCL_PORT=1\nTTCL_STUDENTS=2\n# a comment\n\nOTHER=x\n")
    env.setenv("TTCL_PORT", "9")
    settings = load_settings()
    assert (settings.port, settings.students) == (9, 2)


def test_knobs_go_by_their_flat_names(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TTCL_HOLD_OUT_RATE=0.2\nTTCL_PROBATION=7\nTTCL_ABSTENTION=\n")
    env.setenv("TTCL_HOLD_OUT_RATE", "0.3")
    env.setenv("TTCL_EARLY_STOP", "")
    settings = load_settings(utility_weight=2)
    knobs = settings.experiment
    assert (knobs.hold_out_rate, knobs.probation, knobs.abstention) == (0.3, 7, True)
    assert (knobs.utility_weight, knobs.early_stop) == (2, None)
    changed = settings.changed(policy=Policy.PAPER, early_stop=True)
    assert (changed.policy, changed.stops_early) == (Policy.PAPER, True)
    assert changed.flat() == settings.flat() | {"policy": "paper", "early_stop": True}
    env.setenv("TTCL_EXPERIMENT", "{}")
    assert refusal().startswith("TTCL_EXPERIMENT in ")


def test_an_empty_value_is_an_unset_one(env: pytest.MonkeyPatch) -> None:
    env.setenv("TTCL_PORT", "")
    env.setenv("TTCL_UPSTREAM_BASE_URL", "")
    settings = load_settings()
    assert (settings.port, settings.upstream_base_url) == (8080, None)


@pytest.mark.parametrize("name", ["TTCL_PROT", "ttcl_prot", "TTCL_", "TTCL_TTCL_PORT"])
def test_an_unknown_variable_is_refused(env: pytest.MonkeyPatch, name: str) -> None:
    env.setenv(name, "1")
    message = refusal()
    assert name in message
    assert "the environment" in message


def test_an_unknown_line_of_the_file_is_refused(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    file.write_text("TTCL_STUDENT=3\n")
    message = refusal(file)
    assert "TTCL_STUDENT in" in message
    assert "my.env" in message


@pytest.mark.parametrize("line", ["TTCL_PORT", "just words", "TTCL_PORT 80", "TTCL_HOST='open"])
def test_a_broken_line_of_the_file_is_refused(
    env: pytest.MonkeyPatch, tmp_path: Path, line: str
) -> None:
    file = tmp_path / ".env"
    file.write_text(f"TTCL_MODE=off\n{line}\n")
    message = refusal(file)
    assert "line 2" in message
    assert ("TTCL_" in line) == (re.split("[ =]", line)[0] in message)
    assert "NAME=VALUE" in message


def test_a_broken_line_may_hold_a_secret(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("TTCL_ADMIN_API_KEY='geheim\n")
    assert "geheim" not in refusal(file)


def test_a_folder_is_no_file(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert ".env" in refusal(tmp_path / ".env")


def test_a_file_that_is_no_text_is_refused(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"TTCL_PORT=\xff\xfe\x00")
    assert ".env" in refusal(file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("PORT", "-1"),
        ("WORKERS", "0"),
        ("WORKERS", "2"),
        ("MODE", "fast"),
        ("NAMESPACE", "no/slash"),
        ("NAMESPACE", "x" * 65),
        ("UPSTREAM_BASE_URL", "localhost:8000"),
        ("UPSTREAM_BASE_URL", "ftp://host"),
        ("EMBEDDING_BASE_URL", "host"),
        ("UPSTREAM_TIMEOUT", "0"),
        ("UPSTREAM_TIMEOUT", "nan"),
        ("EXPLORE_TIMEOUT", "-1"),
        ("STUDENTS", "0"),
        ("STUDENTS", "17"),
        ("STUDENT_TOP_P", "0"),
        ("LEARN", "perhaps"),
        ("LEARN_SAMPLE_RATE", "1.5"),
        ("LEARN_CONCURRENCY", "0"),
        ("DISTILLER_BASE_URL", "http://large:8000"),
        ("DISTILLER_API_KEY", "k"),
        ("DISTILLER_TIMEOUT", "0"),
        ("DISTILLER_VARIANT", "best"),
        ("DISTILLER_MODEL", "large"),
        ("SIMILARITY_FLOOR", "2"),
        ("MERGE_THRESHOLD", "0"),
        ("MAX_POSITIVE", "31"),
        ("CAPACITY", "0"),
        ("PRUNING", "random"),
        ("POLICY", "strict"),
        ("ENGINE", "torch"),
        ("MAX_BODY_BYTES", "1"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
        ("JOB_LEASE", "0"),
    ],
)
def test_a_wrong_value_is_named(env: pytest.MonkeyPatch, name: str, value: str) -> None:
    env.setenv(f"TTCL_{name}", value)
    assert refusal().startswith(f"TTCL_{name}: ")


def test_a_wrong_secret_is_not_repeated(env: pytest.MonkeyPatch) -> None:
    env.setenv("TTCL_UPSTREAM_BASE_URL", "user:geheim@host")
    assert "geheim" not in refusal()
    env.delenv("TTCL_UPSTREAM_BASE_URL")
    settings = Settings(
        _env_file=None,
        upstream_api_key="geheim",
        api_keys=("geheim",),
        database_url="postgresql://ttcl:geheim@db/ttcl",
    )
    assert "geheim" not in repr(settings)
    assert "geheim" not in repr(settings.flat())


@pytest.mark.parametrize("keys", ["", ",", " , "])
def test_keys_that_are_none_are_none(env: pytest.MonkeyPatch, keys: str) -> None:
    env.setenv("TTCL_API_KEYS", keys)
    assert load_settings().api_keys == ()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
        ("", False),
    ],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_keys_are_a_list_with_commas(env: pytest.MonkeyPatch) -> None:
    env.setenv("TTCL_API_KEYS", " a, b ,,c")
    assert [key.get_secret_value() for key in load_settings().api_keys] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/", "http://h:8000/v1"),
        ("http://h:8000/v1", "http://h:8000/v1"),
        ("https://h/api/v1/", "https://h/api/v1"),
    ],
)
def test_a_base_url_ends_in_v1(env: pytest.MonkeyPatch, given: str, normal: str) -> None:
    env.setenv("TTCL_UPSTREAM_BASE_URL", given)
    assert load_settings().upstream_base_url == normal


@pytest.mark.parametrize(("given", "stops"), [(None, False), (True, True), (False, False)])
def test_the_paper_policy_cancels_nothing_unless_told_to(given: bool | None, stops: bool) -> None:
    settings = Settings(_env_file=None, early_stop=given, policy=Policy.PAPER)
    assert settings.stops_early is stops


def test_settings_that_were_read_can_not_change() -> None:
    settings = Settings(_env_file=None)
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


# -- the tables of docs/settings.md ----------------------------------------------------------------


def _shown(value: Any) -> str:
    """A default as the table shows it."""
    if value is None or value == ():
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value.value if isinstance(value, Enum) else value)


def test_the_tables_describe_every_setting_and_no_other() -> None:
    rows = re.findall(r"^\| `TTCL_(\w+)` \| (.*?) \| (.*?) \|$", TABLES.read_text(), re.MULTILINE)
    described = {name: (default, description) for name, default, description in rows}
    assert len(described) == len(rows), "a setting is described twice"
    fields = {
        name.upper(): (_shown(field.default), field.description) for name, field in SETTINGS.items()
    }
    assert described == fields


def test_every_setting_is_read_somewhere() -> None:
    """A setting that nothing reads is a defect."""
    source = "\n".join(
        path.read_text()
        for path in sorted((ROOT / "app").rglob("*.py"))
        if path.name != "settings.py"
    )
    indirect = {
        "database_url": "resolved_database_url",
        "early_stop": "stops_early",
        "adaptive_effort": "adapts",
        "policy": "resolved_policy",
    }
    unread = [
        name for name in SETTINGS if not re.search(rf"\.{indirect.get(name, name)}\b", source)
    ]
    assert unread == []
