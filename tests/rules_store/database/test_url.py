"""The database's URL as people write it: any password, and no word of it told."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from rules_store.database.engine import parse_url, shown
from rules_store.database.postgresql import libpq_address
from rules_store.errors import StoreUnavailable

pytestmark = pytest.mark.sqlite

ENDS = ("db", "db:5433", "10.0.0.7:5432", "[::1]:5432", "")
PASSWORDS = (
    "plain",
    "p@ss",
    "@",
    "@@/",
    "a/b#c?d",
    "p@ss/w#rd?x=1:2",
    "p@ss/w@rd",
    "me@host:5432/name",
    "100%sure@home",
    "50%41@x",
    "[::1]:5432/x@",
    "sp ace\t'\"\\$&;`",
    "Ünïcödé@",
    "://@",
)


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("end", ENDS)
def test_a_password_may_have_any_characters(password: str, end: str) -> None:
    for given in {password, quote(password, safe="")}:
        for query in ("", "?sslmode=require", "?application_name=a@b"):
            url = parse_url(f"postgresql://ttcl:{given}@{end}/store{query}")
            assert (url.username, url.password, url.database) == ("ttcl", password, "store")
            host, _, port = end.rpartition(":") if end[-4:].isdigit() else (end, "", "")
            assert (url.host or "") == host.strip("[]")
            assert str(url.port or "") == port
            assert dict(url.query) == dict(parse_query(query))
            # What libpq is told has it encoded, and what people are told not at all.
            again = parse_url(libpq_address(url))
            assert again.password == password
            assert shown(url) == f"postgresql://ttcl@{end}/store"


def parse_query(query: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in [query[1:].partition("=")] if name]


@pytest.mark.parametrize(
    ("url", "user", "password", "host", "name"),
    [
        ("postgresql:///store", None, None, None, "store"),
        ("postgresql://db/store", None, None, "db", "store"),
        ("postgresql://db:5432/store?application_name=a@b", None, None, "db", "store"),
        ("postgresql://ttcl@db/store", "ttcl", None, "db", "store"),
        ("postgresql://ttcl:@db/store", "ttcl", "", "db", "store"),
        ("postgresql+psycopg://t%40x:a%2Fb@db/store", "t@x", "a/b", "db", "store"),
        ("postgresql://ttcl:p@ss@db", "ttcl", "p@ss", "db", None),
        ("postgresql://ttcl:x@/store?host=/var/run/a@b", "ttcl", "x", None, "store"),
        (" postgresql://ttcl:x@db/store\n", "ttcl", "x", "db", "store"),
    ],
)
def test_other_urls_are_what_they_were(
    url: str, user: str | None, password: str | None, host: str | None, name: str | None
) -> None:
    read = parse_url(url)
    assert (read.username, read.password, read.host or None) == (user, password, host)
    assert (read.database or None) == name


@pytest.mark.parametrize(
    "url",
    [
        "ttcl:geheim@db/store",
        "mysql://ttcl:geheim@db/store",
        "postgresql://ttcl:geheim@db:port/store",
        "postgresql:ttcl:geheim@db/store",
        "geheim",
        "",
    ],
)
def test_what_is_no_url_is_not_repeated(url: str) -> None:
    with pytest.raises(StoreUnavailable) as refused:
        parse_url(url)
    error: BaseException | None = refused.value
    assert "geheim" not in str(error)
    assert error is not None
    assert error.__suppress_context__ or error.__context__ is None


def test_a_file_is_shown_with_its_path() -> None:
    assert shown(parse_url("sqlite:////tmp/a@b.db")) == "sqlite:////tmp/a@b.db"
