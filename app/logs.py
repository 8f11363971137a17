"""Structured logs; neither prompts nor keys go into them."""

from __future__ import annotations

import logging
import sys

import structlog

from app.settings import LogFormat

NOISY = ("httpx", "httpcore", "sentence_transformers", "aiosqlite", "alembic", "psycopg")


def configure(log_format: LogFormat, level: str) -> None:
    """One line an event, on standard error, for our own logs and for the libraries'."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
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
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    # A job that has failed is our own line; procrastinate adds a traceback of the exception that
    # tells it so.
    logging.getLogger("procrastinate").setLevel(logging.CRITICAL)
