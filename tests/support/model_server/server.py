"""The scripted model server: selects the script of a request, plays it, and records it in the journal."""

import asyncio
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.model_server.http import Connection, Request
from tests.support.model_server.journal import Gates, Journal
from tests.support.model_server.play import play
from tests.support.model_server.script import Rule, Script, directive
from tests.support.model_server.wire import model_list

DEFAULT_MODELS = ("scripted/one", "scripted/two")


class ModelServer:
    """The server in the test's event loop; `python -m tests.support.model_server` runs it as a process."""

    def __init__(
        self,
        port: int = 0,
        models: tuple[str, ...] = DEFAULT_MODELS,
        journal: Path | None = None,
    ) -> None:
        self.journal = Journal(path=journal)
        self.gates = Gates()
        self._port = port
        self._models = models
        self._rules: list[Rule] = []
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._handle, self._connections),
            "127.0.0.1",
            self._port,
            backlog=1024,
        )
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop, and close open connections."""
        if self._server:
            self._server.close()
            for connection in list(self._connections):
                connection.finish()
            await self._server.wait_closed()
        self.journal.close()

    @property
    def port(self) -> int:
        return self._port

    @property
    def origin(self) -> str:
        """The origin, for the control paths."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    def script(self, match: str = "", times: int | None = None, **behaviour: Any) -> None:
        """Install a script for requests whose last user message contains `match`; the newest applies."""
        self._rules.insert(0, Rule(Script.parse(behaviour), match, times))

    async def _handle(self, connection: Connection, request: Request) -> None:
        connection.on_lost = None
        connection.split_bytes = 0
        path = request.path.removeprefix("/api")
        try:
            if request.method == "POST" and path == "/v1/chat/completions":
                await self._complete(connection, request)
            elif request.method == "GET" and path == "/v1/models":
                await connection.reply(HTTPStatus.OK, model_list(self._models))
            else:
                await connection.reply(*self._control(request.method, path, request))
        except (ValueError, KeyError, TypeError) as error:
            await connection.reply(
                HTTPStatus.BAD_REQUEST, {"error": {"code": 400, "message": repr(error)}}
            )

    def _control(self, method: str, path: str, request: Request) -> tuple[int, Any]:
        match method, path:
            case "GET", "/__journal":
                return 200, self.journal.to_json()
            case "POST", "/__scripts":
                self._install(request.json())
            case "POST", "/__gate":
                self.gates.release(request.json()["release"])
            case "GET", "/__gate":
                waiting = [
                    entry
                    for entry in self.journal.entries
                    if entry.waiting_at and entry.outcome == "open"
                ]
                return 200, {
                    "waiting": [
                        {"name": each.waiting_at, "number": each.number} for each in waiting
                    ]
                }
            case _:
                return 404, {"error": {"code": 404, "message": "Not Found"}}
        return 200, {"ok": True}

    def _install(self, body: dict[str, Any]) -> None:
        for rule in body["scripts"]:
            self.script(rule.get("match", ""), rule.get("times"), **rule["script"])

    async def _complete(self, connection: Connection, request: Request) -> None:
        body = request.json()
        messages: list[dict[str, Any]] = body["messages"]
        said, step = _last_user_text(messages)
        steps, prompt = directive(said)
        key = (body.get("model"), said, step)
        entry = self.journal.open(
            key,
            model=body.get("model") or self._models[0],
            stream=bool(body.get("stream")),
            prompt=prompt,
            messages=messages,
            traceparent=request.headers.get("traceparent"),
            authorized="authorization" in request.headers,
            max_tokens=body.get("max_tokens"),
        )
        connection.on_lost = lambda: entry.end("client_closed")
        script = self._choose(steps, said, step).at_attempt(entry.attempt)
        await play(connection, script, entry, self.gates)

    def _choose(self, steps: list[Script] | None, said: str, step: int) -> Script:
        if steps:
            return steps[min(step, len(steps) - 1)]
        return next((rule.script for rule in self._rules if rule.take(said)), Script())


def _last_user_text(messages: list[dict[str, Any]]) -> tuple[str, int]:
    """The text of the last user message, and the number of assistant messages after it."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].get("role") == "user":
            later = sum(each.get("role") == "assistant" for each in messages[index:])
            return _text(messages[index].get("content")), later
    return "", 0


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")
