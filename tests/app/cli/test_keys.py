"""`ttcl keys` as it is typed, beside a gateway on the same database."""

from __future__ import annotations

import json
import shutil
import stat
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli import root
from tests.app.cli.test_rules import new_database
from tests.gateway import Gateway

__all__ = ["new_database"]


@pytest.fixture
def ttcl(
    tmp_path: Path,
    new_database: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Any:
    """Runs a command; returns its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    shutil.copy(new_database, tmp_path / "data")
    monkeypatch.setenv("TTCL_DATA_DIR", str(tmp_path / "data"))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["ttcl", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            root.main()
        told = capsys.readouterr()
        code = left.value.code
        return code if isinstance(code, int) else 0, told.out, told.err

    return run


def test_the_secret_alone_is_on_standard_output(ttcl: Any) -> None:
    code, out, err = ttcl("keys", "create", "app", "--namespace", "a", "--namespace", "b")
    assert code == 0
    assert out.startswith("ttcl_")
    assert len(out.split()) == 1
    assert "key_" in err
    assert out.strip() not in err
    code, out, err = ttcl("keys", "list", "--json")
    (listed,) = [json.loads(line) for line in out.splitlines()]
    assert listed["namespaces"] == ["a", "b"]
    assert listed["permissions"] == ["chat", "learn"]
    assert "secret" not in out
    code, out, err = ttcl("keys", "list")
    assert listed["id"] in out
    assert "1 of 1" in err


def test_json_for_scripts(ttcl: Any) -> None:
    arguments = ["--namespace", "*", "--permission", "admin-read", "--requests-per-minute", "9"]
    _, out, _ = ttcl("keys", "create", "reader", *arguments, "--json")
    made = json.loads(out)
    assert made["secret"].startswith(made["shown"])
    assert (made["namespaces"], made["permissions"]) == (["*"], ["admin-read"])
    assert (made["requests_per_minute"], made["tokens_per_day"]) == (9, None)
    _, out, _ = ttcl("keys", "revoke", made["id"], "--json", "--reason", "lost")
    assert json.loads(out)["revoked_at"]
    _, out, _ = ttcl("keys", "list")
    assert "revoked" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "x", "--namespace", "no space"], "namespaces"),
        (["create", "x", "--namespace", "*", "--namespace", "a"], "alone"),
        (["create", " ", "--namespace", "a"], "name"),
        (["create", "x"], "--namespace"),
        (["create", "x", "--namespace", "a", "--permission", "root"], "root"),
        (["create", "x", "--namespace", "a", "--tokens-per-day", "0"], "--tokens-per-day"),
        (["revoke", "key_none"], "key_none"),
    ],
)
def test_what_is_wrong_is_one_message_and_exit_code_2(
    ttcl: Any, arguments: list[str], said: str
) -> None:
    code, out, err = ttcl("keys", *arguments)
    assert code == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_a_running_gateway_takes_it_up(
    ttcl: Any, gw: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = gw.app.state.ttcl.settings
    monkeypatch.setenv("TTCL_DATABASE_URL", settings.resolved_database_url)
    _, out, _ = ttcl("keys", "create", "reader", "--namespace", "*", "--permission", "admin-read")
    headers = {"Authorization": f"Bearer {out.strip()}"}
    deadline = time.monotonic() + 1.5
    while httpx.get(f"{gw.url}/admin/v1/rules", headers=headers).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_key_is_withdrawn_and_again(ttcl: Any) -> None:
    _, out, _ = ttcl("keys", "create", "app", "--namespace", "a", "--json")
    key = json.loads(out)["id"]
    for _ in range(2):
        code, out, err = ttcl("keys", "withdraw", key, "--reason", "it lied")
        assert (code, err) == (0, "")
        assert key in out
    code, out, _ = ttcl("keys", "withdraw", "environment-1", "--json")
    assert (code, json.loads(out)["counts"]) == (0, {})
    code, _, err = ttcl("keys", "withdraw", "key_nobody")
    assert code != 0
    assert "no API key" in err


def test_keys_end_and_are_rotated_the_admin_key_too(ttcl: Any, tmp_path: Path) -> None:
    wrong = ("--expires-at", "2001-01-01")
    code, _, err = ttcl("keys", "create", "kim", "--namespace", "a", *wrong)
    assert code == 2
    assert "expires_at: must be in the future" in err
    _, out, _ = ttcl("keys", "create", "kim", "--namespace", "a", "--expires-at", "2099-01-01")
    _, listed, _ = ttcl("keys", "list", "--json")
    key = json.loads(listed)
    assert key["expires_at"].startswith("2099-01-01T00:00:00")
    code, fresh, err = ttcl("keys", "rotate", key["id"])
    assert code == 0
    assert fresh.startswith("ttcl_")
    assert fresh != out
    assert "1 h beside the old" in err
    code, _, err = ttcl("keys", "rotate", "admin")
    assert code == 2
    assert "There is no admin key" in err
    file = tmp_path / "data" / "admin.key"
    file.write_text("present-key\n")
    file.chmod(0o644)
    code, fresh, _ = ttcl("keys", "rotate", "admin", "--overlap-hours", "0")
    assert code == 0
    assert file.read_text() == fresh
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    _, listed, _ = ttcl("keys", "list")
    assert "admin" in listed
    code, _, err = ttcl("keys", "revoke", "admin")
    assert code == 2
    assert "rotate it instead" in err
