"""The first lines of the `ttcl` command, in a module of a name that other projects do not have.

`app` and `prompts` are names of many projects. Where another one's package would be imported
instead of ours, that is said in a sentence.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent
PACKAGES = ("app", "rules_store", "prompts")


def shadowed() -> str | None:
    """What hides one of our packages, and what to do about it; None where nothing does."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        found = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if found == HOME / name / "__init__.py":
            continue
        if found is None:
            return f"its package `{name}` is not beside {HOME / 'ttcl.py'}: install ttcl anew"
        advice = "run it as `ttcl`, or from another folder"
        if os.environ.get("PYTHONPATH"):
            advice = "unset PYTHONPATH for it, as in `env -u PYTHONPATH ttcl`"
        hiding = found.parent if found.name == "__init__.py" else found
        return f"{hiding} hides ttcl's own package `{name}`: {advice}"
    return None


def main() -> None:
    """Run the command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ctrl-C while modules are imported ends the process, without a traceback through them.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if (problem := shadowed()) is not None:
        sys.stderr.write(f"ttcl: {problem}\n")
        raise SystemExit(2)
    from app.cli import main as run

    run()


if __name__ == "__main__":
    main()
