"""Runs every client's script against a gateway, in each mode, and prints what was seen.

    python -m tests.clients.matrix.run [--only NAME]

A script is told BASE_URL, API_KEY and MODEL, and prints a line of JSON. The exit status is 1 where
one saw anything but the right answer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.clients.matrix.model_server import MODEL, ClientsModel
from tests.gateway import CLIENT_KEY, Gateway, running_gateway

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
LM_EVAL = ROOT / ".venv-lm-eval" / "bin" / "lm_eval"
RIGHT = "84"
SECONDS = 180
MODES = ("off", "steer", "explore")


@dataclass(frozen=True)
class Client:
    name: str
    command: tuple[str, ...]
    folder: Path


def clients() -> list[Client]:
    scripts = sorted((HERE / "scripts").glob("*.py"))
    python = [
        Client(path.stem, (str(PYTHON), path.name), path.parent)
        for path in scripts
        if path.stem != "common"
    ]
    modules = sorted((HERE / "js").glob("*.mjs"))
    node = [
        Client(f"js/{path.stem}", ("node", path.name), path.parent)
        for path in modules
        if path.stem != "common"
    ]
    kinds = ("local-completions", "local-chat-completions")
    return [*python, *node, *(Client(f"lm-eval/{kind}", (kind,), HERE) for kind in kinds)]


def seen_by(client: Client, gateway: Gateway, mode: str) -> dict[str, str | None] | str:
    """What a script prints; as text, why it printed nothing."""
    if client.name.startswith("lm-eval/"):
        return _lm_eval(client.command[0], gateway, mode)
    given = {"BASE_URL": gateway.url, "API_KEY": CLIENT_KEY, "MODEL": f"{MODEL}+{mode}"}
    given |= {"NO_PROXY": "127.0.0.1", "DO_NOT_TRACK": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    try:
        done = subprocess.run(
            client.command,
            cwd=client.folder,
            env={**os.environ, **given},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode != 0:
        return done.stderr.strip()[-800:]
    seen: dict[str, str | None] = json.loads(done.stdout.strip().splitlines()[-1])
    return seen


def _lm_eval(kind: str, gateway: Gateway, mode: str) -> dict[str, str | None] | str:
    """Two questions by lm-eval; a score of 1 is the right answer."""
    if not LM_EVAL.exists():
        return "not installed (make lm-eval)"
    path = "completions" if kind == "local-completions" else "chat/completions"
    address = f"{gateway.base_url}/{path}"
    with tempfile.TemporaryDirectory() as folder:
        options = f"model={MODEL}+{mode},base_url={address},num_concurrent=1,max_retries=1"
        if kind == "local-completions":
            options += ",tokenizer_backend=None,tokenized_requests=False"
        command = [str(LM_EVAL), "run", "--model", kind, "--model_args", options, "--tasks"]
        command += [
            "ttcl_product",
            "--include_path",
            str(HERE / "lm_eval"),
            "--output_path",
            folder,
        ]
        if kind == "local-chat-completions":
            command.append("--apply_chat_template")
        given = {"OPENAI_API_KEY": CLIENT_KEY, "HF_HOME": folder, "NO_PROXY": "127.0.0.1"}
        given |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **given}, capture_output=True, text=True
        )
        if done.returncode != 0:
            return done.stderr.strip()[-800:]
        (results,) = Path(folder).glob("*/results_*.json")
        score = json.loads(results.read_text())["results"]["ttcl_product"]["exact_match,number"]
    return {"ask": RIGHT if score == 1.0 else f"score {score}", "stream": None, "tools": None}


def shown(seen: dict[str, str | None] | str) -> tuple[str, bool]:
    """A cell of the table, and whether all in it is right."""
    if isinstance(seen, str):
        return "failed", False
    right = {name: text is None or RIGHT in text for name, text in seen.items()}
    used = [name for name, text in seen.items() if text is not None]
    cell = ", ".join(name if right[name] else f"**{name}**" for name in used)
    return cell, all(right.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="Clients whose name has this in it")
    wanted = parser.parse_args().only
    failed = []
    print("| client | " + " | ".join(MODES) + " |\n|---|" + "---|" * len(MODES))
    with ClientsModel() as server, running_gateway(server, learn=False) as gateway:  # type: ignore[arg-type]
        for client in clients():
            if wanted not in client.name:
                continue
            cells = []
            for mode in MODES:
                seen = seen_by(client, gateway, mode)
                cell, right = shown(seen)
                cells.append(cell)
                if not right:
                    failed.append((client.name, mode, seen))
            print(f"| {client.name} | " + " | ".join(cells) + " |", flush=True)
    for name, mode, seen in failed:
        print(f"\n{name}, {mode}: {seen}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
