"""The face of the package: everything the gateway does with rules goes through `RuleStore`.

store = await RuleStore.open("sqlite:///PATH", embedding_model="all-MiniLM-L6-v2")
hits = store.search("default", vector, Polarity.POSITIVE, k=10)
"""

from __future__ import annotations

from rules_store.episodes import EpisodeOperations
from rules_store.feedback import FeedbackOperations
from rules_store.keys import KeyOperations
from rules_store.learning import LearningOperations
from rules_store.rules import RuleOperations


class RuleStore(
    RuleOperations, EpisodeOperations, LearningOperations, KeyOperations, FeedbackOperations
):
    """SQL is the truth; the in-memory FAISS index is a cache of it, caught up by event number.

    Methods are grouped by module: core (open, close, search, index), rules (namespaces, rules,
    stats), episodes, learning (jobs, applying, spend), keys, feedback. Every method that touches
    SQL may raise `StoreUnavailable`; nothing was changed then.
    """
