"""The face of the package: everything the gateway does with rules goes through `RuleStore`.

store = await RuleStore.open("sqlite:///PATH", embedding_model="all-MiniLM-L6-v2")
hits = store.search("default", vector, Polarity.POSITIVE, k=10)
"""

from __future__ import annotations

from rules_store.operations.curation import CurationOperations
from rules_store.operations.episodes import EpisodeOperations, RetentionOperations
from rules_store.operations.exchange import ExchangeOperations
from rules_store.operations.feedback import FeedbackOperations
from rules_store.operations.history import HistoryOperations, UsageQueries
from rules_store.operations.jobs import JobControl
from rules_store.operations.keys import KeyOperations
from rules_store.operations.learning import LearningOperations
from rules_store.operations.maintenance import Watching
from rules_store.operations.namespaces import ArchiveOperations, NamespaceOperations
from rules_store.operations.rollback import RollbackOperations
from rules_store.operations.rules import RuleOperations
from rules_store.operations.trials import TrialOperations


class RuleStore(
    RuleOperations,
    CurationOperations,
    ExchangeOperations,
    EpisodeOperations,
    LearningOperations,
    KeyOperations,
    FeedbackOperations,
    TrialOperations,
    NamespaceOperations,
    RollbackOperations,
    HistoryOperations,
    JobControl,
    RetentionOperations,
    ArchiveOperations,
    UsageQueries,
    Watching,
):
    """SQL is the truth; the in-memory FAISS index is a cache of it, caught up by event number.

    Methods are grouped by module: core (open, close, search, index), rules (with stats), curation
    (prune, merge), exchange (export, import, nearest), episodes, learning (jobs, applying, spend),
    credit (outcomes, what rules are worth), trials, keys, feedback, namespaces, rollback, history
    (events, snapshots, curve), job_control,
    retention, archive (all of a namespace). Every method that touches SQL may raise
    `StoreUnavailable`; nothing was changed then.
    """
