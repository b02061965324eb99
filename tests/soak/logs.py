"""What the apps and sidecars wrote: an error is a bug, whatever was killed."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.soak.ledger import Ledger
from tests.support.platform import Platform

APPS: Final = ("auth", "llm", "workflows")
UNHEALTHY: Final = "entered un-healthy status"
LAST: Final = 200
NUMBERS: Final = re.compile(r"\d+")


def judge_logs(platform: Platform, ledger: Ledger) -> None:
    """Note each kind of error that an app logged, and count how often a sidecar gave its app up."""
    for app in APPS:
        kinds = Counter(_kind(row) for row in _errors(platform.stack.log(app)))
        for kind, count in kinds.items():
            ledger.problem("an error in a log", f"{count} × {app}: {kind}")
    for app in platform.stack.apps:
        text = platform.stack.log(f"{app}-daprd").read_text(errors="replace")
        ledger.done["apps unhealthy"] += text.count(UNHEALTHY)


def _errors(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("level") in ("error", "critical"):
            yield row


def _kind(row: dict[str, Any]) -> str:
    """The exception, else the event: one failure is logged by its route and by the server."""
    why = str(row.get("exception") or row.get("error") or row.get("event")).strip()
    return NUMBERS.sub("<n>", why[-LAST:])
