"""Answers a request according to its script."""

import asyncio
import email.utils
import time
from typing import Any

from tests.support.model_server.http import Connection
from tests.support.model_server.journal import Entry, Gates
from tests.support.model_server.script import Script
from tests.support.model_server.wire import COMMENT, DONE, Chunks, completion, error_body


class _Ended(Exception):
    """The stream ended before its script did."""


async def play(connection: Connection, script: Script, entry: Entry, gates: Gates) -> None:
    """Send the scripted answer and record its progress in the entry."""
    connection.split_bytes = script.split_bytes
    if script.first_byte_ms:
        await asyncio.sleep(script.first_byte_ms / 1000)
    if script.status != 200:
        await _refuse(connection, script, entry)
    elif script.error_body:
        await _whole(connection, entry, error_body(script, script.error_code), "error")
    elif script.raw and not (entry.stream and script.raw in ("long_line", "malformed_json")):
        await _whole(connection, entry, *_raw(script))
    elif entry.stream:
        await _Stream(connection, script, entry, gates).run()
    else:
        await _unary(connection, script, entry)


async def _refuse(connection: Connection, script: Script, entry: Entry) -> None:
    headers: dict[str, str] = {}
    if script.retry_after is not None:
        headers["retry-after"] = retry_after(script.retry_after)
    entry.end("error")
    await connection.reply(script.status, error_body(script, script.status), headers)


def retry_after(value: str | float) -> str:
    """Seconds such as `2` unchanged; `date:2` as the HTTP date in two seconds."""
    text = str(value)
    if text.startswith("date:"):
        return email.utils.formatdate(time.time() + float(text.removeprefix("date:")), usegmt=True)
    return text


def _raw(script: Script) -> tuple[bytes, str, str]:
    match script.raw:
        case "html":
            return b"<!doctype html><title>Gateway</title><h1>It works</h1>", "error", "text/html"
        case "malformed_json":
            return b'{"id":"gen-1","choices":[{"index":0,"message":', "error", "application/json"
        case "long_line":
            return b'"' + b"x" * script.raw_bytes + b'"', "error", "application/json"
        case _:
            return b"", "error", "application/json"


async def _whole(
    connection: Connection,
    entry: Entry,
    body: object,
    outcome: Any,
    content_type: str = "application/json",
) -> None:
    entry.first_byte_at = entry.last_byte_at = time.monotonic()
    entry.end(outcome)
    await connection.reply(200, body, {"content-type": content_type})


async def _unary(connection: Connection, script: Script, entry: Entry) -> None:
    pieces = script.pieces(entry.prompt)
    await asyncio.sleep((script.first_token_ms + script.delay_ms * len(pieces)) / 1000)
    entry.tokens_sent = len(pieces)
    body = completion(
        entry.number,
        entry.model,
        script,
        "".join(pieces),
        _prompt_tokens(script, entry),
        len(pieces),
    )
    await _whole(connection, entry, body, "completed")


def _prompt_tokens(script: Script, entry: Entry) -> int:
    if script.prompt_tokens is not None:
        return script.prompt_tokens
    return sum(len(str(each.get("content") or "").split()) for each in entry.messages)


class _Stream:
    """One streamed answer; each token has its due time, so a late one does not delay the next."""

    def __init__(self, connection: Connection, script: Script, entry: Entry, gates: Gates) -> None:
        self._connection = connection
        self._script = script
        self._entry = entry
        self._gates = gates
        self._chunks = Chunks(entry.number, entry.model)
        self._due = 0.0

    async def run(self) -> None:
        script, connection = self._script, self._connection
        await connection.begin_stream("text/event-stream", chunked=script.framing == "chunked")
        for _ in range(script.comments):
            await self._send(COMMENT)
        try:
            await self._tokens()
            await self._ending()
        except _Ended:
            return
        self._entry.end("completed")
        await connection.end_stream()

    async def _send(self, data: bytes) -> None:
        if self._script.crlf:
            data = data.replace(b"\n", b"\r\n")
        if self._entry.first_byte_at is None:
            self._entry.first_byte_at = time.monotonic()
        await self._connection.send(data)
        self._entry.last_byte_at = time.monotonic()

    async def _tokens(self) -> None:
        script, entry, chunks = self._script, self._entry, self._chunks
        self._due = asyncio.get_running_loop().time()
        await self._wait(script.first_token_ms)
        await self._interrupt()
        await self._send(chunks.role())
        for text in script.reasoning:
            await self._send(chunks.reasoning(text))
        for piece in script.pieces(entry.prompt):
            if script.delay_ms:
                await self._wait(script.delay_ms)
            await self._send(chunks.content(piece))
            entry.tokens_sent += 1
            await self._interrupt()
        for index, call in enumerate(script.tool_calls):
            for chunk in chunks.tool_call(index, call, script.tool_pieces):
                await self._send(chunk)
                await self._wait(script.delay_ms)

    async def _wait(self, milliseconds: float) -> None:
        self._due += milliseconds / 1000
        await asyncio.sleep(max(0.0, self._due - asyncio.get_running_loop().time()))

    async def _interrupt(self) -> None:
        """Apply the gate, error, malformed line or cut due after this many tokens."""
        sent, script = self._entry.tokens_sent, self._script
        if script.gate and script.gate_after == sent:
            await self._hold(script.gate)
        if script.error_after == sent:
            self._entry.end("error")
            await self._send(self._chunks.error(script))
            await self._connection.send(DONE if script.done else b"")
            await self._connection.end_stream()
            raise _Ended
        if script.raw == "malformed_json" and sent == script.cut_after:
            await self._send(b'data: {"id":"gen-1","choices":[{"index":0,\n\n')
        if script.raw == "long_line" and sent == script.cut_after:
            await self._send(b"data: " + b"x" * script.raw_bytes + b"\n\n")
        if script.cut and sent == script.cut_after:
            await self._cut()

    async def _hold(self, name: str) -> None:
        self._entry.waiting_at = name
        await self._gates.gate(name).wait()
        self._entry.waiting_at = None
        self._due = asyncio.get_running_loop().time()

    async def _cut(self) -> None:
        if self._script.cut == "hang":
            await asyncio.Event().wait()
        self._entry.end("cut")
        if self._script.cut == "rst":
            self._connection.reset()
        else:
            self._connection.finish()
        raise _Ended

    async def _ending(self) -> None:
        script, entry, chunks = self._script, self._entry, self._chunks
        if script.finish is not None:
            await self._send(chunks.finish(script.finish))
        if script.usage:
            await self._send(chunks.usage(_prompt_tokens(script, entry), entry.tokens_sent))
        if script.done:
            await self._send(DONE)
