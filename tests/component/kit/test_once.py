"""Outbox, inbox and job runs on Postgres alone: an event leaves with its commit, and takes effect once."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from pydantic import BaseModel
from sqlalchemy import text

from services.kit.clock import utc_now
from services.kit.contract import Empty
from services.kit.dapr.jobs.jobs import JobRun, Jobs, _encode
from services.kit.dapr.jobs.scheduler import Scheduler
from services.kit.dapr.pubsub.cloudevents import Event, encode, with_sequence
from services.kit.dapr.pubsub.inbox import Inbox
from services.kit.dapr.pubsub.outbox import Outbox, outbox_event
from services.kit.dapr.state import DurableState, StateConflict
from services.kit.dapr.state_postgres import PostgresStateStore
from services.kit.jobs import CronJob, OneShotJob
from services.kit.storage.db import Database, Transaction
from tests.component.pubsub.topics import MOVED, PLACED, OrderMoved, OrderPlaced
from tests.requirements import requirement

APP = "once"
TABLES = (
    "CREATE TABLE IF NOT EXISTS public.once_effects (name text)",
    # As daprd's component creates it; here runs none.
    "CREATE SCHEMA IF NOT EXISTS dapr",
    "CREATE TABLE IF NOT EXISTS dapr.state (key text PRIMARY KEY, value bytea NOT NULL, etag uuid NOT NULL,"
    " created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz, expires_at timestamptz)",
)
EFFECT = text("INSERT INTO public.once_effects VALUES (:name)")
COUNT = "SELECT count(*) FROM public.once_effects WHERE name = $1"
WAITING = "SELECT count(*) FROM events.outbox WHERE key = $1"
NEVER = CronJob("never", "0 0 0 1 1 *", "Is due once a year.")
REMIND = OneShotJob("remind", Empty, "Reminds.")
AT_ONCE = 4


class Head(BaseModel):
    count: int


@pytest.fixture
async def database(database: Database) -> Database:
    for table in TABLES:
        await database.fetch(table)
    return database


@pytest.fixture
def name() -> str:
    """Of the effects, and the key of the events of one test."""
    return uuid.uuid4().hex


async def effects(database: Database, name: str) -> int:
    return (await database.fetch_one(COUNT, name))[0]


async def waiting(database: Database, key: str) -> int:
    """The events of a key in the outbox."""
    return (await database.fetch_one(WAITING, key))[0]


# --- outbox ---


@requirement("kit:pubsub:outbox")
@pytest.mark.parametrize("fails", [False, True])
async def test_an_event_is_stored_if_and_only_if_its_transaction_commits(
    database: Database, name: str, fails: bool
) -> None:
    outbox = Outbox((MOVED,))

    async def change() -> None:
        async with database.transaction() as transaction:
            await transaction.execute(EFFECT, {"name": name})
            await outbox.publish(transaction, MOVED, OrderMoved(step=1), key=name)
            if fails:
                raise LookupError

    if fails:
        with pytest.raises(LookupError):
            await change()
    else:
        await change()
    kept = 0 if fails else 1
    assert (await effects(database, name), await waiting(database, name)) == (kept, kept)
    assert outbox.committed.is_set() is not fails


@requirement("kit:pubsub:actors")
async def test_an_actors_event_is_stored_if_and_only_if_its_state_is(
    database: Database, name: str
) -> None:
    store = PostgresStateStore(database, APP, Outbox((MOVED,)))
    one, two = (DurableState(store, f"MoveActor/{name}", Head) for _ in range(2))
    await one.load()
    await one.commit(Head(count=1), events=[outbox_event(MOVED, OrderMoved(step=1), key=name)])
    assert await waiting(database, name) == 1
    await two.load()
    await one.commit(Head(count=2), events=[outbox_event(MOVED, OrderMoved(step=2), key=name)])
    with pytest.raises(StateConflict):
        await two.commit(Head(count=2), events=[outbox_event(MOVED, OrderMoved(step=3), key=name)])
    assert await waiting(database, name) == 2


# --- inbox ---


def handler(name: str) -> Callable[[Event[Any], Transaction], Awaitable[None]]:
    async def handle(_: Event[Any], transaction: Transaction) -> None:
        await transaction.execute(EFFECT, {"name": name})

    return handle


@requirement("kit:pubsub:inbox")
async def test_an_event_that_is_delivered_again_takes_effect_once(
    database: Database, name: str
) -> None:
    inbox = Inbox(APP, database, utc_now)
    message = encode(PLACED, name, OrderPlaced(number=1), None).encode()
    deliveries = [inbox.receive(PLACED, message, handler(name)) for _ in range(AT_ONCE)]
    assert all(await asyncio.gather(*deliveries))
    assert await inbox.receive(PLACED, message, handler(name))
    assert await effects(database, name) == 1


@requirement("kit:pubsub:inbox", "kit:pubsub:order")
async def test_an_event_of_a_key_that_is_delivered_again_takes_effect_once(
    database: Database, name: str
) -> None:
    inbox = Inbox(APP, database, utc_now)
    message = with_sequence(encode(MOVED, name, OrderMoved(step=1), name), 7, 0).encode()
    deliveries = [inbox.receive(MOVED, message, handler(name)) for _ in range(AT_ONCE)]
    assert all(await asyncio.gather(*deliveries))
    assert await inbox.receive(MOVED, message, handler(name))
    assert await effects(database, name) == 1


# --- jobs ---


def recording_jobs(database: Database, name: str) -> Jobs:
    async def run(run: JobRun[Any]) -> None:
        async with run.complete() as transaction:
            await transaction.execute(EFFECT, {"name": name})

    jobs = Jobs(APP, (NEVER, REMIND), database, cast(Scheduler, None))
    jobs.add(NEVER, run)
    jobs.add(REMIND, run)
    return jobs


@requirement("kit:jobs:once")
async def test_a_run_that_is_delivered_again_or_at_once_takes_effect_once(
    database: Database, name: str
) -> None:
    jobs = recording_jobs(database, name)
    body = _encode(datetime.now(UTC), Empty())
    job = f"remind:{name}"
    await asyncio.gather(*(jobs.deliver(job, body) for _ in range(AT_ONCE)))
    assert await jobs.deliver(job, body)
    assert await effects(database, name) == 1


@requirement("kit:jobs:once")
async def test_a_tick_that_is_delivered_again_takes_effect_once(
    database: Database, name: str
) -> None:
    jobs = recording_jobs(database, name)
    await database.fetch("DELETE FROM events.jobs WHERE app = $1 AND name = $2", APP, NEVER.name)
    for _ in range(2):
        assert await jobs.deliver(NEVER.name, b"")
    assert await effects(database, name) == 1
