"""The `ttcl` command: one module for each group of verbs, mounted in `root`."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command. Nothing is imported before."""
    from app.cli.root import main as run

    run()
