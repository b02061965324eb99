"""The platform under test: a `Stack`, a scripted model, and clients that call through the edge."""

import json
import os
import subprocess
import sys
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import psutil
import pytest

from services.cli.edge import CallError, StackEndpoints
from services.cli.stack import Stack
from services.cli.stack.errors import StackError
from services.cli.tokens import issue_token
from services.contracts.auth.authorization import AUTHORIZATION_SERVICE
from services.contracts.llm.conversations import CONVERSATION_SERVICE
from services.kit.contract import RpcService
from tests.support.sse import StreamClient
from tests.support.wait import wait_until

ROOT: Final = Path(__file__).parents[2]
START_SECONDS: Final = 90.0
UNHEALTHY: Final = "entered un-healthy status"
"""What daprd logs when its app fails the health check."""
SHORT_RETENTION: Final = {"llm": {"LLM_KEPT_SECONDS": "5"}}
"""Environment that erases deleted conversations after 5 s instead of 60."""


def idempotency_key() -> dict[str, str]:
    """A header with a new Idempotency-Key."""
    return {"idempotency-key": uuid.uuid4().hex}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of the edge."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def code(self) -> str | None:
        """The code, if the body is an RpcError."""
        return self.body.get("error", {}).get("code") if isinstance(self.body, dict) else None


@dataclass
class Client:
    """A user who calls through the edge."""

    url: str
    token: str
    session: aiohttp.ClientSession
    defaults: dict[str, str] = field(default_factory=dict)

    def headers(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Headers of a call: the token, if there is one, the defaults, then `extra`."""
        bearer = {"authorization": f"Bearer {self.token}"} if self.token else {}
        return {**bearer, **self.defaults, **(extra or {})}

    def path(self, method: str) -> str:
        """The URL of a conversation method."""
        return self.url_of(CONVERSATION_SERVICE, method)

    def url_of(self, service: RpcService, method: str) -> str:
        """The edge's URL of a method."""
        return self.url + service[method].edge_path

    async def call(
        self, method: str, headers: Mapping[str, str] | None = None, /, **body: Any
    ) -> Answer:
        """Call a unary method of the conversation service, whatever its status."""
        return await self.call_of(CONVERSATION_SERVICE, method, headers, **body)

    async def must(
        self, method: str, headers: Mapping[str, str] | None = None, /, **body: Any
    ) -> Any:
        """Call a unary method that must succeed."""
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
        """Call a unary method of any service, whatever its status."""
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
        """Call a unary method of any service that must succeed."""
        answer = await self.call_of(service, method, headers, **body)
        assert answer.status == 200, answer
        return answer.body

    def as_(self, credential: str) -> Self:
        """The same client with another access token or API key."""
        return replace(self, token=credential)

    async def conversation(self, **fields: Any) -> str:
        """Create a conversation and return its id."""
        return (await self.must("CreateConversation", **fields))["conversationId"]

    @asynccontextmanager
    async def stream(
        self, method: str, headers: Mapping[str, str] | None = None, /, **body: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        accept = {"accept": "text/event-stream", **(headers or {})}
        async with self.session.post(
            self.path(method), json=body, headers=self.headers(accept)
        ) as reply:
            yield reply

    def reader(
        self,
        method: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        *,
        get: bool = False,
        **options: Any,
    ) -> StreamClient:
        """A resuming reader of a stream; with `get` the fields are sent in the query."""
        return StreamClient(
            self.session,
            self.path(method),
            headers=self.headers(headers),
            body=None if get else body,
            params={name: str(value) for name, value in body.items()} if get else None,
            **options,
        )


class ReachablePlatform(ABC):
    """A platform that can be called through its edge."""

    @property
    @abstractmethod
    def edge_url(self) -> str: ...

    @abstractmethod
    def token(self, user: str, scopes: Sequence[str] = ()) -> str:
        """An access token of a user, with every user scope unless `scopes` are given."""

    @asynccontextmanager
    async def client(self, user: str) -> AsyncIterator[Client]:
        """A client that calls through the edge as a user."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=170, sock_connect=5)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield Client(self.edge_url, self.token(user), session)


class HostPlatform(ReachablePlatform):
    """A platform that somebody started with `yocaso up`.

    Raises:
        StackError: none was started in this state folder.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._endpoints = StackEndpoints.load(state)

    @property
    def edge_url(self) -> str:
        return self._endpoints.edge_url

    def token(self, user: str, scopes: Sequence[str] = ()) -> str:
        return issue_token(
            self._state, user, f"{user}@example.com", scopes, endpoints=self._endpoints
        )


def find_host_platform() -> HostPlatform:
    """The platform of YOCASO_STATE; if it does not run, the test run ends with the reason."""
    try:
        platform = HostPlatform(Path(os.environ.get("YOCASO_STATE", ".yocaso")))
        platform.token("probe")
    except (CallError, StackError) as error:
        pytest.exit(f"--platform=host: {error}", returncode=pytest.ExitCode.USAGE_ERROR)
    return platform


class Platform(ReachablePlatform):
    """Started once per session; `stack` kills, pauses and restarts its processes by name.

    `offset` shifts every port, so several platforms run at once. Killed processes restart, except `unsupervised` ones.
    """

    def __init__(
        self,
        state: Path,
        offset: int,
        *,
        env: Mapping[str, Mapping[str, str]] | None = None,
        unsupervised: tuple[str, ...] = (),
        secure: bool = False,
        trusted_apps: tuple[str, ...] = (),
        journal: Path | None = None,
    ) -> None:
        self._journal = journal
        self._model_port = 6095 + offset
        merged = {name: dict(values) for name, values in (env or {}).items()}
        # A test user sends more calls than the default rate limit allows; tests of the limit set their own.
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
            trusted_apps=trusted_apps,
        )
        self._state = state
        self._model: subprocess.Popen[bytes] | None = None

    @property
    def model_url(self) -> str:
        return f"http://127.0.0.1:{self._model_port}"

    @property
    def edge_url(self) -> str:
        return self.stack.url("edge")

    def start(self) -> Self:
        """Start every process and block until each answers."""
        self.start_model()
        # PR_SET_PDEATHSIG ends the stack's processes with the thread that started them.
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("start a platform from the main thread")
        try:
            self.stack.start(seconds=START_SECONDS)
        except BaseException:
            self.stop_model()
            raise
        return self

    def start_model(self) -> None:
        """Start the scripted model in a process of its own."""
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
        assert self._model.stdout.readline(), "the scripted model did not start; its port is in use"

    @property
    def model_process(self) -> int:
        """The pid of the scripted model; it is not supervised."""
        assert self._model is not None
        return self._model.pid

    def restart_model(self) -> None:
        """Start the scripted model again after a kill; a journal keeps its attempt counts."""
        assert self._model is not None
        self._model.wait(10)
        assert self._model.stdout is not None
        self._model.stdout.close()
        self.start_model()

    def stop(self) -> None:
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
        endpoints = StackEndpoints(self.edge_url, {"auth": self.stack.url("auth-daprd")})
        return issue_token(self._state, user, f"{user}@example.com", scopes, endpoints=endpoints)

    async def write_tuples(self, *tuples: tuple[str, str, str]) -> None:
        """Write relationship tuples (subject, relation, object) as the app llm."""
        names = ("subject", "relation", "object")
        writes = [dict(zip(names, each, strict=True)) for each in tuples]
        path = f"/v1.0/invoke/auth/method{AUTHORIZATION_SERVICE['WriteTuples'].path}"
        headers = {"dapr-api-token": self.stack.api_token("llm")}
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                self.stack.url("llm-daprd") + path, json={"writes": writes}, headers=headers
            ) as reply,
        ):
            assert reply.status == 200, await reply.text()

    async def model(self, path: str, body: Any = None) -> Any:
        """Call a control path of the scripted model: `/__scripts`, `/__journal`, `/__gate`."""
        method = "GET" if body is None else "POST"
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.model_url + path, json=body) as reply,
        ):
            text = await reply.text()
            assert reply.status < 300, text
            return json.loads(text) if text else None

    async def model_calls(self, word: str) -> list[dict[str, Any]]:
        """Journal entries of the scripted model whose prompt contains `word`."""
        journal = await self.model("/__journal")
        return [entry for entry in journal["entries"] if word in entry["prompt"]]

    async def release_gate(self, gate: str) -> None:
        """Let the model calls that wait at a gate continue."""
        await self.model("/__gate", {"release": gate})

    async def wait_held(self, gate: str, count: int = 1) -> None:
        """Wait until `count` model calls wait at a gate."""

        async def held() -> bool:
            waiting = (await self.model("/__gate"))["waiting"]
            return sum(each["name"] == gate for each in waiting) >= count

        await wait_until(held, 20, f"{count} model calls at {gate}")

    def family(self, name: str) -> list[psutil.Process]:
        """A process and its children; empty if it does not run."""
        pid = self.stack.pid(name)
        if pid is None:
            return []
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]

    def count_unhealthy(self) -> int:
        """How many times a sidecar declared its app unhealthy, according to its log."""
        logs = [self.stack.log(f"{app}-daprd") for app in self.stack.apps]
        return sum(log.read_text(errors="replace").count(UNHEALTHY) for log in logs)

    async def until_answering(self, user: str = "probe", seconds: float = 60) -> None:
        """Wait until a turn completes."""
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

            await wait_until(answers, seconds, "a turn to complete")
