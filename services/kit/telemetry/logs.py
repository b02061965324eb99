"""Structured logs on stdout without secrets: JSON lines with trace ids, readable lines on a developer's terminal."""

import json
import logging
import os
import sys
from typing import Any, Final

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from services.kit.settings import Environment
from services.kit.telemetry.console_format import ConsoleFormat, is_terminal, wants_colours
from services.kit.telemetry.redaction import Redactor, known_secrets
from services.kit.telemetry.tracing import is_tracing

LEVEL_VARIABLE: Final = "YOCASO_LOG_LEVEL"
VERBOSE_LOGGERS: Final = (
    "aiohttp",
    "asyncio",
    "durabletask",
    "grpc",
    "httpcore2",
    "httpx2",
    "openai",
    "uvicorn.access",
)
"""Libraries that log each request at INFO; enabled at DEBUG only."""


def configure_logs(app_id: str) -> None:
    """Route structlog, the standard library and uvicorn to stdout; the level is YOCASO_LOG_LEVEL, else INFO."""
    level = _level(os.environ.get(LEVEL_VARIABLE, "INFO"))
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _AppName(app_id),
        _add_trace,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        Redactor(known_secrets(os.environ)),
    ]
    renderer = _renderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_stdout_logger,
        cache_logger_on_first_use=True,
    )
    _route_standard_library(level, shared, renderer)


def _level(name: str) -> int:
    level = logging.getLevelNamesMapping().get(name.upper())
    if level is None:
        raise ValueError(f"{LEVEL_VARIABLE}: {name!r} is not a log level")
    return level


def _renderer() -> Processor:
    in_production = os.environ.get("YOCASO_ENV") == Environment.PRODUCTION
    if is_terminal(sys.stdout) and not in_production:
        return ConsoleFormat(colours=wants_colours(sys.stdout))
    return structlog.processors.JSONRenderer(serializer=_dumps)


def _dumps(value: Any, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str, separators=(",", ":"))


def _route_standard_library(level: int, shared: list[Processor], renderer: Processor) -> None:
    handler = logging.StreamHandler(_Stdout())
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[remove, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(
            logging.NOTSET if level <= logging.DEBUG else logging.WARNING
        )


class _AppName:
    def __init__(self, app_id: str) -> None:
        self._app_id = app_id

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["app"] = self._app_id
        return event


def _add_trace(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if is_tracing():
        found = trace.get_current_span().get_span_context()
        if found.is_valid:
            event["trace_id"] = trace.format_trace_id(found.trace_id)
            event["span_id"] = trace.format_span_id(found.span_id)
    return event


class _Stdout:
    """Writes to the current `sys.stdout`, each line by one write, so that lines of two threads do not mix."""

    def msg(self, message: str) -> None:
        sys.stdout.write(message + "\n")
        sys.stdout.flush()

    def write(self, text: str) -> None:
        sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()

    log = debug = info = warn = warning = error = critical = exception = failure = fatal = msg


def _stdout_logger(*_: Any) -> _Stdout:
    return _Stdout()
