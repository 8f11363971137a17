"""docs/admin.md is one shell session; here it is run against a gateway."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.fakes import ScriptedUpstream
from tests.gateway import running_gateway

GUIDE = Path(__file__).parents[3] / "docs" / "admin.md"


def session(text: str) -> str:
    return "\n".join(re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))


def test_the_guide_works_as_it_is_written(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    data = tmp_path / ".ttcl"
    with running_gateway(upstream, data_dir=data, admin_api_key=None, api_keys=()) as gateway:
        script = session(GUIDE.read_text()).replace("http://127.0.0.1:8080", gateway.url)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "TTCL_DATA_DIR": str(data),
                "TTCL_EMBEDDING_BASE_URL": upstream.base_url,
                "TTCL_EMBEDDING_MODEL": "hash-384",
            },
            capture_output=True,
            text=True,
            timeout=400,
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "injected" in done.stdout
    assert "retired" in done.stdout
    assert "Ninety days." in done.stdout
