"""Structured logs; neither prompts nor keys go into them.

Every line of a request, or of a learning job, has its `request_id`, `namespace` and `episode`:
context variables, which each task inherits from the one that began it. Errors nobody foresaw may
quote what they stumbled over, so of those only type and place are told, but for level DEBUG.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from functools import partial

import structlog
from structlog.typing import EventDict, ExcInfo, WrappedLogger

from app.domain.printable import printable
from app.exceptions import TTCLError, UpstreamError
from app.settings import LogFormat
from rules_store.errors import StoreError

NOISY = ("httpx", "httpcore", "sentence_transformers", "aiosqlite", "alembic", "psycopg")


def configure(log_format: LogFormat, level: str) -> None:
    """One line an event, on standard error, for our own logs and for the libraries'."""
    verbose = level == "DEBUG"
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        partial(_worded, verbose=verbose),
        _shown,
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if log_format is LogFormat.JSON
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.ExceptionRenderer(partial(_traceback, verbose=verbose)),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    # Of a collector that is away, one line a batch is enough.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    # A job that has failed is our own line; procrastinate adds a traceback of the exception that
    # tells it so.
    logging.getLogger("procrastinate").setLevel(logging.CRITICAL)


def describe_error(error: BaseException, *, verbose: bool = False) -> str:
    """Type and message, as far as the message is ours (or the operating system's)."""
    name = type(error).__name__
    if verbose:
        return f"{name}: {error}"
    if isinstance(error, UpstreamError):
        return f"{name}: {error.status}"
    return f"{name}: {error}" if isinstance(error, TTCLError | StoreError | OSError) else name


def _worded(_: WrappedLogger, __: str, event: EventDict, *, verbose: bool) -> EventDict:
    error = event.get("error")
    if isinstance(error, BaseException):
        event["error"] = describe_error(error, verbose=verbose)
    return event


def _shown(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """What a client or a model server wrote orders no terminal about."""
    return {
        name: printable(value) if isinstance(value, str) else value for name, value in event.items()
    }


def _traceback(exc_info: ExcInfo, *, verbose: bool) -> str:
    """From the first cause to the error itself, as Python prints it."""
    return "".join(_lines(exc_info[1], verbose, set())).rstrip()


def _lines(error: BaseException, verbose: bool, seen: set[int]) -> Iterator[str]:
    """`seen`: errors may name each other as their causes."""
    if id(error) in seen:
        return
    seen.add(id(error))
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    if cause is not None:
        yield from _lines(cause, verbose, seen)
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _lines(each, verbose, seen)
    yield from traceback.format_tb(error.__traceback__)
    yield f"{describe_error(error, verbose=verbose)}\n"
