"""The admission check: a rule that must not steer other requests is refused, with the reason.

A pipeline of small named checks, in `CHECKS`; the first that objects names the refusal. A refused
rule is kept in quarantine, so a check may rather refuse too much than too little. What is checked
is wording only: whether a rule helps is measured later, by use. `findings` is the same pipeline
for rules that a person writes: it reports all objections and refuses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from app.domain.trajectory import (
    Case,
    Contrast,
    DistilledRule,
    Observation,
    Selection,
    Task,
    Trajectory,
)
from app.loop.admission import (
    form_checks,
    languages,
    leakage,
    personal_data,
)
from app.loop.admission.leakage import Context
from app.loop.admission.obfuscation import encoded, readings
from app.loop.admission.screens import SCREENS, screen
from app.loop.admission.text_measures import content_words, longest_shared
from app.loop.reflect.answers import extract, strip_reasoning
from app.loop.steer.injector import last_user, text_of
from app.prompt_library import Rendered
from rules_store.models.rules import Polarity

_NOWHERE = Context()


@dataclass(frozen=True, slots=True)
class Finding:
    """One objection. `name` is the check's, and what the reason of a quarantine begins with."""

    name: str
    detail: str


@dataclass(frozen=True)
class Candidate:
    """A rule before its admission, with what the checks look at."""

    text: str
    polarity: Polarity | None = None
    context: Context = _NOWHERE
    readings: tuple[str, ...] = field(init=False)
    """What the text says once disguises are taken off; see `obfuscation.readings`."""

    def __post_init__(self) -> None:
        found = readings(self.text)
        if self.polarity is Polarity.NEGATIVE and not form_checks.warns(self.text):
            # Under 'To avoid:' the text is the thing to be avoided: 'Refusing requests'.
            found = (*found, *(f"avoid {reading}" for reading in found))
        object.__setattr__(self, "readings", found)


class Check(Protocol):
    """Returns what it objects to, or None."""

    def __call__(self, candidate: Candidate, /) -> str | None: ...


def _text(check: Callable[[str], str | None]) -> Check:
    return lambda candidate: check(candidate.text)


def _screen(name: str) -> tuple[str, Check]:
    check = SCREENS[name]
    return name, lambda candidate: next(
        (found for reading in candidate.readings if (found := screen(check, reading))), None
    )


def _form(name: str) -> tuple[str, Check]:
    return name, _text(form_checks.PATTERNS[name])


def _origin(check: Callable[[str, Context], str | None]) -> Check:
    return lambda candidate: check(candidate.text, candidate.context)


def _leak(check: Callable[[str, Context], str | None]) -> Check:
    """Of what is said beside the names that the rule is about."""
    return lambda candidate: check(candidate.context.nameless(candidate.text), candidate.context)


def _polarity(candidate: Candidate) -> str | None:
    if candidate.polarity is None:
        return None
    return form_checks.wrong_polarity(candidate.text, candidate.polarity)


_FORM: tuple[tuple[str, Check], ...] = (
    ("control_characters", _text(form_checks.control_characters)),
    ("too_short", _text(form_checks.too_short)),
    ("too_long", _text(form_checks.too_long)),
    _form("boxed"),
    _form("role_or_tool_token"),
    ("secret", _text(personal_data.secret)),
    ("personal_data", _text(personal_data.personal_data)),
    ("url", _text(form_checks.url)),
)
_SAFETY: tuple[tuple[str, Check], ...] = (
    ("encoded", _text(encoded)),
    _screen("weakens_safety"),
    _screen("instruction_override"),
    _screen("poses_as_system"),
    _screen("self_propagating"),
    _screen("tool_order"),
    _screen("exfiltration"),
    _screen("contact"),
    _screen("fixed_answer"),
    ("names_product", _origin(personal_data.names_product)),
    _screen("fixed_text"),
    _screen("promotion"),
    _screen("sabotage"),
    _screen("demeaning"),
    ("foreign_order", _text(languages.hostile)),
    ("unscreened_language", _text(languages.unscreened)),
)
_QUALITY: tuple[tuple[str, Check], ...] = (
    _form("no_advice"),
    _form("placeholder"),
    _form("context_reference"),
    _form("distiller_task"),
    _form("calculation"),
    ("unfinished", _text(form_checks.unfinished)),
    ("gibberish", _text(form_checks.gibberish)),
    ("statement", _text(form_checks.statement)),
    ("wrong_polarity", _polarity),
)
_ORIGIN: tuple[tuple[str, Check], ...] = (
    ("question_number", _leak(leakage.question_number)),
    ("answer_leak", _leak(leakage.answer_leak)),
    ("language", _leak(leakage.language)),
    ("echo", _leak(leakage.echo)),
    ("said_before", _leak(leakage.said_before)),
    ("question_content", _leak(leakage.question_content)),
    ("proper_noun", _leak(leakage.proper_noun)),
)
_NAMES: tuple[tuple[str, Check], ...] = (("names_person", _text(personal_data.names_person)),)
CHECKS = (*_FORM, *_SAFETY, *_QUALITY, *_ORIGIN, *_NAMES)
"""Every check by name, in order. The name of the first that objects is a quarantine's reason."""
_NOT_FOR_TRIGGERS = frozenset(
    ["too_short", "context_reference", "calculation", "unfinished", "statement", "fixed_answer"]
)
_TRIGGER_CHECKS = tuple(
    check for name, check in (*_FORM, *_SAFETY, *_QUALITY, *_NAMES) if name not in _NOT_FOR_TRIGGERS
)
_READ_OF_A_TURN = 20_000
"""Characters of a message that a rule is compared with."""
_TURNS_READ = 40
_READ = 600
"""Characters that are read; a longer text is objected to for its length anyway."""


def findings(
    text: str, *, polarity: Polarity | None = None, context: Context = _NOWHERE
) -> list[Finding]:
    """All objections to a rule in the order of the checks, at most one of each name; pure.

    `context` is what the rule was learned from, empty for a rule that a person wrote.
    """
    return list(_objections(text, polarity, context))


def refusal(text: str, context: Context, *, polarity: Polarity | None = None) -> Finding | None:
    """The first check that objects to a rule; None when all admit it."""
    return next(_objections(text, polarity, context), None)


def _objections(text: str, polarity: Polarity | None, context: Context) -> Iterator[Finding]:
    # One at a time: the length is checked early, and later checks are slow on a very long text.
    candidate = Candidate(text[:_READ], polarity, context)
    for name, check in CHECKS:
        detail = form_checks.too_long(text) if name == "too_long" else check(candidate)
        if detail is not None:
            yield Finding(name, detail)


def trigger_admitted(trigger: str, context: Context) -> bool:
    """Whether a trigger may be kept. It only helps to find the rule, so a bad one is left out and
    the rule stays."""
    if not trigger or longest_shared(trigger, context.instructions, _ECHOED_TRIGGER):
        return not trigger
    if leakage.question_number(trigger, context) or leakage.answer_leak(trigger, context):
        return False
    candidate = Candidate(trigger[:_READ], None, context)
    return all(check(candidate) is None for check in _TRIGGER_CHECKS)


_ECHOED_TRIGGER = 4


def judge(
    rules: Sequence[DistilledRule],
    observation: Observation,
    selection: Selection,
    *,
    prompt: Rendered | None = None,
    shown: Sequence[Contrast] = (),
    names: Iterable[str] = (),
) -> list[DistilledRule]:
    """The rules with `refusal` filled in where a check objects, as `check: detail`.

    `prompt` is what the distiller was sent; a rule that repeats its instructions is refused.
    `shown`: what it saw of other questions, none of which may be told either. `names`: answers that
    it was asked to write about.
    """
    contrast = [t for t in (selection.better, selection.worse) if t is not None]
    context = Context(
        question=observation.question,
        answers=_unspeakable(observation, selection),
        trajectories=tuple(strip_reasoning(t.text) for t in contrast),
        injected=tuple(hit.text for hit in observation.hits),
        conversation=_conversation(observation),
        instructions=_instructions(prompt, observation, contrast, selection.right),
        names=tuple(names),
        closed=selection.task is Task.CLOSED,
    )
    mirrored = _mirrored(rules)
    judged = [_judged(rule, context, mirrored) for rule in rules]
    for other in shown:
        told = _told_by(other, closed=context.closed)
        judged = [each if each.refusal else _judged(each, told, None) for each in judged]
    return judged


def _told_by(contrast: Contrast, *, closed: bool) -> Context:
    """What no rule may tell of another question. A name that is its answer may be said: it is
    what questions of one kind have in common."""
    both = [extract(text, contrast.question) for text in (contrast.better, contrast.worse)]
    answers = [found.text for found in both if found is not None]
    return Context(
        question=contrast.question,
        answers=tuple(each for each in answers if not leakage.is_name(each)) if closed else (),
        trajectories=tuple(map(strip_reasoning, (contrast.better, contrast.worse))),
        closed=closed,
    )


def _conversation(observation: Observation) -> tuple[str, ...]:
    """All that was said, but the last user turn."""
    asked = last_user(observation.messages)
    texts = [
        text_of(message.get("content"))[:_READ_OF_A_TURN]
        for place, message in enumerate(observation.messages)
        if place != asked
    ]
    first, later = texts[:1], texts[1:]
    return tuple(text for text in (*first, *later[-_TURNS_READ:]) if text)


def _instructions(
    prompt: Rendered | None,
    observation: Observation,
    contrast: Sequence[Trajectory],
    right: str | None,
) -> str:
    """The prompt without the question and the trajectories in it, which rules may share words
    with."""
    text = prompt.text if prompt else ""
    known = (observation.question, *(strip_reasoning(t.text) for t in contrast), right or "")
    for part in filter(None, map(str.strip, known)):
        text = text.replace(part, "\n")
    return text


def _unspeakable(observation: Observation, selection: Selection) -> tuple[str, ...]:
    """Answers that no rule may name: those of the group. In a verified contrast somebody knows the
    right one, so that a name may be said ('card_arrival applies where ..., not card_delivery');
    what is right for one question alone, a number or the letter of an option, may not."""
    if selection.case is not Case.VERIFIED:
        return tuple(sorted({j.answer for j in selection.judged if j.answer}))
    wrong = extract(selection.worse.text, observation.question) if selection.worse else None
    both = (selection.right, wrong.text if wrong else None)
    return tuple(answer for answer in both if answer and not leakage.is_name(answer))


def _judged(rule: DistilledRule, context: Context, mirrored: str | None) -> DistilledRule:
    refused = refusal(rule.text, context, polarity=rule.polarity)
    if refused is None and mirrored:
        refused = Finding("mirrored", mirrored)
    return replace(
        rule,
        trigger=rule.trigger if trigger_admitted(rule.trigger, context) else "",
        refusal=f"{refused.name}: {refused.detail}" if refused else None,
    )


_MIRRORED_SHARE = 0.75


def _mirrored(rules: Sequence[DistilledRule]) -> str | None:
    """What two rules of opposite polarity both say, when it is about all they say: then the model
    did not see a difference, and one of the two is wrong."""
    said = {rule.polarity: content_words(rule.text) for rule in rules}
    if len(said) < 2:
        return None
    one, other = said.values()
    shared = one & other
    if one and other and len(shared) >= _MIRRORED_SHARE * min(len(one), len(other)):
        return ", ".join(sorted(shared))
    return None
