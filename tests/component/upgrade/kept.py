"""What an earlier release was given to keep, written through its edge; a later release has to know all of it."""

import asyncio
import uuid
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Final, Protocol

import asyncpg
from pydantic import BaseModel

from services.contracts.apps import KEY_SCOPES
from services.contracts.auth.accounts import ACCOUNT_SERVICE
from services.contracts.auth.authorization import AUTHORIZATION_SERVICE
from services.contracts.auth.keys import API_KEY_SERVICE
from services.kit.clock import utc_now
from tests.support.model_server import ModelServer, script_text
from tests.support.platform import Client
from tests.support.sign_in import insert_session
from tests.support.wait import wait_until

ALICE, BOB, CAROL, DAVE = "alice", "bob", "carol", "dave"
ANSWER: Final = " ".join(f"word-{number}" for number in range(40))
SHOWN_WORDS: Final = 20
"""Words of the answer in flight that were shown when the release was killed."""
QUEUED: Final = "queued behind it"
RETRIED: Final = "the model is busy when it is asked this"
RETRY_AFTER: Final = "45"
"""Seconds that the workflow of that turn waits; the release is killed meanwhile."""
WAITING_ROWS: Final = 3
"""Rows of a history that waits for a timer: its start, the timer, and the step that made it."""
HISTORY: Final = "SELECT count(*) FROM dapr.state WHERE key LIKE '%||' || $1 || '||history-%'"
"""Rows of the history of a workflow."""
QUEUE: Final = """
    SELECT count(*) FROM dapr.state WHERE key LIKE '%ConversationActor/' || $1 || '/head'
    AND encode(value, 'escape') LIKE '%"queue":["turn%'
"""
"""1 if a turn of a conversation is queued."""


class KeptTurn(BaseModel):
    """A turn that had not ended."""

    conversation_id: str
    turn_id: str
    text: str

    @property
    def ref(self) -> dict[str, str]:
        """Its ids, as requests name them."""
        return {"conversationId": self.conversation_id, "turnId": self.turn_id}


class Kept(BaseModel):
    """Ids, credentials and texts as clients knew them when every process was killed."""

    release: str
    made_at: datetime
    api_key: str
    refresh_token: str
    story: str
    messages: list[dict[str, Any]]
    append_key: str
    appended: dict[str, Any]
    deleted: str
    gate: str
    in_flight: KeptTurn
    shown: list[str]
    queued_text: str
    retrying: KeptTurn
    erased_conversation: str
    deletion_id: str


class RunningRelease(Protocol):
    """A platform of any release, driven from outside."""

    name: str
    model: ModelServer

    @property
    def database_url(self) -> str: ...

    @property
    def key_secret(self) -> str: ...

    def client(self, user: str) -> AbstractAsyncContextManager[Client]: ...

    def freeze(self, process: str) -> None:
        """Stop a process by SIGSTOP."""
        ...


async def write_kept(release: RunningRelease) -> Kept:
    """Leave behind conversations and credentials, and work of every kind half done; the caller then kills it all."""
    async with (
        release.client(ALICE) as alice,
        release.client(CAROL) as carol,
        release.client(DAVE) as dave,
    ):
        story, link = await _story(alice)
        append_key = uuid.uuid4().hex
        appended = await _append(alice, story, append_key)
        listed = await alice.must("ListMessages", conversationId=story)
        key = await alice.must_of(
            API_KEY_SERVICE, "CreateApiKey", name="kept", scopes=list(KEY_SCOPES)
        )
        refresh_token = await insert_session(release.database_url, release.key_secret, ALICE)
        erased = await carol.conversation(title="carol's")
        await carol.must("SendMessage", conversationId=erased, text="erase me")
        retrying = await _begin_retried(release, alice)
        gate = uuid.uuid4().hex
        in_flight, queued_text, shown = await _begin_held(release, alice, gate)
        deleted = await alice.conversation(title="deleted")
        await alice.must("SendMessage", conversationId=deleted, text="delete me")
        deletion = await carol.must_of(ACCOUNT_SERVICE, "DeleteAccount")
        deletion_id = deletion["deletionId"]
        await until_stored(release.database_url, HISTORY, deletion_id, 2 * WAITING_ROWS)
        await alice.must("DeleteConversation", conversationId=deleted)
        release.freeze("openfga")
        opened = await dave.call_of(AUTHORIZATION_SERVICE, "OpenShareLink", token=link)
        assert opened.code == "UNAVAILABLE", opened
    return Kept(
        release=release.name,
        made_at=utc_now(),
        api_key=key["secret"],
        refresh_token=refresh_token,
        story=story,
        messages=listed["messages"],
        append_key=append_key,
        appended=appended,
        deleted=deleted,
        gate=gate,
        in_flight=in_flight,
        shown=shown,
        queued_text=queued_text,
        retrying=retrying,
        erased_conversation=erased,
        deletion_id=deletion_id,
    )


async def _story(alice: Client) -> tuple[str, str]:
    """A conversation of two turns that Bob may read, and the token of a link to it."""
    story = await alice.conversation(title="the story", metadata={"kept": "yes"})
    for text in ("one", "two"):
        await alice.must("SendMessage", conversationId=story, text=text)
    shared = {"object": f"conversation:{story}"}
    await alice.must_of(
        AUTHORIZATION_SERVICE, "Share", **shared, subject=f"user:{BOB}", role="VIEWER"
    )
    link = await alice.must_of(AUTHORIZATION_SERVICE, "CreateShareLink", **shared, role="VIEWER")
    return story, link["token"]


async def _append(alice: Client, conversation: str, key: str) -> dict[str, Any]:
    return await alice.must(
        "AppendMessage", {"idempotency-key": key}, conversationId=conversation, text="appended"
    )


async def _begin_retried(release: RunningRelease, alice: Client) -> KeptTurn:
    """A turn whose workflow waits before the next attempt, as the model was busy."""
    release.model.script(RETRIED, status=429, retry_after=RETRY_AFTER)
    conversation = await alice.conversation()
    turn = await _begin(alice, conversation, RETRIED, until="run.started")
    await until_stored(release.database_url, HISTORY, turn.turn_id, WAITING_ROWS)
    return turn


async def _begin_held(
    release: RunningRelease, alice: Client, gate: str
) -> tuple[KeptTurn, str, list[str]]:
    """A turn in the middle of its answer, the text of one queued behind it, and the texts shown so far."""
    conversation = await alice.conversation()
    text = script_text(text=ANSWER, gate=gate, gate_after=SHOWN_WORDS)
    turn = await _begin(alice, conversation, text, until="text.delta")
    body = {"conversationId": conversation, "text": QUEUED, "admission": "ENQUEUE"}
    queued = asyncio.create_task(alice.call("SendMessage", **body))
    await until_stored(release.database_url, QUEUE, conversation)
    queued.cancel()

    async def shown() -> list[str] | None:
        listed = await alice.must("ListEvents", **turn.ref)
        texts = [each["data"].get("text", "") for each in listed["events"]]
        return texts if len("".join(texts).split()) == SHOWN_WORDS else None

    return turn, QUEUED, await wait_until(shown, 20, "the first half of the answer")


async def _begin(alice: Client, conversation: str, text: str, until: str) -> KeptTurn:
    """Begin a turn and leave its stream at the first event of a type."""
    reader = alice.reader("StreamMessage", {"conversationId": conversation, "text": text})
    async for event in reader.events():
        if event.event == until:
            break
    turn_id = reader.fold.events[0]["data"]["turnId"]
    return KeptTurn(conversation_id=conversation, turn_id=turn_id, text=text)


async def until_stored(database_url: str, query: str, name: str, count: int = 1) -> None:
    """Wait until a query by name, `HISTORY` or `QUEUE`, counts so many rows."""
    connection = await asyncpg.connect(database_url)
    try:

        async def is_stored() -> bool:
            return await connection.fetchval(query, name) >= count

        await wait_until(is_stored, 60, f"{count} rows of {name}", every=0.1)
    finally:
        await connection.close()
