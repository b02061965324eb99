"""Failpoints: named steps at which a test can pause or kill this process; unarmed, each is one dict lookup.

`YOCASO_FAILPOINTS="name:hit:action,…"` arms them; `YOCASO_FAILPOINT_SOCKET` is the unix socket of the test controller.
At its hit a failpoint writes `{"name","hit","action","pid","app"}` as one line and waits for a reply line: `stop` then
continues; `kill` ends the process by SIGKILL unless the reply is `skip`. A restarted process is armed again, so
without `skip` it would be killed at every start.
"""

import asyncio
import json
import os
import re
import signal
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

ARMING_VARIABLE: Final = "YOCASO_FAILPOINTS"
SOCKET_VARIABLE: Final = "YOCASO_FAILPOINT_SOCKET"
SKIP: Final = b"skip"

_CALL: Final = re.compile(r'\bfailpoint\(\s*"([^"]+)"')
_SOURCES: Final = ("services", "workflows")


class Action(StrEnum):
    """What an armed failpoint does."""

    STOP = "stop"
    KILL = "kill"


@dataclass(slots=True)
class _Armed:
    action: Action
    at_hit: int
    hits: int = 0


_armed: dict[str, _Armed] = {}
_socket_path: str | None = None


async def failpoint(name: str) -> None:
    """A step at which a test can stop this task; other tasks of the process continue."""
    if name in _armed:
        await _hit(name, _armed[name])


def arm(points: str, socket_path: str | None) -> None:
    """Arm failpoints by `name:hit:action,…`; an empty text disarms all.

    Raises:
        ValueError: the text is malformed, or names an unknown failpoint.
    """
    global _socket_path
    chosen = dict(_parse(point) for point in points.split(",") if point.strip())
    if unknown := chosen.keys() - (declared() if chosen else set[str]()):
        raise ValueError(f"{ARMING_VARIABLE}: unknown failpoint {', '.join(sorted(unknown))}")
    _armed.clear()
    _armed.update(chosen)
    _socket_path = socket_path


def declared() -> set[str]:
    """All failpoint names, read from the source files."""
    root = Path(__file__).parents[2]
    files = (file for folder in _SOURCES for file in (root / folder).rglob("*.py"))
    return {name for file in files for name in _CALL.findall(file.read_text())}


def _parse(point: str) -> tuple[str, _Armed]:
    name, hit, action = (*point.strip().split(":"), "", "")[:3]
    if not hit.isdecimal() or int(hit) < 1 or action not in list(Action):
        raise ValueError(f"{ARMING_VARIABLE}: {point!r} is not name:hit:stop or name:hit:kill")
    return name, _Armed(Action(action), int(hit))


async def _hit(name: str, point: _Armed) -> None:
    point.hits += 1
    if point.hits != point.at_hit:
        return
    answer = await _report(name, point) if _socket_path else b""
    if point.action is Action.KILL and answer is not None and answer.strip() != SKIP:
        os.kill(os.getpid(), signal.SIGKILL)


async def _report(name: str, point: _Armed) -> bytes | None:
    """The controller's reply; None when the controller has gone."""
    try:
        reader, writer = await asyncio.open_unix_connection(_socket_path)
    except OSError:
        return None
    line = {
        "name": name,
        "hit": point.hits,
        "action": point.action,
        "pid": os.getpid(),
        "app": os.environ.get("APP_ID", ""),
    }
    try:
        writer.write(json.dumps(line).encode() + b"\n")
        return await reader.readline()
    except OSError:
        return None
    finally:
        writer.close()


if points := os.environ.get(ARMING_VARIABLE):
    arm(points, os.environ.get(SOCKET_VARIABLE))
