"""Log events as lines that a person reads in a terminal."""

import os
from collections.abc import Mapping
from datetime import datetime
from typing import IO, Any, Final

from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.typing import EventDict, WrappedLogger

_ONLY_IN_FILES: Final = {"app", "logger", "trace_id", "traceId", "span_id"}


def wants_colours(stream: IO[str], environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour: on a terminal, unless NO_COLOR is set (no-color.org) or FORCE_COLOR decides."""
    if environ.get("NO_COLOR"):
        return False
    return bool(environ.get("FORCE_COLOR")) or is_terminal(stream, environ)


def is_terminal(stream: IO[str], environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the stream is a terminal that understands control sequences."""
    return stream.isatty() and environ.get("TERM") != "dumb"


class ConsoleFormat:
    """Renders an event as local time, level, name and fields; ids of traces are only in JSON."""

    def __init__(self, *, colours: bool) -> None:
        self._render = ConsoleRenderer(
            colors=colours,
            exception_formatter=plain_traceback,
            sort_keys=False,
            pad_event_to=0,
        )

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        shown: dict[str, Any] = {k: v for k, v in event.items() if k not in _ONLY_IN_FILES}
        shown["timestamp"] = _local_time(str(event.get("timestamp", "")))
        return self._render(logger, method, shown)


def _local_time(timestamp: str) -> str:
    try:
        return datetime.fromisoformat(timestamp).astimezone().strftime("%H:%M:%S.%f")[:-3]
    except ValueError:
        return timestamp
