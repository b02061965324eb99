"""Actions of test users: prompts, streams, turns and credentials."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
import asyncpg

from services.contracts.apps import KEY_SCOPES
from services.contracts.auth.keys import API_KEY_SERVICE
from services.contracts.auth.tokens import TOKEN_SERVICE, SubjectTokenType
from services.contracts.llm.turns import TurnStatus
from tests.support.model_server import script_text
from tests.support.platform import Client, Platform
from tests.support.sign_in import insert_session
from tests.support.sse import Fold, SseEvent, StreamClient
from tests.support.wait import wait_until

REVOCATION_SECONDS = 5
"""Seconds within which every edge knows a revocation."""


def mark() -> str:
    return f"mark-{uuid.uuid4().hex}"


async def deactivate(platform: Platform, actor_type: str, actor_id: str) -> None:
    """Deactivate an actor of llm as its sidecar does; it loses what it cached."""
    token = {"dapr-api-token": platform.stack.app_token("llm")}
    url = f"{platform.stack.url('llm')}/actors/{actor_type}/{actor_id}"
    async with aiohttp.ClientSession() as session, session.delete(url, headers=token) as reply:
        assert reply.status == 200, await reply.text()


async def pass_deadline(database: asyncpg.Connection, turn_id: str) -> None:
    """Set the beginning of a turn to 6 minutes ago, past `MAX_TURN_TIME`."""
    update = """
        UPDATE dapr.state SET value = convert_to(jsonb_set(convert_from(value, 'UTF8')::jsonb,
            '{began_at}', to_jsonb(now() - interval '6 minutes'))::text, 'UTF8')
        WHERE key LIKE $1
    """
    assert await database.execute(update, f"%/turn/{turn_id}") == "UPDATE 1"


def user_of(client: Client) -> str:
    """The user id in a client's token."""
    payload = client.token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]


def missing(kind: str) -> str:
    """A well-formed id of no object."""
    return f"{kind}_{uuid.uuid4().hex}"


async def signed_in(platform: Platform, user: str) -> str:
    """The refresh token of a new session, without Firebase."""
    secret = platform.stack.spec("auth").env["AUTH_KEY_SECRET"]
    return await insert_session(platform.stack.database_url(), secret, user)


async def refreshed(client: Client, refresh_token: str) -> dict[str, Any]:
    """Exchange a refresh token for the next pair."""
    return await client.must_of(TOKEN_SERVICE, "RefreshToken", refreshToken=refresh_token)


async def api_key(
    client: Client, name: str = "a test's", scopes: Sequence[str] = KEY_SCOPES, **fields: Any
) -> tuple[str, str]:
    """Create an API key; its id and secret."""
    made = await client.must_of(
        API_KEY_SERVICE, "CreateApiKey", name=name, scopes=list(scopes), **fields
    )
    return made["apiKey"]["keyId"], made["secret"]


async def exchanged(client: Client, secret: str) -> str:
    """Exchange an API key for an access token."""
    kind = SubjectTokenType.API_KEY
    answer = await client.must_of(
        TOKEN_SERVICE, "ExchangeToken", subjectToken=secret, subjectTokenType=kind
    )
    return answer["accessToken"]


async def until_refused(client: Client) -> None:
    """Wait until a revoked credential is refused."""

    async def refused() -> bool:
        return (await client.call("ListConversations")).code == "UNAUTHENTICATED"

    await wait_until(refused, REVOCATION_SECONDS, "the credential to be refused")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A message with a script of the model, and the word that identifies its model calls."""

    text: str
    word: str


def prompt(**behaviour: Any) -> Prompt:
    """A message with a script."""
    word = mark()
    return Prompt(f"{script_text(**behaviour)} {word}", word)


async def ask(client: Client, conversation: str, text: str, **fields: Any) -> Fold:
    """Send a message and read its stream to the end."""
    body = {"conversationId": conversation, "text": text, **fields}
    return await client.reader("StreamMessage", body).run()


@dataclass(frozen=True, slots=True)
class LiveTurn:
    """A turn whose stream is open; `ref` has its ids."""

    stream: StreamClient
    frames: AsyncIterator[SseEvent]
    ref: dict[str, str]

    @property
    def turn_id(self) -> str:
        return self.ref["turnId"]

    async def rest(self) -> Fold:
        """Read the open stream until it ends."""
        async with asyncio.timeout(30):
            async for _ in self.frames:
                pass
        return self.stream.fold


@asynccontextmanager
async def live_turn(
    client: Client, conversation: str, said: Prompt, *, until_text: bool = False, **fields: Any
) -> AsyncIterator[LiveTurn]:
    """A running turn with an open stream, which is closed after the block; `stream.run()` resumes it."""
    body = {"conversationId": conversation, "text": said.text, **fields}
    stream = client.reader("StreamMessage", body, {"idempotency-key": said.word})
    frames = cast(AsyncGenerator[SseEvent, None], stream.events())
    try:
        async for _ in frames:
            if stream.fold.of_type("text.delta") or not until_text:
                break
        turn_id = stream.fold.events[0]["data"]["turnId"]
        yield LiveTurn(stream, frames, {"conversationId": conversation, "turnId": turn_id})
    finally:
        await frames.aclose()


async def events_of(client: Client, ref: Mapping[str, str]) -> Fold:
    """Read a turn's events from the first to the last."""
    return await client.reader("StreamEvents", ref).run()


async def ended(client: Client, ref: Mapping[str, str], timeout: float = 20) -> dict[str, Any]:
    """Wait until the turn has ended."""

    async def turn() -> dict[str, Any] | None:
        found = await client.must("GetTurn", **ref)
        return found if TurnStatus(found["status"]).is_terminal else None

    return await wait_until(turn, timeout, f"the end of {ref['turnId']}")


async def messages(client: Client, conversation: str, **fields: Any) -> list[dict[str, Any]]:
    """Messages of a conversation, oldest first."""
    answer = await client.must("ListMessages", conversationId=conversation, **fields)
    return answer["messages"]


async def post(
    client: Client, method: str, body: bytes, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """Send raw bytes; status and body of the response."""
    sent = client.headers({"content-type": "application/json", **(headers or {})})
    async with client.session.post(client.path(method), data=body, headers=sent) as reply:
        found = None
        with suppress(aiohttp.ContentTypeError):
            found = await reply.json()
        return reply.status, found
