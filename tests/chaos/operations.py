"""Operations other than turns that a fault interrupts: they are not repeated, the platform completes them."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import aiohttp
import asyncpg

from services.contracts.auth.accounts import ACCOUNT_SERVICE
from services.contracts.auth.keys import API_KEY_SERVICE
from services.contracts.llm.conversations import CONVERSATION_SERVICE, CONVERSATIONS_WRITE
from services.kit.contract import RpcService
from tests.support.model_server import script_text
from tests.support.platform import Answer, Client, Platform, idempotency_key
from tests.support.retries import RECOVERY_SECONDS, RETRYABLE_STATUSES, until_ok, until_ok_of
from tests.support.wait import wait_until

TUPLES_OF_OBJECT = "SELECT count(*) FROM tuple WHERE object_id = $1"
TUPLES_OF_USER = "SELECT count(*) FROM tuple WHERE _user = $1"
OWED = "SELECT count(*) FROM events.streams WHERE subject = $1 AND owed IS NOT NULL"
DELETION = "SELECT id FROM auth.deletions WHERE user_id = $1"


class Operation(Protocol):
    """Something that was begun and must end once the platform has recovered."""

    def ended(self) -> Coroutine[Any, Any, object]:
        """Wait until it has ended."""
        ...

    async def problems(self) -> list[str]:
        """Violations of its invariants, found after its end."""
        ...

    def abandon(self) -> None:
        """Stop waiting for it."""


@asynccontextmanager
async def connected(
    platform: Platform, database: str | None = None
) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the platform's database, or to another one of its server."""
    connection = await asyncpg.connect(platform.stack.database_url(), database=database)
    try:
        yield connection
    finally:
        await connection.close()


async def tuples_of(platform: Platform, query: str, name: str) -> int:
    """How many relationship tuples OpenFGA's database has of an object or a user."""
    async with connected(platform, "openfga") as connection:
        return await connection.fetchval(query, name) or 0


@dataclass
class Interrupted:
    """A user of her own, and a call that is made once."""

    platform: Platform
    client: Client
    user: str
    call: "asyncio.Task[Answer | None]" = field(init=False)

    @classmethod
    async def begin(cls, platform: Platform, client: Client) -> Self:
        """Make the call, as a new user."""
        user = f"{cls.__name__.lower()}-{uuid.uuid4().hex[:8]}"
        token = await asyncio.to_thread(platform.token, user)
        begun = cls(platform, client.as_(token), user)
        await begun.prepare()
        begun.call = asyncio.create_task(_once(begun.request()))
        await begun.admitted()
        return begun

    async def prepare(self) -> None:
        """Make what the call needs."""

    def request(self) -> Coroutine[Any, Any, Answer]:
        """The call that is interrupted."""
        raise NotImplementedError

    async def admitted(self) -> None:
        """Wait until the call has arrived, where the end is found by what it leaves."""

    async def ended(self) -> None:
        """Wait for its answer, whatever that is, and until the platform has completed it."""
        await self.call
        await wait_until(
            self.is_complete, RECOVERY_SECONDS, f"{self.user} to be complete", every=0.1
        )

    async def is_complete(self) -> bool:
        """Whether everything that the call began is done."""
        raise NotImplementedError

    async def problems(self) -> list[str]:
        """None beyond completion, unless a kind of operation has some."""
        return []

    def abandon(self) -> None:
        """Stop waiting for the answer."""
        self.call.cancel()

    async def answer(self, service: RpcService, method: str, **body: Any) -> Answer | None:
        """The answer of a call made now; None if it failed transiently."""
        found = await _once(self.client.call_of(service, method, **body))
        return None if found is None or found.status in RETRYABLE_STATUSES else found


async def _once(call: Coroutine[Any, Any, Answer]) -> Answer | None:
    try:
        return await call
    except (aiohttp.ClientError, OSError):
        return None


@dataclass
class Creation(Interrupted):
    """A creation, which the reminder reconciles: listed, owned, and found again by its key."""

    key: dict[str, str] = field(default_factory=idempotency_key)
    made: list[str] = field(default_factory=list[str])

    def request(self) -> Coroutine[Any, Any, Answer]:
        return self.client.call("CreateConversation", self.key, title="half")

    async def is_complete(self) -> bool:
        self.made = await self._listed()
        return (
            bool(self.made) and await tuples_of(self.platform, TUPLES_OF_OBJECT, self.made[0]) == 1
        )

    async def problems(self) -> list[str]:
        again = await until_ok(self.client, "CreateConversation", self.key, title="half")
        sent = await until_ok(
            self.client, "SendMessage", conversationId=self.made[0], text="complete?"
        )
        listed = await self._listed()
        found = [] if listed == [again["conversationId"]] == self.made else [f"listed {listed}"]
        return found + ([] if sent["turn"]["status"] == "COMPLETED" else ["it answers nothing"])

    async def _listed(self) -> list[str]:
        page = await until_ok(self.client, "ListConversations")
        return [each["conversationId"] for each in page["conversations"]]


@dataclass
class Deletion(Interrupted):
    """A deletion: unlisted, NOT_FOUND, and without tuples."""

    conversation: str = ""

    async def prepare(self) -> None:
        self.conversation = await self.client.conversation()
        await self.client.must("AppendMessage", conversationId=self.conversation, text="gone")

    def request(self) -> Coroutine[Any, Any, Answer]:
        return self.client.call("DeleteConversation", conversationId=self.conversation)

    async def is_complete(self) -> bool:
        return await tuples_of(self.platform, TUPLES_OF_OBJECT, self.conversation) == 0

    async def problems(self) -> list[str]:
        page = await until_ok(self.client, "ListConversations")
        answer = await self.answer(
            CONVERSATION_SERVICE, "GetConversation", conversationId=self.conversation
        )
        found = [] if page["conversations"] == [] else ["still listed"]
        return found + ([] if answer and answer.code == "NOT_FOUND" else [f"answered {answer}"])


@dataclass
class Erasure(Interrupted):
    """A deletion of an account: its receipt is complete, and no tuple names the user."""

    deletion_id: str = ""
    conversation: str = ""
    removed: dict[str, Any] = field(default_factory=dict[str, Any])

    async def prepare(self) -> None:
        self.conversation = await self.client.conversation(title="mine")

    def request(self) -> Coroutine[Any, Any, Answer]:
        return self.client.call_of(ACCOUNT_SERVICE, "DeleteAccount")

    async def admitted(self) -> None:
        async with connected(self.platform) as connection:
            self.deletion_id = await wait_until(
                lambda: connection.fetchval(DELETION, self.user), 10, "the receipt"
            )

    async def is_complete(self) -> bool:
        found = await self.answer(
            ACCOUNT_SERVICE, "GetAccountDeletion", deletionId=self.deletion_id
        )
        if found is None:
            return False
        assert found.status == 200, found
        self.removed = {part["app"]: part["removed"] for part in found.body["parts"]}
        return found.body["status"] == "COMPLETED"

    async def problems(self) -> list[str]:
        left = [
            await tuples_of(self.platform, TUPLES_OF_USER, f"user:{self.user}"),
            await tuples_of(self.platform, TUPLES_OF_OBJECT, self.conversation),
        ]
        found = [] if left == [0, 0] else [f"tuples left: {left}"]
        right = self.removed.get("llm") == {"conversations": "1"}
        return found + ([] if right else [f"removed {self.removed}"])


@dataclass
class KeyCreation(Interrupted):
    """The creation of an API key: there is one, and its owner may revoke it."""

    def request(self) -> Coroutine[Any, Any, Answer]:
        return self.client.call_of(
            API_KEY_SERVICE, "CreateApiKey", name="half", scopes=[CONVERSATIONS_WRITE]
        )

    async def is_complete(self) -> bool:
        listed = await until_ok_of(self.client, API_KEY_SERVICE, "ListApiKeys")
        [key] = listed["apiKeys"]
        revoked = await self.answer(API_KEY_SERVICE, "RevokeApiKey", keyId=key["keyId"])
        return revoked is not None and revoked.status == 200


@dataclass
class KeyChange(Interrupted):
    """A change of an API key: it holds, although its answer was lost."""

    key: str = ""

    async def prepare(self) -> None:
        made = await self.client.must_of(
            API_KEY_SERVICE, "CreateApiKey", name="before", scopes=[CONVERSATIONS_WRITE]
        )
        self.key = made["apiKey"]["keyId"]

    def request(self) -> Coroutine[Any, Any, Answer]:
        return self.client.call_of(API_KEY_SERVICE, "UpdateApiKey", keyId=self.key, name="after")

    async def is_complete(self) -> bool:
        found = await until_ok_of(self.client, API_KEY_SERVICE, "GetApiKey", keyId=self.key)
        return found["name"] == "after"


@dataclass
class PaidTurn(Interrupted):
    """A turn of an API key: its cost is charged once."""

    key: str = ""
    payer: Client = field(init=False)
    body: dict[str, Any] = field(default_factory=dict[str, Any])
    header: dict[str, str] = field(default_factory=idempotency_key)

    async def prepare(self) -> None:
        made = await self.client.must_of(
            API_KEY_SERVICE,
            "CreateApiKey",
            name="payer",
            scopes=[CONVERSATIONS_WRITE],
            budget={"amount": 100, "period": "TOTAL"},
        )
        self.key, self.payer = made["apiKey"]["keyId"], self.client.as_(made["secret"])
        created = await until_ok(self.payer, "CreateConversation", idempotency_key())
        text = script_text(text="dear", prompt_tokens=150_000)
        self.body = {"conversationId": created["conversationId"], "text": text}

    def request(self) -> Coroutine[Any, Any, Answer]:
        return self.payer.call("SendMessage", self.header, **self.body)

    async def is_complete(self) -> bool:
        if not await self._spent():
            return False
        async with connected(self.platform) as connection:
            return await connection.fetchval(OWED, self.body["conversationId"]) == 0

    async def problems(self) -> list[str]:
        sent = await until_ok(self.payer, "SendMessage", self.header, **self.body)
        cost, spent = sent["turn"]["usage"]["cost"], await self._spent()
        return [] if abs(spent - cost) < cost / 1000 else [f"cost {cost}, charged {spent}"]

    async def _spent(self) -> float:
        found = await until_ok_of(self.client, API_KEY_SERVICE, "GetApiKey", keyId=self.key)
        return found["spent"]
