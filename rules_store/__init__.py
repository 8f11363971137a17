"""The rule store: SQL as the truth, FAISS as its cache. Imports nothing from `app`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rules_store.store import RuleStore

__all__ = ["RuleStore"]


def __getattr__(name: str) -> Any:
    # SQLAlchemy and FAISS are loaded when somebody opens a store, not with its values and errors.
    if name == "RuleStore":
        from rules_store.store import RuleStore

        return RuleStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
