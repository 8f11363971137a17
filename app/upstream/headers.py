"""Which headers go on from the client to the model server, and from there back to the client."""

from __future__ import annotations

from collections.abc import Iterable

REQUEST_ID = "x-request-id"
OWN_REQUEST_ID = "x-ttcl-request-id"
"""Ours, where the model server's answer has a request id of its own."""
TRACE_CONTEXT = ("traceparent", "tracestate")
KEY_HEADERS = ("x-api-key", "api-key")
"""Where a key may be, beside `Authorization`."""

_OWN = "x-ttcl-"
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NOT_SENT = _HOP_BY_HOP | {
    # Keys and cookies are for the gateway, not for what is behind it.
    "authorization",
    "cookie",
    *KEY_HEADERS,
    # Said anew for the request that is made.
    "host",
    "content-length",
    "content-encoding",
    "accept-encoding",
    "expect",
    REQUEST_ID,
    # The gateway itself says which pages of a browser may ask it (TTCL_CORS_ORIGINS).
    "origin",
}
_NOT_RETURNED = _HOP_BY_HOP | {
    # Of the server that answers, or of its domain: that is the gateway.
    "date",
    "server",
    "set-cookie",
    "alt-svc",
    "strict-transport-security",
}
_OF_THE_BODY = frozenset({"content-length", "content-encoding", "content-md5", "digest", "etag"})


def to_upstream(
    headers: Iterable[tuple[str, str]], request_id: str, *, traced: bool
) -> dict[str, str]:
    """The client's own headers (names in lower case) that go on, and the request's id. `traced`:
    there are spans of ours between the client's and the upstream's, so that its trace context is
    not sent."""
    known = list(headers)
    dropped = _connection_named(value for name, value in known if name == "connection")
    sent: dict[str, str] = {}
    for name, value in known:
        if name in _NOT_SENT or name in dropped or name.startswith((_OWN, "access-control-")):
            continue
        if traced and name in TRACE_CONTEXT:
            continue
        sent[name] = f"{sent[name]}, {_text(value)}" if name in sent else _text(value)
    return {**sent, "X-Request-ID": request_id}


def to_client(
    headers: Iterable[tuple[str, str]], *, whole: bool, own_id: bool = True
) -> list[tuple[str, str]]:
    """The model server's headers (names in lower case) that go back. `whole`: the body goes back
    with them, byte for byte as it was sent, so that what they say of it holds. `own_id`: so does
    the id that it gave the request."""
    known = list(headers)
    dropped = _connection_named(value for name, value in known if name == "connection")
    return [
        (name, value)
        for name, value in known
        if name not in _NOT_RETURNED
        and name not in dropped
        and not name.startswith((_OWN, "access-control-"))
        and (whole or name not in _OF_THE_BODY)
        and (own_id or name != REQUEST_ID)
    ]


def _connection_named(values: Iterable[str]) -> set[str]:
    return {name.strip().lower() for value in values for name in value.split(",")}


def _text(value: str) -> str:
    """A header's bytes, which came as Latin-1, as the text that makes the same bytes in UTF-8,
    where there is one."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value
