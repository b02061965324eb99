"""How these tests talk: marked prompts, streams held open, and what the model's journal says of them."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import aiohttp
from sqlalchemy import insert

from services.auth.adapters.hashing import REFRESH_TOKENS, KeyedHash, random_base62
from services.auth.domain.sessions import SESSION_LIFE, SID_LENGTH, Session, new_refresh_token
from services.auth.tables import sessions
from services.contracts.apps import KEY_SCOPES, USER_SCOPES
from services.contracts.auth.keys import API_KEY_SERVICE
from services.contracts.auth.tokens import TOKEN_SERVICE, SubjectTokenType
from services.kit.storage.db import Database
from tests.support.model_server import script_text
from tests.support.platform import Client, Platform
from tests.support.sse import Fold, SseEvent, StreamClient
from tests.support.wait import wait_until

TERMINAL = ("COMPLETED", "FAILED", "CANCELLED")
EVERYWHERE_SECONDS = 5
"""Within which a revocation is known at every edge."""


def mark() -> str:
    """A word that appears in one prompt only."""
    return f"mark-{uuid.uuid4().hex}"


async def forgotten(platform: Platform, actor_type: str, actor_id: str) -> None:
    """Deactivate an actor of llm, as its sidecar does: it reads everything anew."""
    token = {"dapr-api-token": platform.stack.app_token("llm")}
    url = f"{platform.stack.url('llm')}/actors/{actor_type}/{actor_id}"
    async with aiohttp.ClientSession() as session, session.delete(url, headers=token) as reply:
        assert reply.status == 200, await reply.text()


def user_of(client: Client) -> str:
    """The user that a client's token names."""
    payload = client.token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]


def missing(kind: str) -> str:
    """An id that is well formed and names nothing."""
    return f"{kind}_{uuid.uuid4().hex}"


async def signed_in(platform: Platform, user: str) -> str:
    """The refresh token of a sign-in that has just happened; Firebase is stood in for by its row."""
    digest = KeyedHash(platform.stack.spec("auth").env["AUTH_KEY_SECRET"], REFRESH_TOKENS)
    now, sid = datetime.now(UTC), random_base62(SID_LENGTH)
    token = new_refresh_token(sid, random_base62, digest)
    session = Session(
        sid=sid,
        user_id=user,
        email=f"{user}@example.com",
        scopes=list(USER_SCOPES),
        authenticated_at=now,
        created_at=now,
        expires_at=now + SESSION_LIFE,
        digest=digest(token),
    )
    database = Database(platform.stack.database_url())
    async with database.transaction() as connection:
        await connection.execute(insert(sessions).values(session.model_dump()))
    await database.close()
    return token


async def refreshed(client: Client, refresh_token: str) -> dict[str, Any]:
    """The next pair of tokens of a sign-in."""
    return await client.must_of(TOKEN_SERVICE, "RefreshToken", refreshToken=refresh_token)


async def api_key(
    client: Client, name: str = "a test's", scopes: Sequence[str] = KEY_SCOPES, **fields: Any
) -> tuple[str, str]:
    """A new key of a user: its id and its secret."""
    made = await client.must_of(
        API_KEY_SERVICE, "CreateApiKey", name=name, scopes=list(scopes), **fields
    )
    return made["apiKey"]["keyId"], made["secret"]


async def exchanged(client: Client, secret: str) -> str:
    """The access token that an API key is traded for."""
    kind = SubjectTokenType.API_KEY
    traded = await client.must_of(
        TOKEN_SERVICE, "ExchangeToken", subjectToken=secret, subjectTokenType=kind
    )
    return traded["accessToken"]


async def until_refused(client: Client) -> None:
    """Wait until a credential that has ended counts no more."""

    async def refused() -> bool:
        return (await client.call("ListConversations")).code == "UNAUTHENTICATED"

    await wait_until(refused, EVERYWHERE_SECONDS, "the credential to end")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A message that says how the model shall behave, and the word by which its calls are found."""

    text: str
    word: str


def prompt(**behaviour: Any) -> Prompt:
    """A message with a script of its own."""
    word = mark()
    return Prompt(f"{script_text(**behaviour)} {word}", word)


async def calls(platform: Platform, said: Prompt) -> list[dict[str, Any]]:
    """What the model saw of a prompt: one entry per call that had it as its last message."""
    journal = await platform.model("/__journal")
    return [entry for entry in journal["entries"] if said.word in entry["prompt"]]


async def release(platform: Platform, gate: str) -> None:
    """Let the model go on."""
    await platform.model("/__gate", {"action": "release", "name": gate})


async def until_held(platform: Platform, gate: str, count: int = 1) -> None:
    """Wait until the model stands at a gate."""

    async def held() -> bool:
        waiting = (await platform.model("/__gate"))["waiting"]
        return sum(each["name"] == gate for each in waiting) >= count

    await wait_until(held, what=f"the model at {gate}")


def reader(
    client: Client,
    method: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
    *,
    get: bool = False,
) -> StreamClient:
    """A strict reader of a stream; by GET the fields go into the query."""
    return StreamClient(
        client.session,
        client.path(method),
        headers=client.headers(headers),
        body=None if get else body,
        params={name: str(value) for name, value in body.items()} if get else None,
    )


async def ask(client: Client, conversation: str, text: str, **fields: Any) -> Fold:
    """Send a message and read its stream to the end."""
    body = {"conversationId": conversation, "text": text, **fields}
    return await reader(client, "StreamMessage", body).run()


@dataclass(frozen=True, slots=True)
class Live:
    """A turn whose stream is open; `ref` names it in other calls."""

    stream: StreamClient
    frames: AsyncIterator[SseEvent]
    ref: dict[str, str]

    @property
    def turn_id(self) -> str:
        """The turn."""
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
) -> AsyncIterator[Live]:
    """A turn that runs, its stream open; closed at the end without reading on, and resumed by `stream.run()`."""
    body = {"conversationId": conversation, "text": said.text, **fields}
    stream = reader(client, "StreamMessage", body, {"idempotency-key": said.word})
    frames = cast(AsyncGenerator[SseEvent, None], stream.events())
    try:
        async for _ in frames:
            if stream.fold.of_type("text.delta") or not until_text:
                break
        turn_id = stream.fold.events[0]["data"]["turnId"]
        yield Live(stream, frames, {"conversationId": conversation, "turnId": turn_id})
    finally:
        await frames.aclose()


async def events_of(client: Client, ref: Mapping[str, str]) -> Fold:
    """A turn's events read from the first to the last."""
    return await reader(client, "StreamEvents", ref).run()


async def ended(client: Client, ref: Mapping[str, str], timeout: float = 20) -> dict[str, Any]:
    """The turn once it has ended."""

    async def turn() -> dict[str, Any] | None:
        found = await client.must("GetTurn", **ref)
        return found if found["status"] in TERMINAL else None

    return await wait_until(turn, timeout, f"the end of {ref['turnId']}")


async def messages(client: Client, conversation: str, **fields: Any) -> list[dict[str, Any]]:
    """The messages of a conversation, oldest first."""
    answer = await client.must("ListMessages", conversationId=conversation, **fields)
    return answer["messages"]


async def post(
    client: Client, method: str, body: bytes, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """Send a body as it is; status and answer."""
    sent = client.headers({"content-type": "application/json", **(headers or {})})
    async with client.session.post(client.path(method), data=body, headers=sent) as reply:
        found = None
        with suppress(aiohttp.ContentTypeError):
            found = await reply.json()
        return reply.status, found
