"""The log lines of processes for the console: from JSON in files to lines that a person reads."""

import json
import logging
import os
from typing import Any, Final, cast

from services.kit.telemetry.console_format import ConsoleFormat
from services.kit.telemetry.logs import LEVEL_VARIABLE

_SYNONYMS: Final = {"msg": "event", "message": "event", "time": "timestamp"}
"""Field names of Go's slog, and those of structlog."""


class LineFormat:
    """Makes a log line readable."""

    def __init__(self, *, colours: bool) -> None:
        self._format = ConsoleFormat(colours=colours)
        self._all = os.environ.get(LEVEL_VARIABLE, "").upper() == "DEBUG"

    def readable(self, line: str) -> str | None:
        """The line for the console; None for what is only in files: messages of libraries below WARNING."""
        event = _event(line)
        if event is None:
            return line
        if not self._all and "logger" in event and _level(event) < logging.WARNING:
            return None
        return self._format(None, "", event)


def _event(line: str) -> dict[str, Any] | None:
    """The event of a JSON line; None for other text, such as a traceback."""
    try:
        value = json.loads(line) if line.startswith("{") else None
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    fields = cast(dict[str, Any], value)
    event = {_SYNONYMS.get(name, name): field for name, field in fields.items()}
    if "event" not in event:
        return None
    event["level"] = str(event.get("level", "info")).lower()
    return event


def _level(event: dict[str, Any]) -> int:
    return logging.getLevelNamesMapping().get(event["level"].upper(), logging.INFO)
