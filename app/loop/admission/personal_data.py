"""What belongs to somebody: secrets, personal data and names. Reads the text as written, case and
digits included. Each check returns what it objects to, or None."""

from __future__ import annotations

import re

from app.loop.admission.leakage import Context
from app.loop.admission.pattern_files import load

_PATTERNS = load("personal_data")
_TOKEN = re.compile(r"[A-Za-z0-9+/_=.-]{10,}")


def secret(text: str) -> str | None:
    """Keys and tokens of known forms, a password with its value, and what looks made by a machine.
    The finding does not repeat a value."""
    if match := _PATTERNS["secret"].regex.search(text):
        return f"'{match[0][:6]}...'"
    for token in _TOKEN.findall(text):
        token = token.strip(".-=")
        switches = len(re.findall(r"[A-Za-z]\d|\d[A-Za-z]", token))
        if len(token) >= 10 and switches >= 3:
            return f"'{token[:4]}...'"
    return None


def personal_data(text: str) -> str | None:
    """E-mail, phone, card, account and identity numbers, and postal addresses."""
    check = _PATTERNS["personal_data"]
    found = zip(check.patterns, check.each, strict=True)
    return next((pattern.says for pattern, regex in found if regex.search(text)), None)


_PHONE = re.compile(
    r"(?<!\w)\+\d[\d\s().\u2011/-]{6,18}\d|\(\d{3}\) ?\d{3}[-.\s]\d{4}\b|\b\d{3}-\d{3}-\d{4}\b"
)
_CARD = re.compile(r"(?<![\d.,])\d(?:[ -]?\d){12,18}(?![\d.,])")
_ANY_NUMBER = frozenset(["phone or card number", "a long number"])


def personal_data_among_numbers(text: str) -> str | None:
    """As `personal_data`, for texts in which dates, amounts and coordinates are usual: of plain
    numbers, only what is written as a phone number or has the checksum of a card's."""
    check = _PATTERNS["personal_data"]
    for pattern, regex in zip(check.patterns, check.each, strict=True):
        if pattern.says not in _ANY_NUMBER and regex.search(text):
            return pattern.says
    if _PHONE.search(text):
        return "phone number"
    return "card number" if any(_checks_out(match[0]) for match in _CARD.finditer(text)) else None


def _checks_out(number: str) -> bool:
    """Luhn's checksum, which every card number has."""
    digits = [int(character) for character in number if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


_GIVEN_WORDS = """
James John Robert Michael William David Richard Joseph Thomas Charles Daniel Matthew Anthony
Steven Paul Andrew Kenneth Kevin Brian George Edward Ronald Timothy Jason Jeffrey Ryan Jacob Gary
Nicholas Eric Jonathan Stephen Larry Justin Scott Brandon Benjamin Samuel Gregory Frank Alexander
Patrick Jack Dennis Jerry Tyler Aaron Henry Peter Adam Nathan Mary Patricia Jennifer Linda
Elizabeth Barbara Susan Jessica Sarah Karen Lisa Nancy Betty Sandra Margaret Ashley Emily Kimberly
Donna Michelle Carol Amanda Melissa Deborah Stephanie Rebecca Laura Sharon Cynthia Amy Kathleen
Angela Anna Emma Nicole Helen Samantha Katherine Christine Rachel Carolyn Janet Maria Catherine
Heather Diane Olivia Julie Joyce Victoria Kelly Lauren Hans Klaus J\u00fcrgen Wolfgang Ahmed
Mohammed Muhammad Fatima Ali Omar Wei Li Yuki Hiroshi Ivan Olga Sergei Natasha Pierre Marie Jean
Carlos Jos\u00e9 Juan Pedro Luis Ana Carmen Giulia Marco Priya Raj Anita Elon Donald Vladimir
Angelina Bob Alice Tom Jim Joe Mike Steve Bill Sam Tim Kate Jane
"""
_GIVEN = frozenset(_GIVEN_WORDS.split())
_PAIR = re.compile(
    r"(?<![.!?:] )(?<!\A)\b([A-Z][a-z\u00e0-\u017e]+) ([A-Z][a-z\u00e0-\u017e]+)\b(?!')(?: (\w+))?"
)
_CONCEPT_WORDS = """
theorem theorems formula rule rules law laws method methods equation equations identity inequality
triangle series distribution coordinates numbers test tests model models algorithm scale score
scores index criteria principle process matrix lemma transform plot diagram simulation expansion
cycle syndrome disease effect constant sequence polynomial chart law's curve sort search states
kingdom union america zealand york studio code act convention ocean transformation decomposition
elimination iteration estimator interval notation reaction
"""
_CONCEPT = frozenset(_CONCEPT_WORDS.split())
_KNOWN_PAIRS = frozenset(
    ["monte carlo", "big o", "visual basic", "great britain", "north america", "south america"]
)


_PRAISED = re.compile(
    r"\b(?i:recommend|prefer|prais|promot|favou?r|endors|buy|advertis|suggest|tout|trust|praise)\w*\b"
    r"[^.A-Z]{0,30}\b([A-Z][a-z]\w*)\b(?!')(?: (\w+))?"
)


def names_product(text: str, context: Context) -> str | None:
    """Praise for something with a name that the question does not bring up."""
    for match in _PRAISED.finditer(text):
        if (match[2] or "").casefold() not in _CONCEPT and match[1] not in context.question:
            return f"'{match[1]}'"
    return None


def names_person(text: str) -> str | None:
    """A title with a name, a given name, or two capitalised words that are no known concept
    ('Newton method', 'Monte Carlo'). A surname alone passes: rules are full of named theorems."""
    if titled := _PATTERNS["names_person"](text):
        return titled
    words = list(re.finditer(r"[^\W\d_]+", text))
    for at, word in enumerate(words):
        follower = words[at + 1][0].casefold() if at + 1 < len(words) else ""
        if word[0] in _GIVEN and follower not in _CONCEPT:
            return f"'{word[0]}'"
    for match in _PAIR.finditer(text):
        pair = f"{match[1]} {match[2]}".casefold()
        follower = (match[3] or "").casefold()
        if pair not in _KNOWN_PAIRS and not {match[2].casefold(), follower} & _CONCEPT:
            return f"'{match[1]} {match[2]}'"
    return None
