"""Controls failpoints: processes report each hit and pause until released or killed."""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(slots=True)
class Hit:
    """A process at a failpoint; a stopped one waits for `release`."""

    name: str
    hit: int
    action: str
    pid: int
    app: str
    _writer: asyncio.StreamWriter = field(repr=False)
    released: bool = False

    async def release(self, line: str = "go") -> None:
        """Let the process continue; no error if it has died."""
        if self.released:
            return
        self.released = True
        with contextlib.suppress(OSError):
            self._writer.write(line.encode() + b"\n")
            await self._writer.drain()
        self._writer.close()


class FailpointControl:
    """Listens on a unix socket; `environment(...)` arms a process.

    A restarted process is armed again, so hits beyond `times` of a name pass without effect.
    """

    def __init__(self, path: Path, times: int = 1) -> None:
        self.hits: list[Hit] = []
        self._path = path
        self._times = times
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._accept, self._path)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server
        self._server.close()
        for hit in self.hits:
            await hit.release()
        await self._server.wait_closed()
        self._path.unlink(missing_ok=True)

    def environment(self, *points: str) -> dict[str, str]:
        """Environment variables that arm a process: `environment("turn.after_begin:1:stop")`."""
        return {"YOCASO_FAILPOINTS": ",".join(points), "YOCASO_FAILPOINT_SOCKET": str(self._path)}

    async def wait_for(self, name: str, timeout: float = 10.0) -> Hit:
        """Wait for the first hit of a failpoint; without a hit the test fails, because no fault happened."""
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self.has_hit(name))
        except TimeoutError:
            seen = [each.name for each in self.hits]
            raise AssertionError(f"no hit of {name} within {timeout:g} s; hit: {seen}") from None
        return next(each for each in self.hits if each.name == name)

    def has_hit(self, name: str) -> bool:
        """Whether a process has hit the failpoint."""
        return any(each.name == name for each in self.hits)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if not line:
            writer.close()
            return
        hit = Hit(**json.loads(line), _writer=writer)
        seen = sum(each.name == hit.name for each in self.hits)
        self.hits.append(hit)
        if seen >= self._times:
            await hit.release("skip")
        elif hit.action == "kill":
            await hit.release("kill")
        async with self._changed:
            self._changed.notify_all()
