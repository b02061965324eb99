"""A strict parser of server-sent events, and a client that resumes streams."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from services.contracts.events import EventType

TERMINAL: Final = frozenset(each.value for each in EventType if each.is_terminal)
RETRIED_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
FIELDS: Final = frozenset({"id", "event", "data", "retry"})


class MalformedStream(AssertionError):
    """The stream violates the format or the guarantees of the event log."""


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event of the wire."""

    data: str
    event: str = "message"
    id: str | None = None

    def json(self) -> Any:
        return json.loads(self.data)


class SseParser:
    """Parses bytes in chunks of any size; refuses invalid UTF-8 and unknown fields.

    LF, CR and CRLF end a line; a BOM may come first.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._first = True
        self._after_return = False
        self._fields: list[tuple[str, str]] = []
        self.comments = 0

    def feed(self, data: bytes) -> list[SseEvent]:
        """Add bytes and return the events that they complete."""
        self._buffer += data
        events: list[SseEvent] = []
        while (line := self._line()) is not None:
            if line:
                self._take(line)
            elif event := self._event():
                events.append(event)
        return events

    def _line(self) -> str | None:
        if self._after_return and self._buffer:
            self._buffer = self._buffer.removeprefix(b"\n")
            self._after_return = False
        ends = [at for at in (self._buffer.find(b"\n"), self._buffer.find(b"\r")) if at >= 0]
        if not ends:
            return None
        line, rest = self._buffer[: min(ends)], self._buffer[min(ends) :]
        self._after_return, self._buffer = rest[:1] == b"\r", rest[1:]
        if self._first:
            self._first, line = False, line.removeprefix(b"\xef\xbb\xbf")
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise MalformedStream(f"not UTF-8: {line!r}") from error

    def _take(self, line: str) -> None:
        if line.startswith(":"):
            self.comments += 1
            return
        name, _, value = line.partition(":")
        if name not in FIELDS:
            raise MalformedStream(f"no such field: {line!r}")
        self._fields.append((name, value.removeprefix(" ")))

    def _event(self) -> SseEvent | None:
        fields, self._fields = self._fields, []
        data = [value for name, value in fields if name == "data"]
        if not data:
            return None
        last = dict(fields)
        return SseEvent("\n".join(data), last.get("event", "message"), last.get("id"))


@dataclass(slots=True)
class Fold:
    """Folds a stream's events into the shown text, and refuses violations of its guarantees.

    Seqs are 1, 2, 3 … without a gap or a repeat; `attempt.restarted` drops the text from its `fromSeq` on; exactly one
    terminal event, the last.
    """

    seq: int = 0
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    raw: list[str] = field(default_factory=list[str])
    _parts: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    @property
    def text(self) -> str:
        """The text shown to the user."""
        return "".join(part for _, part in self._parts)

    @property
    def terminal(self) -> str | None:
        """The type of the terminal event, if it was read."""
        last = self.events[-1]["type"] if self.events else None
        return last if last in TERMINAL else None

    @property
    def restarts(self) -> int:
        """Number of `attempt.restarted` events."""
        return sum(event["type"] == "attempt.restarted" for event in self.events)

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def take(self, sent: SseEvent) -> None:
        """Add the next event."""
        event = sent.json()
        if self.terminal:
            raise MalformedStream(f"{sent.event} after {self.terminal}")
        if str(event["seq"]) != sent.id or event["type"] != sent.event:
            raise MalformedStream(f"frame and data differ: {sent}")
        if int(event["seq"]) != self.seq + 1:
            raise MalformedStream(f"seq {event['seq']} after {self.seq}")
        self.seq += 1
        self.events.append(event)
        self.raw.append(sent.data)
        if event["type"] == "text.delta":
            self._parts.append((self.seq, event["data"]["text"]))
        elif event["type"] == "attempt.restarted":
            since = int(event["data"]["fromSeq"])
            self._parts = [part for part in self._parts if part[0] < since]


class StreamClient:
    """Reads one stream to its terminal event and resumes after each cut by `Last-Event-ID`.

    With `random_cuts` it also cuts its own connection at random bytes.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        random_cuts: random.Random | None = None,
        cut_probability: float = 0.0,
        retried: frozenset[int] = RETRIED_STATUSES,
        pause: float = 0.05,
    ) -> None:
        self.fold = Fold()
        self.connections = 0
        self.failures: list[str] = []
        self._http = http
        self._url = url
        self._headers = dict(headers or {})
        self._body = body
        self._params = params
        self._random = random_cuts
        self._cut_probability = cut_probability
        self._retried = retried
        self._pause = pause

    async def run(self, timeout: float = 30.0) -> Fold:
        """Read until the terminal event; resumes after `reconnect` and connection failures."""
        try:
            async with asyncio.timeout(timeout):
                while self.fold.terminal is None:
                    await self._connect_once()
        except TimeoutError:
            seen = f"seq {self.fold.seq}, {self.connections} connections, last failures {self.failures[-3:]}"
            raise AssertionError(f"no terminal event within {timeout:g} s: {seen}") from None
        return self.fold

    async def _connect_once(self) -> None:
        self.connections += 1
        try:
            async for sent in self._events():
                if sent.event == "reconnect":
                    return
                if sent.event == "error":
                    self._note(sent)
                    return
                self.fold.take(sent)
                if self.fold.terminal:
                    return
        except (aiohttp.ClientError, OSError) as error:
            self.failures.append(repr(error))
            await asyncio.sleep(self._pause)

    def _note(self, sent: SseEvent) -> None:
        """Resume after a retryable `error` event, as after a lost connection."""
        if sent.json()["error"]["isTerminal"]:
            raise MalformedStream(f"the stream failed: {sent.data}")
        self.failures.append(sent.data)

    async def events(self) -> AsyncIterator[SseEvent]:
        """Events of one connection, starting after the last folded event; does not resume."""
        self.connections += 1
        async for sent in self._events():
            if sent.event not in ("reconnect", "error"):
                self.fold.take(sent)
            yield sent

    async def _events(self) -> AsyncIterator[SseEvent]:
        headers = {**self._headers, "accept": "text/event-stream"}
        if self.fold.seq:
            headers["last-event-id"] = str(self.fold.seq)
        method = "GET" if self._body is None else "POST"
        async with self._http.request(
            method, self._url, headers=headers, json=self._body, params=self._params
        ) as response:
            await self._require_stream(response)
            parser = SseParser()
            async for piece in response.content.iter_any():
                cut_at = self._cut_within(piece)
                for event in parser.feed(piece[:cut_at]):
                    yield event
                if cut_at is not None:
                    response.close()
                    return

    def _cut_within(self, piece: bytes) -> int | None:
        """At which byte of a piece the client cuts the connection, if it does."""
        if self._random is None or self._random.random() >= self._cut_probability:
            return None
        return self._random.randrange(len(piece) + 1)

    async def _require_stream(self, response: aiohttp.ClientResponse) -> None:
        if response.status == 200 and response.content_type == "text/event-stream":
            return
        body = await response.text()
        if response.status in self._retried:
            raise aiohttp.ClientPayloadError(f"{response.status}: {body[:200]}")
        seen = f"{response.status} {response.content_type}: {body[:500]}"
        raise MalformedStream(f"not a stream: {seen}")
