"""What the pages call things: reasons, states and events in words that need no glossary."""

from __future__ import annotations

STATUSES = {
    "pending": "being answered",
    "learning": "learning from it",
    "learned": "learned from",
    "skipped": "answered",
    "failed": "learning failed",
}
"""Of an episode."""
STATES = {
    "active": "in use",
    "candidate": "on trial",
    "quarantined": "held back",
    "retired": "retired",
}
"""Of a rule or an example."""
POLARITIES = {"positive": "do", "negative": "avoid"}
MODES = {"steer": "steer", "explore": "explore"}
GIVEN = {"none": "nothing", "rules": "rules", "examples": "examples", "both": "rules and examples"}
TRUST = {
    "label": "right answer told",
    "verifier": "verified",
    "score": "scored well",
    "consensus": "answers agreed",
}
SORTS = {
    "newest": "newest first",
    "oldest": "oldest first",
    "used": "most used first",
}
LIFTS = {
    "measured": "something measured",
    "above_zero": "seems to help",
    "below_zero": "seems to harm",
}
SIGNALS = {
    "verifier": "verified answers",
    "label": "answers compared with the right one",
    "client": "scores",
    "agreement": "agreement of several answers",
}
PARTS = {
    "database": "Database",
    "index": "Search index",
    "embedder": "Embedding model",
    "upstream": "Model server",
    "worker": "Learning",
    "disk": "Disk",
}

_REASONS = {
    # Why nothing is learned from a request.
    "playground": "asked in the playground",
    "chore": "a chore of the client",
    "learning_off": "learning is off",
    "key_may_not_learn": "its key may not teach",
    "duplicate_request": "sent twice",
    "not_sampled": "not in the learned share of requests",
    "backlog_full": "too many requests wait to be learned from",
    "overloaded": "the service was busy",
    "budget_exhausted": "the learning budget of this hour is spent",
    "feedback_budget_exhausted": "the budget for lessons from feedback is spent",
    "candidates_waiting": "enough rules wait for their trial",
    "namespace_frozen": "the namespace is frozen",
    "neighbourhood_agrees": "questions like it are answered alike already",
    "feedback_teaches": "feedback teaches it instead",
    "distiller_wrote_nothing": "no rule was found in the answers",
    "answer_incomplete": "the answer was cut",
    "interrupted": "cut by a restart",
    "client_gone": "the client left",
    "gateway_stopped": "the service was stopped",
    "client_too_slow": "the client read too slowly",
    "upstream_error": "the model server failed",
    "has_tools": "it uses tools",
    "has_images": "it has images",
    "several_choices": "it asks for several answers",
    "no_question": "it has no question",
    "no_answer": "it has no answer",
    "unreadable_fields": "some of its fields can't be read",
    "stored_conversation": "its conversation is kept by the model server",
    "stored_response": "it goes on from a stored answer",
    "needs_logprobs": "it needs token probabilities",
    "background": "it runs in the background",
    "right_answer_unknown": "nobody has said what is right",
    "examples_off": "the namespace keeps no examples",
    "outdated": "said to be out of date",
    # What the answers of an exploration came to.
    "no_contrast": "the answers taught nothing",
    "unusable": "fewer than two answers could be used",
    "scattered": "every answer was different",
    "unanimous": "all answers agreed",
    "majority": "most answers agreed",
    "homogeneous": "the answers were too much alike",
    "contrasted": "the answers differed",
    "tie": "two answers were given equally often",
    # What was left out of an answer.
    "not_explored": "not explored",
    "steering_suspended": "without rules and examples: steering had been stopped",
    "store_unavailable": "the database could not be reached",
    "episode_not_recorded": "the request could not be recorded",
    "index_incomplete": "some rules or examples can't be searched yet",
    "index_failed": "the search failed",
    "embedder_not_ready": "the embedding model was not loaded yet",
    "embedder_timeout": "the embedding model was too slow",
    "embedder_failed": "the embedding model failed",
    "rules_dropped_for_context": "rules left out: the model's context is full",
    "experience_refused": "the model server refused the request with rules in it",
    "answer_not_read": "the answer was too long to be read",
    "comparison_unfinished": "the answers could not be compared in time",
    "explore_cut_short": "some answers did not come in time",
    "tutor_failed": "the question could not be reworded",
    "tutor_gave_too_few": "some rewordings changed the question and were not used",
    # Why a trajectory can't be learned from.
    "failed": "failed",
    "truncated": "cut off",
    "empty": "empty",
    "degenerate": "repeats itself",
    # Why a rule is held back.
    "too_short": "too short for advice",
    "too_long": "too long for a rule",
    "control_characters": "has hidden characters",
    "boxed": "contains an answer",
    "role_or_tool_token": "contains a marker that models take for an order",
    "secret": "contains what looks like a secret",
    "personal_data": "contains personal data",
    "url": "contains an address",
    "encoded": "contains encoded text",
    "weakens_safety": "asks for less caution",
    "instruction_override": "asks to ignore instructions",
    "poses_as_system": "poses as the system",
    "self_propagating": "asks to be passed on",
    "tool_order": "orders the use of tools",
    "exfiltration": "asks to reveal something",
    "contact": "asks to contact somebody",
    "fixed_answer": "always gives the same answer",
    "fixed_text": "always writes the same text",
    "names_product": "names a product",
    "promotion": "advertises",
    "sabotage": "would spoil answers",
    "demeaning": "demeans somebody",
    "foreign_order": "orders something in another language",
    "unscreened_language": "in a language that can't be checked",
    "no_advice": "gives no advice",
    "placeholder": "has a gap to be filled in",
    "context_reference": "speaks of this one question",
    "distiller_task": "speaks of how rules are written",
    "calculation": "is a calculation",
    "unfinished": "is cut off",
    "gibberish": "makes no sense",
    "statement": "reports instead of advising",
    "wrong_polarity": "its wording and its kind (do, avoid) don't fit",
    "question_number": "has a number of its question",
    "answer_leak": "tells the answer of its question",
    "language": "in another language than its question",
    "echo": "repeats its question",
    "said_before": "was said in the conversation",
    "question_content": "is about this one question",
    "proper_noun": "has a name of its question",
    "names_person": "names a person",
    "mirrored": "repeats what its counterpart says",
    "retired_before": "says again what was retired",
    "judged_harmful": "the model judged it harmful",
}

_EVENTS = {
    "rule.created": "rule added",
    "rule.imported": "rule imported",
    "rule.trusted": "imported rule vouched for",
    "rule.merged": "rule learned again",
    "rule.patched": "rule edited",
    "rule.retired": "rule retired",
    "rule.restored": "rule restored",
    "rule.quarantined": "rule held back",
    "rule.released": "rule released",
    "rule.rejected": "rule rejected",
    "rule.promoted": "rule passed its trial",
    "rule.demoted": "rule lost its place",
    "rule.refuted": "rule failed its trial",
    "rule.superseded": "rule replaced",
    "rule.rejudged": "rule judged anew",
    "rule.rolled_back": "rule taken back in time",
    "rules.embedded": "rules made searchable",
    "example.created": "example added",
    "example.completed": "example completed",
    "example.imported": "example imported",
    "example.merged": "example confirmed",
    "example.patched": "example edited",
    "example.retired": "example retired",
    "example.restored": "example restored",
    "example.quarantined": "example held back",
    "example.released": "example released",
    "example.settled": "conflict settled",
    "example.demoted": "example lost its place",
    "example.rejudged": "example judged anew",
    "example.rolled_back": "example taken back in time",
    "examples.embedded": "examples made searchable",
    "examples.deleted": "examples deleted",
    "episodes.expired": "old episodes deleted",
    "namespace.created": "namespace made",
    "namespace.imported": "namespace imported",
    "namespace.changed": "settings changed",
    "namespace.frozen": "namespace frozen",
    "namespace.unfrozen": "namespace unfrozen",
    "namespace.deleted": "namespace deleted",
    "namespace.rolled_back": "namespace taken back in time",
    "namespace.snapshot": "point named",
    "namespace.steering_suspended": "steering suspended",
    "namespace.steering_resumed": "steering resumed",
    "namespace.control_share": "share of the comparison group changed",
    "key.created": "key made",
    "key.patched": "key changed",
    "key.revoked": "key revoked",
    "key.rotated": "key rotated",
    "job.retried": "job tried again",
    "learning.paused": "learning paused",
    "learning.resumed": "learning resumed",
}


def words(name: str) -> str:
    """`similarity_floor` as people write it; a sentence stays as it is."""
    return name if " " in name else name.replace("_", " ").replace(":", ": ")


def because(reason: str) -> str:
    """A reason as the service keeps it (`no_contrast:unusable`, `too_long: 33 words`) in words;
    what a person wrote, and what is not known here, stays as it is."""
    name, _, detail = reason.partition(":")
    if name not in _REASONS:
        return words(reason)
    detail = detail.strip()
    if not detail:
        return _REASONS[name]
    return f"{_REASONS[name]} ({_REASONS.get(detail, words(detail))})"


def happened(kind: str) -> str:
    """An event's kind in words."""
    return _EVENTS.get(kind, words(kind.replace(".", " ")))


EVENT_GROUPS = {
    "rule.": "rules",
    "example.": "examples",
    "namespace.": "namespaces",
    "key.": "keys",
    "learning.": "learning paused or resumed",
    "job.": "jobs",
}
"""What events can be filtered by."""
