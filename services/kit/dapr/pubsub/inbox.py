"""The inbox: handles each event once, in the transaction that records it; gives up poison as dead letters."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, cast

import structlog
from sqlalchemy import text

from services.kit.clock import Clock
from services.kit.dapr.deliveries import HANDLER_SECONDS, attempts_if_given_up, error_of
from services.kit.dapr.pubsub.admission import admit
from services.kit.dapr.pubsub.cloudevents import Envelope, Event, decode
from services.kit.errors import ErrorCode, RpcError
from services.kit.failpoints import failpoint
from services.kit.storage.db import Database, Transaction
from services.kit.telemetry.tracing import span_from
from services.kit.topics import AnyTopic

EARLY_SECONDS: Final = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Waits of an early event for its predecessor, before the broker has to deliver it again."""
INBOX_DAYS: Final = 8
"""How long a handled event is remembered; longer than the broker keeps a message."""
KEY_DAYS: Final = 60
"""How long an unused key's position is kept: longer than the publisher keeps its own."""
OUTBOX_KEY_DAYS: Final = 30
"""How long the publisher keeps an unused key's last sequence; longer than the broker keeps a message."""
DEAD_LETTER_DAYS: Final = 30
UNDELIVERED_SECONDS: Final = 30.0
"""Age at which an event that the broker did not deliver is taken from the publisher's outbox."""
UNDELIVERED_BATCH: Final = 100

ADD_KEY: Final = text(
    "INSERT INTO events.inbox_keys (app, topic, key, number) VALUES (:app, :topic, :key, 0)"
    " ON CONFLICT DO NOTHING"
)
# The publisher keeps an event in its outbox until every subscriber has recorded it.
LOCK_KEY: Final = text(
    "SELECT number, EXISTS (SELECT FROM events.outbox WHERE number = :previous AND topic = :topic)"
    " FROM events.inbox_keys WHERE app = :app AND topic = :topic AND key = :key FOR UPDATE"
)
MOVE_KEY: Final = text(
    "UPDATE events.inbox_keys SET number = :number, at = now()"
    " WHERE app = :app AND topic = :topic AND key = :key"
)
BURY: Final = text(
    "INSERT INTO events.dead_letters (id, app, topic, event_id, event, user_id, error, attempts)"
    " VALUES (:id, :app, :topic, :event, :body, :user, :error, :attempts)"
    " ON CONFLICT (app, topic, event_id) DO NOTHING"
)
# $1 app, $2 topics
SUBSCRIBE: Final = """
    WITH added AS (
        INSERT INTO events.subscriptions (app, topic) SELECT $1, unnest($2::text[])
        ON CONFLICT DO NOTHING
    )
    DELETE FROM events.subscriptions WHERE app = $1 AND topic != ALL($2::text[])
"""
# $1 app, $2 topic, $3 event id
COUNT_FAILURE: Final = """
    INSERT INTO events.inbox_failures AS f (app, topic, event_id, attempts) VALUES ($1, $2, $3, 1)
    ON CONFLICT (app, topic, event_id) DO UPDATE SET attempts = f.attempts + 1
    RETURNING attempts
"""
# $1 app, $2 unordered topics, $3 ordered topics, $4 seconds, $5 limit
UNDELIVERED: Final = """
    SELECT o.topic, o.body FROM events.outbox o
    WHERE o.topic = ANY($2::text[] || $3::text[])
        AND o.published_at < now() - make_interval(secs => $4::double precision)
        AND CASE WHEN o.topic = ANY($2::text[]) THEN NOT EXISTS (
            SELECT FROM events.inbox i
            WHERE i.app = $1 AND i.topic = o.topic AND i.event_id = o.event_id
        ) ELSE NOT EXISTS (
            SELECT FROM events.inbox_keys k
            WHERE k.app = $1 AND k.topic = o.topic AND k.key = o.key AND k.number >= o.number
        ) END
    ORDER BY o.number LIMIT $5
"""
COUNT: Final = "SELECT count(*) FROM events.dead_letters WHERE app = $1 AND user_id = $2"
FORGET: Final = "DELETE FROM events.dead_letters WHERE app = $1 AND user_id = $2"
_EXPIRED: Final = """
    DELETE FROM events.{table} WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM events.{table} WHERE at < now() - make_interval(days => $1) LIMIT $2
    )) RETURNING 1
"""
PURGES: Final = (
    (_EXPIRED.format(table="inbox"), INBOX_DAYS),
    (_EXPIRED.format(table="inbox_failures"), INBOX_DAYS),
    (_EXPIRED.format(table="inbox_keys"), KEY_DAYS),
    (_EXPIRED.format(table="outbox_keys"), OUTBOX_KEY_DAYS),
    (_EXPIRED.format(table="dead_letters"), DEAD_LETTER_DAYS),
)

log = structlog.get_logger()

Handler = Callable[[Event[Any], Transaction], Awaitable[None]]


class _NotYet(Exception):
    """The key's previous event was not handled yet."""


async def run_handler(handler: Handler, event: Event[Any], transaction: Transaction) -> None:
    """Run a handler within HANDLER_SECONDS, else TimeoutError."""
    async with asyncio.timeout(HANDLER_SECONDS):
        await handler(event, transaction)


class Inbox:
    """The events that an app received.

    The handler's changes in the transaction happen exactly once. What it does outside must be idempotent by the
    event's id, as it is repeated if the process dies before the commit.
    """

    def __init__(self, app_id: str, database: Database, clock: Clock) -> None:
        self._app_id = app_id
        self._database = database
        self._clock = clock

    async def subscribe(self, topics: Iterable[AnyTopic]) -> None:
        """Let publishers keep the events of these topics, and of no others, until this app has recorded them."""
        await self._database.fetch(SUBSCRIBE, self._app_id, [topic.name for topic in topics])

    async def receive(self, topic: AnyTopic, message: bytes, handler: Handler) -> bool:
        """Handle a delivery in the trace of the event; whether it is done, else it has to be delivered again."""
        try:
            envelope = decode(message)
        except RpcError as error:
            return await self._reject(topic, message, error)
        with span_from(envelope.traceparent, f"handle {topic.name}"):
            return await self._receive(topic, envelope, handler)

    async def _receive(self, topic: AnyTopic, envelope: Envelope, handler: Handler) -> bool:
        try:
            await self._handle_in_order(topic, envelope, handler)
        except _NotYet:
            return False
        except Exception as error:
            return await self._failed(topic, envelope, error)
        return True

    async def _reject(self, topic: AnyTopic, message: bytes, error: RpcError) -> bool:
        """Keep a message that is not a CloudEvent as a dead letter, under the hash of its content."""
        event_id = hashlib.sha256(message).hexdigest()[:32]
        content = {"raw": message.decode("utf-8", "replace")}
        async with self._database.transaction() as transaction:
            await self._bury(transaction, topic.name, event_id, content, error, 1)
        return True

    async def undelivered(self, topics: Iterable[AnyTopic]) -> list[tuple[str, bytes]]:
        """The oldest events that the broker has not delivered for a while: topics and messages."""
        known = list(topics)
        rows = await self._database.fetch(
            UNDELIVERED,
            self._app_id,
            [topic.name for topic in known if not topic.ordered],
            [topic.name for topic in known if topic.ordered],
            UNDELIVERED_SECONDS,
            UNDELIVERED_BATCH,
        )
        return [(row["topic"], row["body"].encode()) for row in rows]

    async def count_dead_letters(self, user_id: str) -> int:
        """The number of dead letters whose data has this `userId`."""
        return (await self._database.fetch_one(COUNT, self._app_id, user_id))[0]

    async def forget(self, user_id: str) -> None:
        """Delete the dead letters whose data has this `userId`."""
        await self._database.fetch(FORGET, self._app_id, user_id)

    async def purge(self, limit: int) -> int:
        """Delete up to `limit` expired rows of each kind; their number."""
        return sum([len(await self._database.fetch(purge, days, limit)) for purge, days in PURGES])

    async def _handle_in_order(self, topic: AnyTopic, envelope: Envelope, handler: Handler) -> None:
        """Handle an event; an early one waits a little for its predecessor, which is usually in flight."""
        for seconds in EARLY_SECONDS:
            try:
                return await self._handle(topic, envelope, handler)
            except _NotYet:
                await asyncio.sleep(seconds)
        return await self._handle(topic, envelope, handler)

    async def _handle(self, topic: AnyTopic, envelope: Envelope, handler: Handler) -> None:
        async with self._database.transaction() as transaction:
            if not await self._admit(transaction, topic, envelope):
                return
            await failpoint("inbox.before_effect")
            await run_handler(handler, envelope.open(topic), transaction)
            await failpoint("inbox.before_commit")
        await failpoint("inbox.after_commit")

    async def _admit(self, transaction: Transaction, topic: AnyTopic, envelope: Envelope) -> bool:
        """Record an event; False if it was recorded before. A concurrent delivery waits for this transaction."""
        if topic.ordered:
            return await self._admit_in_order(transaction, topic, envelope)
        return await admit(transaction, self._app_id, topic.name, envelope.id)

    async def _admit_in_order(
        self, transaction: Transaction, topic: AnyTopic, envelope: Envelope
    ) -> bool:
        if not envelope.has_place:
            raise RpcError(ErrorCode.INVALID_ARGUMENT, f"An event of {topic.name} needs a key.")
        place = {"app": self._app_id, "topic": topic.name, "key": envelope.key}
        await transaction.execute(ADD_KEY, place)
        row = await transaction.execute(LOCK_KEY, {**place, "previous": envelope.previous})
        last, is_previous_kept = tuple[int, bool](row.one())
        if envelope.sequence <= last:
            return False
        # A predecessor that is not kept was published before this app subscribed, or has expired.
        if envelope.previous > last and is_previous_kept:
            raise _NotYet
        await transaction.execute(MOVE_KEY, {**place, "number": envelope.sequence})
        return True

    async def _failed(self, topic: AnyTopic, envelope: Envelope, error: Exception) -> bool:
        """Whether the event became a dead letter, else it has to be delivered again."""

        async def count_failure() -> int:
            names = (self._app_id, topic.name, envelope.id)
            return (await self._database.fetch_one(COUNT_FAILURE, *names))[0]

        problem, age = error_of(error), self._clock() - envelope.time
        names = {"topic": topic.name, "event_id": envelope.id, "code": problem.code}
        is_bug = problem.code is ErrorCode.INTERNAL
        log.warning("inbox.failed", **names, exc_info=error if is_bug else None)
        attempts = await attempts_if_given_up(error, age=age, count_failure=count_failure)
        return attempts is not None and await self._give_up(topic, envelope, problem, attempts)

    async def _give_up(
        self, topic: AnyTopic, envelope: Envelope, error: RpcError, attempts: int
    ) -> bool:
        """Keep the event as a dead letter and record it, so that later events of its key go on."""
        try:
            async with self._database.transaction() as transaction:
                is_placed = not topic.ordered or envelope.has_place
                if is_placed and not await self._admit(transaction, topic, envelope):
                    return True
                await self._bury(
                    transaction, topic.name, envelope.id, envelope.body, error, attempts
                )
        except _NotYet:
            return False
        return True

    async def _bury(
        self,
        transaction: Transaction,
        topic: str,
        event_id: str,
        body: dict[str, Any],
        error: RpcError,
        attempts: int,
    ) -> None:
        log.error("inbox.dead_letter", topic=topic, event_id=event_id, code=error.code)
        values = {
            "id": f"dlt_{uuid.uuid4().hex}",
            "app": self._app_id,
            "topic": topic,
            "event": event_id,
            "body": json.dumps(body, ensure_ascii=False),
            "user": _user_of(body),
            "error": error.to_status().model_dump_json(by_alias=True, exclude_none=True),
            "attempts": attempts,
        }
        await transaction.execute(BURY, values)


def _user_of(body: dict[str, Any]) -> str | None:
    data = body.get("data")
    user: Any = cast("dict[str, Any]", data).get("userId") if isinstance(data, dict) else None
    return user if isinstance(user, str) else None
