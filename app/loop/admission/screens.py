"""Screens for rules that would do harm by being obeyed, and for orders about the answer itself.

They read `obfuscation.readings` of a text: lower case, look-alikes in Latin letters. What is only
harmful when it is done is let pass in a warning ('Never reveal passwords'). English only;
`languages` has the words for other languages.
"""

from __future__ import annotations

import re

from app.loop.admission.pattern_files import PatternCheck, load, quoted

SCREENS = {**load("harm"), **load("orders")}

_CLAUSE_END = re.compile(r"[.;:!?]|\b(?:but|then|and instead)\b")
_WARNING = re.compile(
    r"\b(?:never|not|don't|cannot|avoid|without|refrain from|beware of|instead of|rather than)\b"
)
_SECOND_NEGATION = re.compile(
    r"\b(?:hesitat|refus|fail|forget|stop|avoid|neglect|miss|until|unless|withh?old|declin)"
)


def screen(check: PatternCheck, reading: str) -> str | None:
    """The first words that the check objects to, in quotes."""
    for match in check.regex.finditer(reading):
        if not (check.warnings_pass and _warned(reading[: match.start()])):
            return quoted(match)
    return None


def _warned(before: str) -> bool:
    """Whether the clause that a text ends with warns of what follows; 'never hesitate to' and
    'never stop' do the opposite."""
    clause = _CLAUSE_END.split(before)[-1]
    warnings = list(_WARNING.finditer(clause))
    return bool(warnings) and not _SECOND_NEGATION.search(clause, warnings[-1].end())
