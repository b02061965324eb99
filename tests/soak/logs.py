"""Checks the logs of the apps: an error is a bug, whatever was killed."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from services.contracts.apps import APPS
from services.kit.manifest import Language
from tests.soak.ledger import Ledger
from tests.support.platform import Platform

LAST: Final = 200
"""Characters of an error that identify its kind."""
NUMBERS: Final = re.compile(r"\d+")


def check_logs(platform: Platform, ledger: Ledger) -> None:
    """Record each kind of error in the logs of the Python apps, and count unhealthy apps."""
    for app in (app.id for app in APPS if app.language is Language.PYTHON):
        kinds = Counter(_kind(row) for row in _errors(platform.stack.log(app)))
        for kind, count in kinds.items():
            ledger.problem("an error in a log", f"{count} × {app}: {kind}")
    ledger.done["apps unhealthy"] += platform.count_unhealthy()


def _errors(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("level") in ("error", "critical"):
            yield row


def _kind(row: dict[str, Any]) -> str:
    """The end of the exception or event, with numbers masked."""
    why = str(row.get("exception") or row.get("error") or row.get("event")).strip()
    return NUMBERS.sub("<n>", why[-LAST:])
