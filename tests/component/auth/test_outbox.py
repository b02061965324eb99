"""Relationship tuples that were committed with an object reach OpenFGA, whatever happens in between."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import func, select

from services.auth.adapters.openfga import OpenFgaRelations
from services.auth.adapters.postgres.feed import PostgresAccessFeed
from services.auth.adapters.postgres.outbox import PostgresOutbox
from services.auth.service.outbox import TupleOutbox
from services.auth.tables import outbox
from services.cli.stack import Stack
from services.contracts.auth.authorization import RelationTuple
from services.kit.errors import ErrorCode, RpcError
from services.kit.storage.db import Database
from tests.component.auth.conftest import START_SECONDS, AuthApps
from tests.component.auth.test_sharing import World
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.wait import wait_until


def a_tuple(subject: str, relation: str = "owner", target: str = "run:one") -> RelationTuple:
    return RelationTuple(subject=subject, relation=relation, object=target)


class Store:
    """A database, tuples, and an outbox between them."""

    def __init__(self, servers: Stack, database: Database) -> None:
        self.database = database
        name = f"outbox-{secrets.token_hex(4)}"
        self.relations = OpenFgaRelations(
            servers.url("openfga"),
            servers.environment.secrets["openfgaToken"],
            exclusive=lambda: database.exclusive(name),
            feed=PostgresAccessFeed(database, lambda: None),
            store=name,
        )
        self.outbox = TupleOutbox(database, PostgresOutbox(), self.relations)

    async def add(self, writes: list[RelationTuple], deletes: list[RelationTuple]) -> None:
        async with self.database.transaction() as transaction:
            await self.outbox.add(transaction, writes, deletes)

    async def waiting(self) -> int:
        rows = await self.database.execute(select(func.count()).select_from(outbox))
        return rows.scalar_one()


@pytest.fixture
async def store(servers: Stack, own_database_url: str) -> AsyncIterator[Store]:
    database = Database(own_database_url)
    opened = Store(servers, database)
    yield opened
    await opened.relations.close()
    await database.close()


@requirement("access:outbox")
async def test_changes_are_delivered_in_their_order_and_then_gone(store: Store) -> None:
    ada = a_tuple("user:ada")
    for _ in range(15):
        await store.add([ada], [])
        await store.add([], [ada])
    await store.add([ada], [])
    assert await store.outbox.relay()
    assert await store.relations.read(ada.object) == [ada]
    assert await store.waiting() == 0


@requirement("access:outbox")
async def test_what_was_not_committed_is_not_delivered(store: Store) -> None:
    async def abandoned() -> None:
        async with store.database.transaction() as transaction:
            await store.outbox.add(transaction, [a_tuple("user:ada")])
            raise LookupError

    with pytest.raises(LookupError):
        await abandoned()
    assert await store.outbox.relay()
    assert await store.relations.read("run:one") == []


@requirement("access:outbox")
async def test_what_openfga_refuses_does_not_hold_up_what_comes_after(store: Store) -> None:
    await store.add([a_tuple("user:ada", "sovereign")], [])
    await store.add([a_tuple("user:ada")], [])
    assert await store.outbox.relay()
    assert await store.relations.read("run:one") == [a_tuple("user:ada")]
    assert await store.waiting() == 1  # kept, for whoever looks for the mistake


@requirement("access:outbox")
async def test_while_openfga_is_away_changes_wait(store: Store, servers: Stack) -> None:
    await store.add([a_tuple("user:ada")], [])
    await asyncio.to_thread(servers.halt, "openfga")
    try:
        assert not await store.outbox.relay()
        with pytest.raises(RpcError) as later:
            await store.outbox.deliver()
    finally:
        await asyncio.to_thread(servers.restart, "openfga")
    assert later.value.code is ErrorCode.UNAVAILABLE
    assert await store.waiting() == 1
    assert await store.outbox.relay()
    assert await store.relations.read("run:one") == [a_tuple("user:ada")]


async def test_relays_that_run_together_deliver_each_change(store: Store) -> None:
    relays = [TupleOutbox(store.database, PostgresOutbox(), store.relations) for _ in range(3)]
    tuples = [a_tuple(f"user:u{number}") for number in range(30)]
    for each in tuples:
        await store.add([each], [])
    assert all(await asyncio.gather(*(relay.relay() for relay in relays)))
    found = await store.relations.read("run:one")
    assert sorted(each.subject for each in found) == sorted(each.subject for each in tuples)


@pytest.mark.timeout(150)
@requirement("access:outbox")
async def test_a_process_that_dies_between_commit_and_delivery_loses_nothing(
    auth_apps: AuthApps, empty_database_url: str, tmp_path: Path
) -> None:
    own = {
        "YOCASO_DATABASE_URL": empty_database_url
    }  # migrated by the app; nothing else is to be delivered
    with FailpointControl(tmp_path / "failpoints", "auth.outbox.deliver:1:kill") as control:
        dying = auth_apps.start({**own, **control.environment})
        first = World(await dying.until_ready())
        olga, bob = first.person("olga"), first.person("bob")
        target = await first.made_by(olga)
        with pytest.raises(aiohttp.ClientError):
            await olga.must("Share", object=target, subject=bob.subject)
        assert await asyncio.to_thread(dying.process.wait, START_SECONDS) != 0
    second = World(await auth_apps.start(own).until_ready())

    async def delivered() -> Any:
        return await second.may(bob, "viewer", target)

    await wait_until(delivered, 10, "the next process to deliver it")
