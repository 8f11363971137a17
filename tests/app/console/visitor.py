"""A browser without a screen: cookies, forms with their hidden fields, links."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, Self

import httpx

from tests.gateway import ADMIN_KEY, NO_TLS


@dataclass
class Page:
    """What a page consists of, as a browser reads it."""

    forms: dict[str, dict[str, str]] = field(default_factory=dict)
    """Fields of each form that is posted, by its action; of a second one with `#1` behind it."""
    links: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self._form: dict[str, str] | None = None
        self._area: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.page.tags.append((tag, given))
        if tag == "form" and given.get("method") == "post":
            action = given.get("action") or ""
            version = sum(key.split("#")[0] == action for key in self.page.forms)
            self._form = self.page.forms.setdefault(
                f"{action}#{version}" if version else action, {}
            )
        elif tag == "a" and given.get("href"):
            self.page.links.append(given["href"] or "")
        elif tag in ("input", "textarea") and self._form is not None and given.get("name"):
            self._form[given["name"] or ""] = given.get("value") or ""
            self._area = given["name"] if tag == "textarea" else None

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "textarea":
            self._area = None

    def handle_data(self, data: str) -> None:
        if self._area is not None and self._form is not None:
            self._form[self._area] += data
        self.page.text += data


def read(html: str) -> Page:
    reader = _Reader()
    reader.feed(html)
    reader.page.text = re.sub(r"\s+", " ", reader.page.text)
    return reader.page


class Visitor:
    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, verify=NO_TLS, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.http.close()

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.http.get(f"/console{path}", params=params or None)

    def page(self, path: str, **params: Any) -> Page:
        response = self.get(path, **params)
        assert response.status_code == 200, response.text
        return read(response.text)

    def post(self, path: str, **fields: Any) -> httpx.Response:
        return self.http.post(f"/console{path}", data=fields)

    def send(self, at: str, action: str, **fields: Any) -> httpx.Response:
        """Opens the page `at`, fills in the form that goes to `action`, and sends it."""
        form = read(self.get(at).text).forms[f"/console{action}"]
        return self.post(action, **{**form, **fields})

    def done(self, at: str, action: str, **fields: Any) -> Page:
        """As `send`, and the page that it leads to."""
        response = self.send(at, action, **fields)
        assert response.status_code == 303, read(response.text).text
        after = self.http.get(response.headers["location"])
        assert after.status_code == 200, after.text
        return read(after.text)

    def log_in(
        self,
        key: str = ADMIN_KEY,
        *,
        actor: str = "",
        after: str | None = None,
        **headers: str,
    ) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        params = None if after is None else {"next": after}
        page = self.http.get("/console/login", params=params, headers=sent)
        form = read(page.text).forms["/console/login"]
        fields = {**form, "key": key, "actor": actor}
        return self.http.post("/console/login", data=fields, headers=sent)
