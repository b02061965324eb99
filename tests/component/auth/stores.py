"""The stores of the running replicas, used by a test directly at a time of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from services.auth.adapters.hashing import API_KEYS, KeyedHash, random_base62
from services.auth.adapters.limits import WindowCallCounter
from services.auth.adapters.openfga import OpenFgaRelations
from services.auth.adapters.postgres.audit import PostgresAuditLog
from services.auth.adapters.postgres.feed import PostgresAccessFeed
from services.auth.adapters.postgres.keys import PostgresApiKeys
from services.auth.adapters.postgres.outbox import PostgresOutbox
from services.auth.adapters.postgres.sessions import PostgresRevocations, PostgresSessions
from services.auth.service.keys import ApiKeyService
from services.auth.service.outbox import TupleOutbox
from services.cli.stack import Stack
from services.kit.access.limits import SlidingWindows
from services.kit.storage.db import Database

KEY_SECRET = "a secret of at least thirty-two characters"


@dataclass
class MovedClock:
    """A clock that stands still until it is moved."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Stores:
    """What the replicas have, at the time of a clock."""

    database: Database
    relations: OpenFgaRelations
    audit: PostgresAuditLog
    revocations: PostgresRevocations
    sessions: PostgresSessions
    keys: ApiKeyService


@asynccontextmanager
async def open_stores(servers: Stack, clock: MovedClock) -> AsyncIterator[Stores]:
    env, database = servers.environment.for_app("auth"), Database(servers.database_url())
    relations = OpenFgaRelations(
        env["AUTH_OPENFGA_URL"],
        env["AUTH_OPENFGA_TOKEN"],
        exclusive=lambda: database.exclusive("auth.openfga"),
        feed=PostgresAccessFeed(database, lambda: None),
    )
    audit, revocations = PostgresAuditLog(database, clock), PostgresRevocations(database, clock)
    windows = SlidingWindows(env["YOCASO_VALKEY_URL"])
    keys = ApiKeyService(
        database=database,
        keys=PostgresApiKeys(database),
        outbox=TupleOutbox(database, PostgresOutbox(), relations),
        audit=audit,
        revocations=revocations,
        counter=WindowCallCounter(windows),
        digest=KeyedHash(KEY_SECRET, API_KEYS),
        random_text=random_base62,
        clock=clock,
    )
    sessions = PostgresSessions(database)
    yield Stores(database, relations, audit, revocations, sessions, keys)
    await keys.close()
    await windows.close()
    await relations.close()
    await database.close()
