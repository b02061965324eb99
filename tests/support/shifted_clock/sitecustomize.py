"""With this folder on PYTHONPATH a process reads the wall clock with the shift in the file SHIFTED_CLOCK_FILE."""

import importlib
import os
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PERIOD = 0.05
GRPC = ("grpc._cython.cygrpc", "grpc._channel", "grpc.aio._utils")
"""Modules that compute deadlines by Python's clock, for gRPC's core, which reads the clock of the machine."""


def _begin() -> Any:
    import time_machine  # on demand: most processes are never shifted

    right = SimpleNamespace(**{**vars(time), "time": time_machine.escape_hatch.time.time})
    for name in GRPC if "grpc" in sys.modules else ():
        vars(importlib.import_module(name))["time"] = right
    return time_machine.travel(datetime.now(UTC), tick=True).start()


def _follow(file: Path) -> None:
    shifted, clock = 0.0, None
    while True:
        wanted = float(file.read_text())
        if wanted != shifted:
            clock = clock or _begin()
            clock.shift(wanted - shifted)
            shifted = wanted
        time.sleep(PERIOD)


if found := os.environ.get("SHIFTED_CLOCK_FILE"):
    threading.Thread(target=_follow, args=(Path(found),), name="shifted clock", daemon=True).start()
