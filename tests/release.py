"""`make release`: builds wheel and source archive, and tries both as somebody would who has them.

    python -m tests.release [--torch REQUIREMENT]

Each is installed into an environment of its own outside the checkout, the second on top of the
first's dependencies, and used in a folder that has a package `app` of its own: the command's
version, help and completion, a database made and read, the packaged model answering a question.
Three minutes and 2 GB of disk while it runs, most of it torch, which pip takes from its cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app import __version__
from app.engine.address import free_port

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
IN_SOURCE = ("constraints.txt", "Makefile", "docs/upgrading.md", "CHANGELOG.md", "SECURITY.md")
START_SECONDS = 300.0


def main() -> None:
    """Ends with the first thing that is not as it should be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch", default="torch", help="what to install of torch, and first")
    torch = parser.parse_args().torch
    wheel, source = build()
    with tempfile.TemporaryDirectory(prefix="ttcl-release-") as folder:
        python = environment(Path(folder) / "environment")
        pip(python, "install", torch)
        constraints = ("-c", str(ROOT / "constraints.txt"))
        pip(python, "install", *constraints, f"ttcl[local] @ {wheel.as_uri()}")
        use(python, Path(folder) / "wheel")
        pip(python, "uninstall", "--yes", "ttcl")
        pip(python, "install", "--no-deps", str(source))
        use(python, Path(folder) / "source")
    say(f"{wheel.name} and {source.name} are in {DIST}")


def build() -> tuple[Path, Path]:
    """The wheel comes out of the source archive, as an index's users build it."""
    for old in DIST.glob("ttcl-*"):
        old.unlink()
    run([sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT)], ROOT)
    (wheel,) = DIST.glob("ttcl-*.whl")
    (source,) = DIST.glob("ttcl-*.tar.gz")
    listed = run(["tar", "-tzf", str(source)], ROOT).splitlines()
    lacking = [name for name in IN_SOURCE if f"ttcl-{__version__}/{name}" not in listed]
    if lacking:
        sys.exit(f"the source archive lacks {', '.join(lacking)}")
    return wheel, source


def environment(folder: Path) -> Path:
    """A fresh one; its interpreter."""
    say(f"a fresh environment in {folder}")
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def pip(python: Path, *arguments: str) -> None:
    """Says what it does."""
    say(f"pip {' '.join(arguments)}")
    run([str(python), "-m", "pip", *arguments, "--quiet"], python.parent)


def use(python: Path, folder: Path) -> None:
    """As on a first day, in a project that has an `app` of its own."""
    say(f"using it in {folder}")
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "__init__.py").write_text("raise RuntimeError('another project')\n")
    ttcl = [str(python.parent / "ttcl")]
    run([str(python), "-m", "pip", "check"], folder)
    expect(run([*ttcl, "--version"], folder) == f"ttcl {__version__}\n", "--version")
    expect("namespaces" in run([*ttcl, "--help"], folder), "--help")
    made = run([*ttcl, "rules", "add", "shop", "positive", "Count the apples twice."], folder)
    expect("Count the apples twice." in made, "rules add")
    listed = json.loads(run([*ttcl, "rules", "list", "--json"], folder))
    expect(listed["namespace"] == "shop", "rules list")
    serve(ttcl, folder)


def serve(ttcl: Sequence[str], folder: Path) -> None:
    """The packaged model and embedder answer a question."""
    port = free_port("127.0.0.1")
    log = folder / "serve.log"
    with log.open("wb") as output:
        command = [*ttcl, "serve", "--port", str(port)]
        process = subprocess.Popen(command, cwd=folder, stderr=output, env=plain_environment())
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while ask(f"{url}/readyz").get("status") != "ready":
            alive = process.poll() is None and time.monotonic() < deadline
            expect(alive, f"serve: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.5)
        messages = [{"role": "user", "content": "Say hello."}]
        body = {"model": "SmolLM2-135M-Instruct", "messages": messages, "max_tokens": 8}
        answer = ask(f"{url}/v1/chat/completions", body)
        expect(bool(answer.get("choices")), f"the answer is {answer}")
    finally:
        process.terminate()
        process.wait(60)
    expect(process.returncode == 0, f"serve ended with {process.returncode}")


def ask(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON that came back; empty while nobody answers."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            found: dict[str, Any] = json.load(response)
            return found
    except (urllib.error.URLError, ConnectionError):
        return {}


def run(command: Sequence[str], folder: Path) -> str:
    """What it prints; ends where it fails."""
    done = subprocess.run(
        command, cwd=folder, env=plain_environment(), capture_output=True, text=True
    )
    expect(done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def plain_environment() -> dict[str, str]:
    """Without what belongs to this checkout and to the tests."""
    mine = ("TTCL_", "PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(mine)}


def expect(right: bool, what: str) -> None:
    """Ends where it is not so."""
    if not right:
        sys.exit(f"make release: {what}")


def say(text: str) -> None:
    """Progress."""
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
