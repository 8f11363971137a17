"""What a compressed body stands for, made no further than a limit."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Protocol

from app.exceptions import InvalidRequest, PayloadTooLarge, UnsupportedEncoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MOST_ENCODINGS = 2
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def decoded(encodings: list[str], body: bytes, limit: int) -> bytes:
    """The body before these encodings, which are named in the order they were put on. Raises
    `UnsupportedEncoding`, `PayloadTooLarge` above `limit` bytes, `InvalidRequest`."""
    if len(encodings) > MOST_ENCODINGS:
        raise UnsupportedEncoding(f"Content-Encoding: at most {MOST_ENCODINGS} encodings")
    for encoding in reversed(encodings):
        body = _decoded(encoding, body, limit)
    return body


def _decoded(encoding: str, body: bytes, limit: int) -> bytes:
    if encoding not in _READERS:
        known = ", ".join(_READERS)
        raise UnsupportedEncoding(f"Content-Encoding: '{encoding[:40]}' is not one of {known}")
    made = b""
    try:
        # A body may be several of them, one behind the other.
        while body:
            reader = _READERS[encoding](body)
            made += reader.decompress(body, limit + 1 - len(made))
            if len(made) > limit:
                raise PayloadTooLarge(f"The body is larger than {limit} bytes when decompressed")
            if not reader.eof:
                raise InvalidRequest("The compressed body is cut", code="invalid_encoding")
            body = reader.unused_data
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        raise InvalidRequest(
            f"The body is not {encoding}, which Content-Encoding names", code="invalid_encoding"
        ) from error
    return made


def _gzip(body: bytes) -> _Decompressor:
    return zlib.decompressobj(_GZIP_WINDOW)


def _deflate(body: bytes) -> _Decompressor:
    """In a zlib frame, as the standard says, or bare, as some clients send it."""
    framed = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if framed else -zlib.MAX_WBITS)


def _zstd(body: bytes) -> _Decompressor:
    return zstd.ZstdDecompressor()


_READERS: dict[str, Callable[[bytes], _Decompressor]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
