"""No key, header or password gets into the log, at its most talkative and whatever goes wrong."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from pathlib import Path

import httpx

from tests import postgres
from tests.compat.helpers import ask, script_majority
from tests.compat.test_concurrency import SUBJECTS, question_about, script_learning
from tests.e2e.service import service
from tests.fakes import Fault, Reply, ScriptedUpstream
from tests.gateway import ADMIN_KEY, CLIENT_KEY, NO_TLS, Gateway

WHO = {"actor": "tests", "reason": "arranged by a test"}
WRONG_KEY = "sk-wrong-0f6b1d"
SECRETS = {
    "upstream_api_key": "sk-upstream-7d1c2e",
    "embedding_api_key": "sk-embedding-55ab90",
    "api_keys": f"{CLIENT_KEY},sk-client-1c9d3f",
    "admin_api_key": ADMIN_KEY,
}
PASSWORD = "hunter2-e81f04"


async def live(gateway: Gateway, upstream: ScriptedUpstream, url: str) -> str:
    """A session of answers, refusals and outages; the secret of a key that was made in it."""
    made = gateway.admin("POST", "/keys", json={"name": "x", "namespaces": ["*"], **WHO}).json()
    space = {"namespace": "secrets"}
    for mode in ("steer", "explore", "off"):
        body = ask(mode, question_about(SUBJECTS[0]), ttcl=space)
        answer = await gateway.post(body, Authorization=f"Bearer {made['secret']}")
        assert answer.status_code == 200, answer.text
    await gateway.sse(ask("steer", ttcl=space))
    for given, status in ((WRONG_KEY, 401), (CLIENT_KEY, 200)):
        answer = await gateway.post(ask("off"), Authorization=f"Bearer {given}")
        assert answer.status_code == status
    assert (await gateway.post(b"{", Authorization=f"Bearer {CLIENT_KEY}")).status_code == 400
    for key in (WRONG_KEY, ADMIN_KEY):
        httpx.post(f"{gateway.url}/console/login", data={"key": key}, verify=NO_TLS)
        httpx.get(f"{gateway.url}/admin/v1/rules?api_key={key}", verify=NO_TLS)
    for fault in (Reply.error(500), Reply.error(401), Reply(fault=Fault.CUT, after=2)):
        upstream.reset()
        upstream.default = fault
        await gateway.sse_or_error(ask("steer", ttcl=space))
    upstream.down()
    assert (await gateway.post(ask("steer", ttcl=space))).status_code == 502
    upstream.up()
    upstream.default = Reply("Fine.")
    # The database goes away for good.
    server, name = url.rsplit("/", 1)
    server = server.replace(f"ttcl:{PASSWORD}@", "postgres@")
    await asyncio.to_thread(postgres.query, server, f"DROP DATABASE {name} WITH (FORCE)")
    deadline = time.monotonic() + 20
    while True:
        answer = await gateway.post(ask("steer", ttcl=space))
        assert answer.status_code == 200, answer.text
        if answer.json()["ttcl"]["degraded"]:
            break
        assert time.monotonic() < deadline
    assert gateway.admin("GET", "/rules").status_code == 503
    return str(made["secret"])


async def test_secrets_stay_out_of_the_log(
    tmp_path: Path, upstream: ScriptedUpstream, postgres_server: str
) -> None:
    script_learning(upstream)
    script_majority(upstream, teacher="\\boxed{9}", students="\\boxed{7}")
    settings = {
        "upstream_base_url": upstream.base_url,
        "embedding_base_url": upstream.base_url,
        "embedding_model": "hash-384",
        "students": "2",
        "log_level": "DEBUG",
        "embedding_timeout": "10",
        **SECRETS,
    }
    postgres.query(postgres_server, f"CREATE ROLE ttcl SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
    try:
        with postgres.database(postgres_server) as plain:
            url = plain.replace("postgres@", f"ttcl:{PASSWORD}@")
            with service(tmp_path, **settings, database_url=url) as (gateway, process):
                made = await live(gateway, upstream, url)
                process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(process.wait, 30) == 0
    finally:
        postgres.query(postgres_server, "DROP ROLE ttcl")
    log = (tmp_path / "serve.log").read_text()
    assert "debug" in log, "the test reads a log that says all"
    assert "database" in log, "and the outage is in it"
    keys = [key for given in SECRETS.values() for key in given.split(",")]
    for secret in (*keys, WRONG_KEY, PASSWORD, made):
        assert secret not in log, next(line for line in log.splitlines() if secret in line)
    # The example that is printed at the start has a placeholder.
    assert set(re.findall(r"Bearer (\S+)", log)) <= {"YOUR_KEY'"}
