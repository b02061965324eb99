"""A TCP proxy that cuts connections after given numbers of response bytes."""

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from services.cli.stack.ports import LOOPBACK

CHUNK: Final = 65_536


class CuttingProxy:
    """Forwards to a local port; the n-th connection ends after the n-th number of bytes, later ones are not cut."""

    def __init__(self, target: int, cuts: Iterable[int]) -> None:
        self._target = target
        self._waiting = list(cuts)
        self._server: asyncio.Server | None = None
        self.done: list[int] = []
        """The cuts made."""

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.sockets[0].getsockname()[1]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut = self._waiting.pop(0) if self._waiting else None
        upstream_reader, upstream = await asyncio.open_connection(LOOPBACK, self._target)
        request = asyncio.create_task(_copy(reader, upstream, None))
        if await _copy(upstream_reader, writer, cut) and cut is not None:
            self.done.append(cut)
        request.cancel()
        upstream.close()


async def _copy(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, limit: int | None
) -> bool:
    """Copy until the end of the source or the limit, then close the target; whether the limit was reached."""
    left = limit
    try:
        while data := await source.read(CHUNK if left is None else min(CHUNK, left)):
            target.write(data)
            await target.drain()
            if left is not None and (left := left - len(data)) == 0:
                return True
    except OSError:
        pass
    finally:
        target.close()
    return False
