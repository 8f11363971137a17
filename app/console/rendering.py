"""Templates to pages, each with the headers that keep a page from doing what it should not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import jinja2
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import Markup

from app import __version__
from app.console import words as wording
from app.console.diff import compare
from app.console.sessions import Notice, Session
from app.console.words import because, happened, words
from rules_store.policy.lift import Tally

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Pages:
    """Renders `templates/`; every value is escaped, whatever it is."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("app.console"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            ago=self._ago,
            count=count,
            percent=percent,
            words=words,
            because=because,
            happened=happened,
            query=query,
            seconds=seconds,
            share=share,
        )
        self._environment.globals.update(
            version=__version__,
            compare=compare,
            rules_and_examples=rules_and_examples,
            said=wording,
            is_here=is_here,
        )

    def render(
        self,
        template: str,
        session: Session | None,
        *,
        status: int = 200,
        notice: Notice | None = None,
        **context: Any,
    ) -> HTMLResponse:
        text = self._environment.get_template(template).render(
            **{"origin": "", "session": session, "notice": notice, **context}
        )
        return HTMLResponse(text, status_code=status, headers=HEADERS)

    def _ago(self, moment: datetime | str | None) -> Markup | str:
        """A moment in words, the exact one behind it."""
        if moment is None:
            return "never"
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment)
        exact = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return Markup('<time datetime="{}" title="{}">{}</time>').format(
            moment.isoformat(), exact, distance((self._clock() - moment).total_seconds(), moment)
        )


def is_here(path: str, places: list[str]) -> bool:
    """Whether a page is one of these places, or below one of them."""
    below = (place for place in places if place != "/console")
    return path in places or any(path.startswith(f"{place}/") for place in below)


def redirect(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=303, headers=HEADERS)


def distance(seconds: float, moment: datetime) -> str:
    """`5 minutes ago`; after a week the day."""
    if seconds < 60:
        return "just now"
    for unit, size, most in (("minute", 60, 60), ("hour", 3600, 24), ("day", 86400, 7)):
        number = int(seconds // size)
        if number < most:
            return f"{number} {unit}{'' if number == 1 else 's'} ago"
    return f"{moment.day} {moment:%b %Y}"


def count(number: float | None) -> str:
    """Thousands parted, as in 12,345; a dash where nothing is known."""
    if number is None:
        return "\N{EN DASH}"
    return f"{number:,}" if isinstance(number, int) else f"{number:,.2f}"


def rules_and_examples(rules: int, examples: int) -> str:
    """`2 rules and 1 example`; without those of which there are none."""
    counted = ((rules, "rule"), (examples, "example"))
    said = [f"{count(n)} {what}{'' if n == 1 else 's'}" for n, what in counted if n]
    return " and ".join(said) or "nothing"


def percent(share: float | None) -> str:
    return "\N{EN DASH}" if share is None else f"{100 * share:.0f} %"


def seconds(milliseconds: float | None) -> str:
    """`820 ms`, `1.4 s`; a dash where nobody knows."""
    if milliseconds is None:
        return "\N{EN DASH}"
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def share(tally: Tally) -> float | None:
    """Of the outcomes that there were, those that were right; None where there was none."""
    return tally.hits / tally.size if tally.size else None


def query(values: dict[str, Any], **changed: Any) -> str:
    """A query string of what is set."""
    merged = {**values, **changed}
    return urlencode({key: value for key, value in merged.items() if value not in (None, "")})
