"""FAISS, and the other caches in memory of what is in SQL."""

from rules_store.index.rule_index import RuleIndex

__all__ = [
    "RuleIndex",
]
