"""The relay: publishes the events of an app's outbox through its sidecar, at least once, from one replica at a time."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from services.kit.background import background, every
from services.kit.dapr.pubsub.cloudevents import CONTENT_TYPE, with_sequence
from services.kit.dapr.pubsub.outbox import Outbox
from services.kit.dapr.sidecar import Sidecar
from services.kit.dapr.state_rows import StateStore, StateStoreError, StateWrite
from services.kit.errors import RpcError
from services.kit.failpoints import failpoint
from services.kit.storage.db import Database
from services.kit.topics import AnyTopic

PUBSUB: Final = "pubsub"
BATCH: Final = 256
LEASE_SECONDS: Final = 5.0
"""How long another replica waits for a relay that died; longer than `PUBLISH_SECONDS`."""
PUBLISH_SECONDS: Final = 3.0
POLL_SECONDS: Final = 1.0
"""How often the outbox is looked at without a wake-up: for events that a dead replica left."""
COLLECT_SECONDS: Final = 0.01
"""How long the relay waits after a wake-up, so that one batch takes the events of a burst."""
ABANDONED_SECONDS: Final = 60.0
"""Age at which an announced event whose actor state was never committed is dropped; see `state_component`."""
CONFIRM_SECONDS: Final = 3.0
"""How often published events that every subscriber has recorded are removed."""
KEPT_HOURS: Final = 24
"""How long a published event waits for a subscriber that does not record it."""

WAITING: Final = "SELECT 1 FROM events.outbox WHERE app = $1 AND published_at IS NULL LIMIT 1"

# $1 app, $2 relay, $3 seconds of lease, $4 limit, $5 seconds until abandoned; nothing while another relay has the lease
TAKE: Final = """
    WITH lease AS (
        INSERT INTO events.outbox_relays AS r (app, owner, lease_until)
        VALUES ($1, $2, now() + make_interval(secs => $3::double precision))
        ON CONFLICT (app) DO UPDATE SET owner = excluded.owner, lease_until = excluded.lease_until
        WHERE r.owner = excluded.owner OR r.lease_until < now()
        RETURNING 1
    )
    SELECT o.number, o.topic, o.key, o.body, o.state_key, k.number AS previous,
        o.created_at < now() - make_interval(secs => $5::double precision) AS abandoned
    FROM events.outbox o LEFT JOIN events.outbox_keys k ON k.topic = o.topic AND k.key = o.key
    WHERE o.app = $1 AND o.published_at IS NULL AND EXISTS (SELECT FROM lease)
    ORDER BY o.number LIMIT $4
"""

# of the last event per ordered key: $1 topics, $2 keys, $3 numbers; of the events that are done: $4 numbers, $5 messages
FINISH: Final = """
    WITH keys AS (
        INSERT INTO events.outbox_keys AS k (topic, key, number)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])
        ON CONFLICT (topic, key) DO UPDATE
        SET number = greatest(k.number, excluded.number), at = now()
    ), kept AS (
        UPDATE events.outbox o SET published_at = now(), body = p.body
        FROM unnest($4::bigint[], $5::text[]) AS p(number, body)
        WHERE o.number = p.number AND p.body IS NOT NULL
            AND EXISTS (SELECT FROM events.subscriptions s WHERE s.topic = o.topic)
        RETURNING o.number
    )
    DELETE FROM events.outbox
    WHERE number = ANY($4::bigint[]) AND number NOT IN (SELECT number FROM kept)
"""

# $1 app, $2 hours, $3 limit
CONFIRM: Final = """
    DELETE FROM events.outbox WHERE number = ANY(ARRAY(
        SELECT o.number FROM events.outbox o
        WHERE o.app = $1 AND o.published_at IS NOT NULL AND (
            o.published_at < now() - make_interval(hours => $2) OR NOT EXISTS (
                SELECT FROM events.subscriptions s WHERE s.topic = o.topic AND NOT EXISTS (
                    SELECT FROM events.inbox i
                    WHERE i.app = s.app AND i.topic = o.topic AND i.event_id = o.event_id
                ) AND NOT EXISTS (
                    SELECT FROM events.inbox_keys k
                    WHERE k.app = s.app AND k.topic = o.topic AND k.key = o.key AND k.number >= o.number
                )
            )
        ) LIMIT $3
    )) RETURNING 1
"""
RELEASE: Final = "DELETE FROM events.outbox_relays WHERE app = $1 AND owner = $2"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An event in the outbox."""

    number: int
    topic: str
    key: str | None
    body: str | None
    state_key: str | None
    previous: int | None
    abandoned: bool


@dataclass(slots=True)
class _Outcome:
    """The events that are done, each with the message that was published, and the last one of these."""

    done: list[tuple[_Waiting, str | None]]
    last: _Waiting | None = None


class Relay:
    """Publishes an app's events in the order of their commits per key; a failure leaves them for the next attempt.

    An event stays in the outbox until every subscribing app has recorded it, as a broker may lose it.
    """

    def __init__(
        self,
        app_id: str,
        topics: Iterable[AnyTopic],
        outbox: Outbox,
        database: Database,
        sidecar: Sidecar,
        state: StateStore | None,
    ) -> None:
        self._app_id = app_id
        self._topics: Mapping[str, AnyTopic] = {topic.name: topic for topic in topics}
        self._outbox = outbox
        self._database = database
        self._sidecar = sidecar
        self._state = state
        self._owner = uuid.uuid4()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish and remove events in the background for the duration of the block."""
        confirming = every(CONFIRM_SECONDS, self.confirm, "outbox confirmation")
        relaying = asyncio.create_task(self._loop(), name="outbox relay")
        async with background(confirming), background(relaying):
            yield

    async def close(self) -> None:
        """Let another replica take over at once."""
        await self._database.fetch(RELEASE, self._app_id, self._owner)

    async def relay(self) -> bool:
        """Publish every waiting event; False if some are left: another relay has the lease, or publishing failed."""
        if await self._database.fetch_one(WAITING, self._app_id) is None:
            return True
        while True:
            arguments = (self._app_id, self._owner, LEASE_SECONDS, BATCH, ABANDONED_SECONDS)
            found = [_Waiting(*row) for row in await self._database.fetch(TAKE, *arguments)]
            if not found:
                return await self._database.fetch_one(WAITING, self._app_id) is None
            done = await self._publish(found)
            if done < len(found):
                return False
            if len(found) < BATCH:
                return True

    async def confirm(self) -> None:
        """Remove published events that every subscriber has recorded."""
        arguments = (self._app_id, KEPT_HOURS, BATCH)
        while len(await self._database.fetch(CONFIRM, *arguments)) == BATCH:
            pass

    async def _loop(self) -> None:
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._outbox.committed.wait()
                await asyncio.sleep(COLLECT_SECONDS)
            except TimeoutError:
                pass
            self._outbox.committed.clear()
            try:
                await self.relay()
            except RpcError as error:  # Postgres does not answer; the next poll tries again
                log.warning("outbox.unavailable", code=error.code)
            except Exception:
                log.exception("outbox.relay_failed")

    async def _publish(self, found: Sequence[_Waiting]) -> int:
        """Publish events, concurrently but in order per key; the number of those that are done."""
        groups: dict[object, list[_Waiting]] = {}
        for each in found:
            group = (each.topic, each.key) if self._is_ordered(each) else each.number
            groups.setdefault(group, []).append(each)
        await failpoint("outbox.before_publish")
        outcomes = await asyncio.gather(*(self._publish_group(group) for group in groups.values()))
        done = list(itertools.chain.from_iterable(each.done for each in outcomes))
        await failpoint("outbox.before_remove")
        await self._finish(done, [each.last for each in outcomes if each.last])
        return len(done)

    async def _publish_group(self, group: Sequence[_Waiting]) -> _Outcome:
        """Publish one after the other; stops at the first failure. Abandoned events are done without a publication."""
        outcome = _Outcome([])
        previous = group[0].previous or 0
        for each in group:
            try:
                body = await self._body(each)
                if body is None and not each.abandoned:
                    break
                if body is not None:
                    body = await self._send(each, body, previous)
                    outcome.last, previous = each, each.number
            except (KeyError, StateStoreError) as error:
                log.warning("outbox.publish_failed", topic=each.topic, error=str(error))
                break
            outcome.done.append((each, body))
        return outcome

    async def _send(self, event: _Waiting, body: str, previous: int) -> str:
        """Publish an event; the message as the broker has it."""
        if self._topics[event.topic].ordered:
            body = with_sequence(body, event.number, previous)
        await self._sidecar.publish(
            PUBSUB, event.topic, body.encode(), CONTENT_TYPE, PUBLISH_SECONDS
        )
        return body

    async def _body(self, event: _Waiting) -> str | None:
        """The event; None for one whose actor state is not committed."""
        if event.state_key is None:
            return event.body
        if self._state is None:
            raise StateStoreError("the app has no actor state")
        stored = await self._state.read(event.state_key)
        return stored.data.decode() if stored.data else None

    async def _finish(
        self, done: Sequence[tuple[_Waiting, str | None]], last: Sequence[_Waiting]
    ) -> None:
        """Remove events, or keep them for their subscribers.

        State rows first: an event whose state row alone is gone is dropped as abandoned.
        """
        rows = [StateWrite(each.state_key, None) for each, _ in done if each.state_key]
        if rows and self._state is not None:
            await self._state.write(rows)
        keys = [each for each in last if self._is_ordered(each)]
        if done:
            await self._database.fetch(
                FINISH,
                [each.topic for each in keys],
                [each.key for each in keys],
                [each.number for each in keys],
                [each.number for each, _ in done],
                [body for _, body in done],
            )

    def _is_ordered(self, event: _Waiting) -> bool:
        return event.topic in self._topics and self._topics[event.topic].ordered
