"""The whole platform for tests: a `Stack` of its own, a scripted model, and clients that go through the edge."""

import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import aiohttp

from services.cli.edge import Running
from services.cli.stack import Stack
from services.cli.tokens import issue_token
from services.contracts.auth.authorization import AUTHORIZATION_SERVICE
from services.contracts.llm.conversations import CONVERSATION_SERVICE
from services.kit.contract import RpcService
from tests.support.wait import wait_until

ROOT = Path(__file__).parents[2]
START_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the edge said."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def code(self) -> str | None:
        """The code of an RpcError."""
        return self.body.get("error", {}).get("code") if isinstance(self.body, dict) else None


@dataclass
class Client:
    """A user of the platform."""

    url: str
    token: str
    session: aiohttp.ClientSession
    defaults: dict[str, str] = field(default_factory=dict)

    def headers(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The headers of a call."""
        return {"authorization": f"Bearer {self.token}", **self.defaults, **(extra or {})}

    def path(self, method: str) -> str:
        """The URL of a conversation method."""
        return self.url_of(CONVERSATION_SERVICE, method)

    def url_of(self, service: RpcService, method: str) -> str:
        """The edge's URL of a method."""
        return self.url + service[method].edge_path

    async def call(
        self, method: str, headers: Mapping[str, str] | None = None, /, **body: Any
    ) -> Answer:
        """Call a unary method of the conversation service; the answer, whatever it is."""
        return await self.call_of(CONVERSATION_SERVICE, method, headers, **body)

    async def must(
        self, method: str, headers: Mapping[str, str] | None = None, /, **body: Any
    ) -> Any:
        """Call a unary method that has to succeed; its response."""
        answer = await self.call(method, headers, **body)
        assert answer.status == 200, answer
        return answer.body

    async def call_of(
        self,
        service: RpcService,
        method: str,
        headers: Mapping[str, str] | None = None,
        /,
        **body: Any,
    ) -> Answer:
        """Call a unary method of any service; the answer, whatever it is."""
        url = self.url_of(service, method)
        async with self.session.post(url, json=body, headers=self.headers(headers)) as reply:
            text = await reply.text()
            return Answer(reply.status, json.loads(text) if text else None, reply.headers)

    async def must_of(
        self,
        service: RpcService,
        method: str,
        headers: Mapping[str, str] | None = None,
        /,
        **body: Any,
    ) -> Any:
        """Call a unary method of any service that has to succeed; its response."""
        answer = await self.call_of(service, method, headers, **body)
        assert answer.status == 200, answer
        return answer.body

    def as_(self, credential: str) -> Self:
        """The same client with another credential: an access token or an API key."""
        return replace(self, token=credential)

    async def conversation(self, **fields: Any) -> str:
        """A new conversation's id."""
        return (await self.must("CreateConversation", **fields))["conversationId"]

    @asynccontextmanager
    async def stream(
        self, method: str, headers: Mapping[str, str] | None = None, /, **body: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An open stream, to be read by `tests.support.sse`."""
        accept = {"accept": "text/event-stream", **(headers or {})}
        async with self.session.post(
            self.path(method), json=body, headers=self.headers(accept)
        ) as reply:
            yield reply


class Platform:
    """Started once and shared; `stack` kills, pauses and restarts its parts by name.

    `offset` shifts every port, so that platforms live side by side. Not supervised: what a test kills stays down
    until the test restarts it, unless `supervised`.
    """

    def __init__(
        self,
        state: Path,
        offset: int,
        *,
        env: Mapping[str, Mapping[str, str]] | None = None,
        unsupervised: tuple[str, ...] = (),
        secure: bool = False,
        journal: Path | None = None,
    ) -> None:
        self._journal = journal
        self._model_port = 6095 + offset
        merged = {name: dict(values) for name, values in (env or {}).items()}
        # One user of a test asks more than a person does; what is limited is shown where it is tested.
        merged.setdefault("*", {}).setdefault("YOCASO_RATE_USER", "1000000")
        merged.setdefault("llm", {}).update(
            {
                "LLM_BASE_URL": f"{self.model_url}/v1",
                "LLM_DEFAULT_MODEL": "scripted/one",
                "LLM_MODELS": "scripted/one,scripted/two",
            }
        )
        self.stack = Stack(
            state,
            port_offset=offset,
            dapr_yaml=ROOT / "dapr.yaml",
            env=merged,
            unsupervised=unsupervised,
            secure=secure,
        )
        self._state = state
        self._model: subprocess.Popen[bytes] | None = None

    @property
    def model_url(self) -> str:
        """The scripted model's origin."""
        return f"http://127.0.0.1:{self._model_port}"

    @property
    def edge_url(self) -> str:
        """Where clients come in."""
        return self.stack.url("edge")

    def start(self) -> Self:
        """Start everything; blocks until each part answers."""
        self.start_model()
        # The kernel ends the stack's processes with the thread that started them.
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("start a platform from the main thread")
        try:
            self.stack.start(seconds=START_SECONDS)
        except BaseException:
            self.stop_model()
            raise
        return self

    def start_model(self) -> None:
        """Start the scripted model as its own process."""
        command = [
            sys.executable,
            "-m",
            "tests.support.model_server",
            "--port",
            str(self._model_port),
        ]
        if self._journal is not None:
            command += ["--journal", str(self._journal)]
        self._model = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert self._model.stdout is not None
        self._model.stdout.readline()

    @property
    def model_process(self) -> int:
        """The pid of the scripted model; nobody restarts it."""
        assert self._model is not None
        return self._model.pid

    def restart_model(self) -> None:
        """Start the scripted model again after it was killed; with a journal it counts on."""
        assert self._model is not None
        self._model.wait(10)
        assert self._model.stdout is not None
        self._model.stdout.close()
        self.start_model()

    def stop(self) -> None:
        """Stop everything."""
        self.stack.stop()
        self.stop_model()

    def stop_model(self) -> None:
        """Stop the scripted model, if it runs."""
        if self._model is not None:
            self._model.terminate()
            self._model.wait(10)
            assert self._model.stdout is not None
            self._model.stdout.close()
            self._model = None

    def token(self, user: str, scopes: Sequence[str] = ()) -> str:
        """A bearer token of a user; without scopes it may do all that a user may."""
        sidecar = Running(self.edge_url, self.stack.url("auth-daprd"), "authApiToken")
        return issue_token(self._state, user, f"{user}@example.com", scopes, running=sidecar)

    async def write_facts(self, *facts: tuple[str, str, str]) -> None:
        """Make facts true, each a subject, a relation and an object, as an app that may."""
        names = ("subject", "relation", "object")
        writes = [dict(zip(names, fact, strict=True)) for fact in facts]
        path = f"/v1.0/invoke/auth/method{AUTHORIZATION_SERVICE['WriteTuples'].path}"
        headers = {"dapr-api-token": self.stack.api_token("llm")}
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                self.stack.url("llm-daprd") + path, json={"writes": writes}, headers=headers
            ) as reply,
        ):
            assert reply.status == 200, await reply.text()

    @asynccontextmanager
    async def client(self, user: str) -> AsyncIterator[Client]:
        """A client that goes through the edge in a user's name."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=170, sock_connect=5)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield Client(self.edge_url, self.token(user), session)

    async def model(self, path: str, body: Any = None) -> Any:
        """The scripted model's own controls: `/__scripts`, `/__journal`, `/__gate`, `/__reset`."""
        method = "GET" if body is None else "POST"
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.model_url + path, json=body) as reply,
        ):
            text = await reply.text()
            assert reply.status < 300, text
            return json.loads(text) if text else None

    async def until_answering(self, user: str = "probe", seconds: float = 60) -> None:
        """Wait until a whole turn is answered."""
        async with self.client(user) as client:

            async def answers() -> bool:
                try:
                    created = await client.call("CreateConversation")
                    if created.status != 200:
                        return False
                    sent = await client.call(
                        "SendMessage", conversationId=created.body["conversationId"], text="ready?"
                    )
                except aiohttp.ClientError:
                    return False
                return sent.status == 200

            await wait_until(answers, seconds, "a turn to be answered")
