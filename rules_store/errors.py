"""Every error the store raises on purpose. It knows no HTTP; the gateway maps them.

StoreError
├── StoreUnavailable      the database can't be used now; one sentence, nothing was changed
│   ├── DatabaseMissing   there is none, or nothing in it       (database says where)
│   ├── SchemaOutdated    it is an older version's              (found and needed are revisions)
│   ├── OlderProcesses    processes of an older version use what is to be upgraded
│   └── CopyFailed        a database can't be copied there; the sentence says what is in the way
├── UnknownNamespace      no such namespace
├── UnknownRule           no such rule, or no such version of it
├── UnknownExample        no such example
├── UnknownEpisode        no such episode
├── UnknownEvent          no such event, snapshot or moment in a namespace's history
├── UnknownJob            no such learning job
├── DuplicateNamespace    the name is taken
├── DuplicateRows         what is imported is here already
├── DuplicateSnapshot     the namespace has a snapshot of this label
├── NamespaceFrozen       its rules can't be changed now
├── InvalidSetting        a namespace can't be set up so   (field names it; also a ValueError)
├── UnknownKey            no such API key
├── FeedbackConflict      the feedback's own key was used for another one
├── DuplicateRule         the same text is there already    (rule_id names it)
├── DuplicateExample      the same question and answer are there (example_id names it)
├── VersionConflict       the rule or example changed meanwhile (current is its version)
├── PreviewOutdated       rules changed since what was to happen to them was shown (field names it)
├── InvalidTransition     the state of the rule or example doesn't allow it
├── LeaseLost             the job belongs to another worker by now
├── InvalidVector         an embedding that can't be indexed (also a ValueError)
└── InvalidCursor         not a cursor of this listing       (also a ValueError)
"""

from __future__ import annotations

from collections.abc import Sequence


class StoreError(Exception):
    """Base of the tree; `str(error)` is a sentence for people."""


class StoreUnavailable(StoreError):
    """Locked, full, damaged, unreachable or of an unknown schema."""


class DatabaseMissing(StoreUnavailable):
    def __init__(self, database: str) -> None:
        super().__init__(f"There is no database of ttcl at {database}.")
        self.database = database


class SchemaOutdated(StoreUnavailable):
    def __init__(self, database: str, found: str, needed: str) -> None:
        super().__init__(f"{database} has schema {found}; this version needs {needed}.")
        self.found = found
        self.needed = needed


class OlderProcesses(StoreUnavailable):
    def __init__(self, processes: Sequence[str]) -> None:
        """`processes`: a word or two about each."""
        super().__init__(
            "The database is older than this version, and processes of an older version use it "
            f"({', '.join(processes)}), which could not go on after an upgrade: stop them first."
        )


class CopyFailed(StoreUnavailable):
    """Nothing of the source was changed."""


class UnknownNamespace(StoreError):
    def __init__(self, name: str) -> None:
        super().__init__(f"There is no namespace {name!r}.")
        self.name = name


class UnknownRule(StoreError):
    def __init__(self, rule_id: str, version: int | None = None) -> None:
        what = f"rule {rule_id!r}" if version is None else f"version {version} of rule {rule_id!r}"
        super().__init__(f"There is no {what}.")
        self.rule_id = rule_id
        self.version = version


class UnknownExample(StoreError):
    def __init__(self, example_id: str) -> None:
        super().__init__(f"There is no example {example_id!r}.")
        self.example_id = example_id


class UnknownEpisode(StoreError):
    def __init__(self, episode_id: str) -> None:
        super().__init__(f"There is no episode {episode_id!r}.")
        self.episode_id = episode_id


class UnknownKey(StoreError):
    def __init__(self, key_id: str) -> None:
        super().__init__(f"There is no API key {key_id!r}.")
        self.key_id = key_id


class FeedbackConflict(StoreError):
    def __init__(self, key: str) -> None:
        super().__init__(f"The key {key!r} was used for another feedback on this episode.")
        self.key = key


class UnknownEvent(StoreError):
    """The sentence says what was looked for."""


class UnknownJob(StoreError):
    def __init__(self, job_id: int) -> None:
        super().__init__(f"There is no job {job_id}.")
        self.job_id = job_id


class DuplicateNamespace(StoreError):
    def __init__(self, name: str) -> None:
        super().__init__(f"There is a namespace {name!r} already.")
        self.name = name


class DuplicateRows(StoreError):
    def __init__(self, namespace: str) -> None:
        super().__init__(
            f"Rows of {namespace!r} exclude each other, or are here already, in another namespace: "
            "rules, examples and episodes keep their ids. Nothing was imported."
        )
        self.namespace = namespace


class DuplicateSnapshot(StoreError):
    def __init__(self, namespace: str, label: str) -> None:
        super().__init__(f"Namespace {namespace!r} has a snapshot {label!r} already.")
        self.label = label


class NamespaceFrozen(StoreError):
    def __init__(self, name: str) -> None:
        super().__init__(f"Namespace {name!r} is frozen; unfreeze it to change it.")
        self.name = name


class InvalidSetting(StoreError, ValueError):
    def __init__(self, field: str, what: str) -> None:
        super().__init__(f"{field}: {what}")
        self.field = field


class DuplicateRule(StoreError):
    def __init__(self, rule_id: str) -> None:
        super().__init__(f"Rule {rule_id!r} of this namespace and polarity has the same text.")
        self.rule_id = rule_id


class DuplicateExample(StoreError):
    def __init__(self, example_id: str) -> None:
        super().__init__(
            f"Example {example_id!r} of this namespace has the same question and answer."
        )
        self.example_id = example_id


class VersionConflict(StoreError):
    def __init__(self, item_id: str, expected: int, current: int, what: str = "Rule") -> None:
        """`what`: "Rule" or "Example"."""
        super().__init__(f"{what} {item_id!r} is at version {current}, not {expected}.")
        self.item_id = item_id
        self.expected = expected
        self.current = current


class PreviewOutdated(StoreError):
    def __init__(self, namespace: str, field: str = "token") -> None:
        """`field`: what stood for the preview."""
        super().__init__(
            f"Namespace {namespace!r} has changed since the preview; look again. Nothing was done."
        )
        self.namespace = namespace
        self.field = field


class InvalidTransition(StoreError):
    """The sentence says which state forbids what."""


class LeaseLost(StoreError):
    def __init__(self, job_id: int) -> None:
        super().__init__(f"The lease of job {job_id} has passed to another worker.")
        self.job_id = job_id


class InvalidVector(StoreError, ValueError):
    """NaN, infinite, zero or of a wrong dimension."""


class InvalidCursor(StoreError, ValueError):
    def __init__(self) -> None:
        super().__init__("The cursor is not one that this listing gave out.")
