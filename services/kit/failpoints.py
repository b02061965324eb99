"""Failpoints: named steps at which a test can pause or kill this process; unarmed, each is one dict lookup.

Only tests set `YOCASO_FAILPOINT_SOCKET`, the unix socket of their controller; without it nothing is opened. With it the
process connects when it starts, is armed before anything else runs, and takes further lines while it runs:
`arm name:hit:action,…` replaces what is armed and counts hits anew, `disarm` ends it; each is answered by `ok` or
`error: …`. When the controller goes, nothing is armed.

At its hit a failpoint sends `{"name","hit","action","pid","app"}` over a connection of its own and waits for a reply:
`stop` then continues; `kill` ends the process by SIGKILL unless the reply is `skip`.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TextIO

SOCKET_VARIABLE: Final = "YOCASO_FAILPOINT_SOCKET"
SKIP: Final = b"skip"
_CONNECT_SECONDS: Final = 5.0


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
    if (point := _armed.get(name)) is not None:
        await _hit(name, point)


def arm(points: str) -> None:
    """Arm failpoints by `name:hit:action,…` in place of those armed before; an empty text disarms all.

    Raises:
        ValueError: the text is malformed.
    """
    global _armed
    _armed = dict(_parse(point) for point in points.split(",") if point.strip())


def attach(socket_path: str) -> None:
    """Let the controller at this socket arm failpoints; without a controller there, none is armed."""
    global _socket_path
    _socket_path = socket_path
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_CONNECT_SECONDS)
        connection.connect(socket_path)
        lines = connection.makefile("rw", encoding="utf-8", newline="\n")
        _send(lines, json.dumps(_sender()))
        _obey(lines)  # what is armed at the start, before anything is hit
        connection.settimeout(None)
    except OSError:
        connection.close()
        return
    threading.Thread(
        target=_listen, args=(connection, lines), name="failpoints", daemon=True
    ).start()


def _listen(connection: socket.socket, lines: TextIO) -> None:
    with connection, contextlib.suppress(OSError, ValueError):
        while _obey(lines):
            pass
    arm("")


def _obey(lines: TextIO) -> bool:
    """Follow one line of the controller; False once it has gone."""
    line = lines.readline()
    if not line:
        return False
    verb, _, points = line.strip().partition(" ")
    try:
        if verb not in ("arm", "disarm"):
            raise ValueError(f"no such command: {verb}")
        arm(points if verb == "arm" else "")
        _send(lines, "ok")
    except ValueError as error:
        _send(lines, f"error: {error}")
    return True


def _send(lines: TextIO, line: str) -> None:
    lines.write(line + "\n")
    lines.flush()


def _sender() -> dict[str, Any]:
    return {"pid": os.getpid(), "app": os.environ.get("APP_ID", "")}


def _parse(point: str) -> tuple[str, _Armed]:
    name, hit, action = (*point.strip().split(":"), "", "")[:3]
    if not hit.isdecimal() or int(hit) < 1 or action not in list(Action):
        raise ValueError(f"{point!r} is not name:hit:stop or name:hit:kill")
    return name, _Armed(Action(action), int(hit))


async def _hit(name: str, point: _Armed) -> None:
    point.hits += 1
    if point.hits != point.at_hit:
        return
    answer = await _report(name, point)
    if point.action is Action.KILL and answer is not None and answer.strip() != SKIP:
        os.kill(os.getpid(), signal.SIGKILL)


async def _report(name: str, point: _Armed) -> bytes | None:
    """The controller's reply; None when the controller has gone."""
    try:
        reader, writer = await asyncio.open_unix_connection(_socket_path)
    except OSError:
        return None
    line = {"name": name, "hit": point.hits, "action": point.action, **_sender()}
    try:
        writer.write(json.dumps(line).encode() + b"\n")
        return await reader.readline() or None
    except OSError:
        return None
    finally:
        writer.close()


if path := os.environ.get(SOCKET_VARIABLE):
    attach(path)
