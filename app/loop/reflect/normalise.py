"""Reads an extracted answer as what it plainly is: a number, words, JSON, or else mathematics.

Numbers are exact fractions, never floats, so 205 is not 204 and 0.333 is not 1/3.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from app.loop.reflect.answers import strip_delimiters
from app.loop.reflect.number_words import in_digits

LONGEST_MATH = 400
"""Characters; a longer answer is compared as text only."""
_LONGEST_NUMBER = 100
_LARGEST_EXPONENT = 400


@dataclass(frozen=True, slots=True)
class Number:
    value: Fraction
    unit: str | None
    """A measuring unit in its short form; None for none and for words such as 'eggs'."""


@dataclass(frozen=True, slots=True)
class Words:
    """Text that is compared as written: words, canonical JSON, anything too long."""

    text: str


@dataclass(frozen=True, slots=True)
class Formula:
    """LaTeX or plain mathematics for math-verify."""

    text: str


Reading = Number | Words | Formula


_UNITS = {
    name: short
    for short, names in {
        "%": r"% \% percent percentage pct prozent pourcent pourcents procent procento porcento",
        "°": r"° ^\circ ^{\circ} \circ degree degrees deg \degree",
        "$": "$ us$ dollar dollars usd",
        "€": "€ euro euros eur",
        "£": "£ pound pounds gbp",
        "¥": "¥ yen jpy",
        "CN¥": "cn¥ yuan renminbi rmb cny",
        "₹": "₹ rs rs. rupee rupees inr",
        "Fr": "chf franken sfr",
        "A$": "a$ aud",
        "C$": "c$ cad",
        "¢": "cent cents",
        "m": "m meter meters metre metres",
        "km": "km kilometer kilometers kilometre kilometres",
        "cm": "cm centimeter centimeters centimetre centimetres",
        "mm": "mm millimeter millimeters millimetre millimetres",
        "mi": "mi mile miles",
        "ft": "ft foot feet",
        "in": "inch inches",
        "yd": "yd yard yards",
        "kg": "kg kilogram kilograms",
        "g": "g gram grams",
        "mg": "mg milligram milligrams",
        "lb": "lb lbs",
        "oz": "oz ounce ounces",
        "l": "l liter liters litre litres",
        "ml": "ml milliliter milliliters millilitre millilitres",
        "s": "s sec secs second seconds",
        "min": "min mins minute minutes",
        "h": "h hr hrs hour hours",
        "d": "day days",
        "wk": "week weeks",
        "mo": "month months",
        "yr": "yr year years",
        "K": "kelvin kelvins",
        "J": "joule joules",
        "W": "watt watts",
        "N": "newton newtons",
        "Hz": "hz hertz",
    }.items()
    for name in names.split()
}

_PER_CENT = frozenset({"per cent", "pour cent", "por ciento", "por cento", "per cento"})
_PERCENT_NAMES = (
    "percent per.cent percentage pct prozent pour.?cent pourcentage por.ciento por.cento "
    "porcentaje porcentagem percentuale per.cento procent yüzde"
)
_PERCENT_ASKED = re.compile(
    rf"%|\b(?:{'|'.join(_PERCENT_NAMES.split())})|百分|процент", re.IGNORECASE
)


def asks_for_percent(question: str) -> bool:
    """Whether a plain number is to be read as per cent."""
    return _PERCENT_ASKED.search(question) is not None


def same_number(one: Number, other: Number, *, percent: bool = False) -> bool:
    """Whether two numbers are one answer. A unit that one of them leaves out is the question's.

    Per cent and no unit: 50 % is 50 where the question asks for per cent (`percent`), and where
    that is not known, as no share is more than 1; but 0.5 % is not 0.5, which is a share of its
    own. That 50 % is one half is arithmetic for graders, not what a question asks.
    """
    if "%" not in (one.unit, other.unit) or one.unit == other.unit:
        return one.value == other.value and (
            one.unit == other.unit or None in (one.unit, other.unit)
        )
    if one.unit is not None and other.unit is not None:
        return False
    return one.value == other.value and (percent or abs(one.value) > 1 or not one.value)


_TEXT_COMMAND = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}"
)
_SPACING = re.compile(r"(?<!\\)\\[,!;: ]|\\q?quad\b|~|(?<=\d)\{,\}(?=\d)")
# Spaces and digits are taken whole (`*+`): side by side they would be divided in every way.
_DECIMAL = r"(?:\d{1,3}(?:,\d{3})++(?:\.\d++)?|\d++(?:\.\d*+)?|\.\d++)"
_TEN = r"10\s*+\^\s*+(?:\{\s*+[+-]?\d++\s*+\}|[+-]?\d++)"
_POWER = rf"(?:[eE][+-]?\d++|\s*+(?:\\times|\\cdot|\*|x)\s*+{_TEN})"
_FRACTION = (
    r"\\[dt]?frac\s*+(?:\{\s*+(?P<n1>-?\d++)\s*+\}\s*+\{\s*+(?P<d1>-?\d++)\s*+\}"
    r"|(?P<n2>\d)\s*+(?P<d2>\d))"
)
_MONEY = (
    r"(?:US|AU?|CA?|NZ|HK)?\\?\$|CN¥|[€£¥₹]|"
    r"(?:USD|EUR|GBP|JPY|CNY|RMB|INR|CHF|CAD|AUD|Rs\.?)(?![^\W\d_])"
)
_NUMBER = re.compile(
    rf"(?<!\s)(?P<sign>[-+]?)\s*+(?P<money>{_MONEY})?\s*+(?P<sign2>[-+]?)\s*+(?:"
    rf"(?:(?P<whole>\d++)\s*+)?{_FRACTION}"
    rf"|(?P<mixed>\d++)\s++(?P<n3>\d++)\s*+/\s*+(?P<d3>\d++)"
    rf"|(?P<n4>{_DECIMAL})\s*+/\s*+(?P<d4>{_DECIMAL})"
    rf"|(?P<decimal>{_DECIMAL})(?P<power>{_POWER})?"
    rf"|(?P<ten>{_TEN})"
    r")(?P<rest>.*)",
    re.IGNORECASE,
)
_REST = re.compile(
    r"(?:\s*+(?P<glued>%|\\%|°|\^\\circ|\^\{\\circ\}|\\degree))?\s*+(?P<words>[^\W\d_][\w\s,'^/.-]*+)?"
)
_IN_BASE = re.compile(r"(?<![0-9A-Fa-f])([0-9A-Fa-f]++)_\{?(\d{1,2})\}?")
_LETTER = re.compile(r"\(?\[?([A-Za-z])\]?\)?[.:]?")


_SIGNS = str.maketrans(
    {
        "²": "^2",
        "³": "^3",
        "√": "\\sqrt ",
        "π": "\\pi ",
        "∞": "\\infty ",
        "≤": "\\le ",
        "≥": "\\ge ",
        "\N{MULTIPLICATION SIGN}": "\\times ",
        "·": "\\cdot ",
        "\N{UNION}": "\\cup ",
        "÷": "/",
        "\N{MINUS SIGN}": "-",
        "\N{EN DASH}": "-",
        "\N{FRACTION SLASH}": "/",
        "½": " 1/2",
        "¼": " 1/4",
        "¾": " 3/4",
        "⅓": " 1/3",
        "⅔": " 2/3",
    }
)
_FUNCTION = re.compile(r"(?<![\\A-Za-z])(sqrt|pi|sin|cos|tan|arcsin|arccos|arctan|log|ln|exp)\b")
_AND = re.compile(
    r"(?:,|(?<![\s,]))\s*+(?:\\text\{\s*+(?:and|or)\s*+\}|(?<=\s)(?:and|or)(?=\s))\s*+"
)


def read(answer: str) -> Reading:
    """What `answer` plainly is. Never raises; anything odd becomes `Words`."""
    text = strip_delimiters(
        unicodedata.normalize("NFKC", answer.translate(_SIGNS)).translate(_SIGNS)
    )
    text = _SPACING.sub(lambda match: " " if match[0][-1] in " ~d" else "", text)
    text = text.replace("\\left", "").replace("\\right", "").replace("\\displaystyle", "")
    text = _assigned(" ".join(text.split()))
    if len(text) > LONGEST_MATH or text.startswith(('{"', "[{")):
        return Words(text)
    if (letter := _LETTER.fullmatch(text)) is not None:
        return Words(letter[1].casefold())
    if (based := _IN_BASE.fullmatch(text)) is not None:
        return Words(f"{based[1].casefold()} base {based[2]}")
    if (number := _number(text)) is not None:
        return number
    if (digits := in_digits(_TEXT_COMMAND.sub(r" \1 ", text))) is not None:
        return _number(digits) or Words(_words(text))
    plain = _TEXT_COMMAND.sub(r" \1 ", text)
    return Formula(_latex(text)) if _mathematical(plain) else Words(_words(plain))


def _latex(text: str) -> str:
    """Plain notation (`sqrt(3)`, `2*x**2`, `1 and 2`) in LaTeX."""
    text = _AND.sub(", ", text).replace("**", "^").replace("*", " \\cdot ")
    text = _FUNCTION.sub(lambda match: "\\" + match[1], text)
    return re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)


_UNKNOWN = re.compile(r"\A(?:\\?[A-Za-z]+|\\text\s*\{[^{}]*\})(?:_\w|_\{\w+\}|\(\w\))?\s*=\s*")


def _assigned(text: str) -> str:
    """`x = 5` is 5: the name of the unknown belongs to the question."""
    if text.count("=") != 1:
        return text
    return _UNKNOWN.sub("", text) or text


def _number(text: str) -> Number | None:
    bare = _TEXT_COMMAND.sub(r" \1", text).strip()
    match = _NUMBER.fullmatch(bare)
    if match is None or len(match[0]) - len(match["rest"]) > _LONGEST_NUMBER:
        return None
    rest = _REST.fullmatch(match["rest"])
    if rest is None or (match["sign"] and match["sign2"]):
        return None
    value, words = _value(match), (rest["words"] or "").strip()
    if value is None:
        return None
    # "2x" and "5i" are products; "5 m" and "5\text{ m}" carry a unit.
    glued = words and match["rest"][:1].isalnum() and bare == text
    if glued and words.casefold() not in _UNITS:
        return None
    if len(words) == 1 and words.casefold() not in _UNITS:
        return None
    if re.search(r"\d", words) and "^" not in words:
        return None
    sign = -1 if "-" in (match["sign"], match["sign2"]) else 1
    return Number(sign * value, _unit(match["money"], rest["glued"], words))


def _unit(money: str | None, glued: str | None, words: str) -> str | None:
    """By the sign in front of a number, the one behind it, or the words behind it."""
    named = words.casefold().split()
    if " ".join(named[:2]) in _PER_CENT:
        return "%"
    symbol = glued or (money or "").replace("\\", "") or (named[0] if named else "")
    return _UNITS.get(symbol.casefold())


def _value(match: re.Match[str]) -> Fraction | None:
    pieces = match.groupdict()
    try:
        if pieces["decimal"]:
            return _fraction(pieces["decimal"]) * _power(pieces["power"])
        if pieces["ten"]:
            return _power(pieces["ten"])
        top = pieces["n1"] or pieces["n2"] or pieces["n3"] or pieces["n4"]
        bottom = pieces["d1"] or pieces["d2"] or pieces["d3"] or pieces["d4"]
        whole = Fraction(pieces["whole"] or pieces["mixed"] or 0)
        return whole + _fraction(top) / _fraction(bottom)
    except (ValueError, ZeroDivisionError):
        return None


def _fraction(text: str) -> Fraction:
    return Fraction(text.replace(",", "").rstrip("."))


def _power(text: str | None) -> Fraction:
    if not text:
        return Fraction(1)
    exponent = int(re.findall(r"[+-]?\d+", text)[-1])
    if abs(exponent) > _LARGEST_EXPONENT:
        raise ValueError("exponent too large to be compared exactly")
    return Fraction(10) ** exponent


_OPERATORS = re.compile(
    r"[\\^_+*/=<>|]|\d|[(\[{][^,\n(\[{]{0,200}+,[^\n)\]}]{0,200}+[)\]}]|(?<=\w) ?- ?(?=[\w(])"
)
_LONG_WORD = re.compile(r"(?<![\\A-Za-z])[^\W\d_]{4,}")


def _mathematical(text: str) -> bool:
    """Whether math-verify may have something to say; two long words make it prose."""
    if len(_LONG_WORD.findall(text)) >= 2 and "\\" not in text:
        return False
    if re.search(r"\b(?:pi|sqrt)\b", text):
        return True
    if re.fullmatch(r"[^\W\d_]{2,}(?:[\s'-][^\W\d_]{2,})*", text):
        return False
    return _OPERATORS.search(text) is not None


def _words(text: str) -> str:
    folded = re.sub(r"[^\w\s%+\-/.]|_", " ", text.casefold().replace("'", ""))
    words = " ".join(folded.replace("-", " ").split()).strip(". ")
    return re.sub(r"\A(?:the|an?) (?=\w)", "", words) or text.casefold()
