"""The change feed: in order whoever writes at the same time, kept for a while, and told of every way to lose access."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from services.auth.adapters.postgres import feed as postgres_feed
from services.auth.adapters.postgres.feed import PostgresAccessFeed, publish_statement
from services.auth.service.accounts import UserTuples
from services.cli.stack import Stack
from services.contracts.auth.topics import ACCESS_CHANGED
from services.kit.access.cache import ANY_ACCESS_CHANGE, AccessChange, AccessChanges
from services.kit.dapr.pubsub.outbox import Outbox
from services.kit.eventlog import migrate_event_log
from services.kit.storage.db import Database
from tests.component.auth.conftest import AuthApps
from tests.component.auth.stores import MovedClock, open_stores
from tests.component.auth.test_sharing import Person, World
from tests.requirements import requirement
from tests.support.wait import wait_until

WRITERS, REMOVALS = 4, 50


def of(number: object) -> AccessChange:
    return AccessChange(f"user-{number}", f"run:r{number}")


class Feeds:
    """Feeds of several processes on one database."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self.url = url
        self.woken = 0
        self._stack = stack

    def database(self) -> Database:
        database = Database(self.url)
        self._stack.push_async_callback(database.close)
        return database

    def another(self) -> PostgresAccessFeed:
        return PostgresAccessFeed(self.database(), self._wake)

    async def connection(self) -> asyncpg.Connection:
        connection = await asyncpg.connect(self.url)
        self._stack.push_async_callback(connection.close)
        return connection

    async def age(self, seconds: float) -> None:
        """Make all that is in the feed so much older."""
        older = "UPDATE auth.access_changes SET at = at - make_interval(secs => $1)"
        await (await self.connection()).execute(older, seconds)

    def _wake(self) -> None:
        self.woken += 1


@pytest.fixture
async def feeds(own_database_url: str) -> AsyncIterator[Feeds]:
    async with AsyncExitStack() as stack:
        yield Feeds(own_database_url, stack)


async def take(feed: PostgresAccessFeed, *changes: AccessChange) -> None:
    async with feed.publishing(changes):
        pass


@requirement("access:feed")
async def test_a_removal_is_in_the_feed_when_it_is_acknowledged_and_only_then(feeds: Feeds) -> None:
    feed, reader = feeds.another(), feeds.another()
    assert await reader.since(None) == AccessChanges(0, [ANY_ACCESS_CHANGE])
    async with feed.publishing([of(1), of(2)]):
        assert await reader.since(0) == AccessChanges(0, [])
        assert feeds.woken == 0
    assert await reader.since(0) == AccessChanges(1, [of(1), of(2)])
    assert feeds.woken == 1
    assert await reader.since(1) == AccessChanges(1, [])


@requirement("access:feed")
async def test_each_change_is_published_as_an_event_with_its_position(feeds: Feeds) -> None:
    database = feeds.database()
    await migrate_event_log(database)
    feed = PostgresAccessFeed(database, lambda: None, Outbox([ACCESS_CHANGED]))
    await take(feed, of(1), of(2))
    await take(feed, of(3))
    rows = await database.fetch("SELECT topic, body FROM events.outbox ORDER BY number")
    assert {row["topic"] for row in rows} == {"auth.access.changed.v1"}
    assert [json.loads(row["body"])["data"] for row in rows] == [
        {
            "position": "1",
            "changes": [
                {"userId": "user-1", "object": "run:r1"},
                {"userId": "user-2", "object": "run:r2"},
            ],
        },
        {"position": "2", "changes": [{"userId": "user-3", "object": "run:r3"}]},
    ]


@requirement("access:feed")
async def test_a_later_change_is_not_seen_before_an_earlier_one(feeds: Feeds) -> None:
    reader, late = feeds.another(), feeds.another()
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%access_feed%'"
    other = await feeds.connection()

    async def waits() -> bool:
        return await other.fetchval(blocked) == 1

    async with feeds.database().transaction() as early:
        await early.execute(publish_statement("early", [{"user_id": "user-1", "object": "run:r1"}]))
        publishing = asyncio.create_task(take(late, of(2)))
        await wait_until(waits, what="the later one to wait for the earlier")
        assert await reader.since(0) == AccessChanges(0, [])
    await publishing
    assert await reader.since(0) == AccessChanges(2, [of(1), of(2)])


@requirement("access:feed")
async def test_a_reader_beside_many_writers_gets_each_change_once(feeds: Feeds) -> None:
    reader = feeds.another()

    async def write(writer: int) -> None:
        feed = feeds.another()
        for number in range(REMOVALS):
            await take(feed, of(f"{writer}-{number}"))

    writing = asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    position, seen, reads = 0, list[AccessChange](), 0
    while len(seen) < WRITERS * REMOVALS:
        found = await reader.since(position)
        assert found.position >= position
        reads += bool(found.changes)
        position, seen = found.position, [*seen, *found.changes]
        assert not writing.done() or found.changes, "the reader has missed a change"
    await writing
    assert reads > 1  # it read while they wrote
    assert len(set(seen)) == len(seen) == position == WRITERS * REMOVALS


@requirement("access:feed")
async def test_a_removal_whose_outcome_nobody_told_gets_into_the_feed_all_the_same(
    feeds: Feeds,
) -> None:
    feed, other = feeds.another(), feeds.another()
    with pytest.raises(LookupError):
        async with feed.publishing([of(1)]):
            raise LookupError
    await other.publish_abandoned()
    assert (await other.since(0)).changes == []  # it may be under way
    await feeds.age(postgres_feed.ABANDONED_SECONDS)
    await other.publish_abandoned()
    assert await other.since(0) == AccessChanges(1, [of(1)])
    assert feeds.woken == 1


@requirement("access:feed")
async def test_a_removal_that_comes_after_it_was_given_up_is_told_again(feeds: Feeds) -> None:
    feed, other = feeds.another(), feeds.another()
    async with feed.publishing([of(1)]):  # a process that was frozen in here
        await feeds.age(postgres_feed.ABANDONED_SECONDS)
        await other.publish_abandoned()
        assert await other.since(0) == AccessChanges(1, [of(1)])
    assert await other.since(1) == AccessChanges(2, [of(1)])
    async with feed.publishing([of(2)]):  # and one that slept for longer
        await feeds.age(postgres_feed.ABANDONED_SECONDS)
        await other.publish_abandoned()
        await feeds.age(postgres_feed.KEPT_SECONDS)
        await other.purge()
    assert await other.since(3) == AccessChanges(4, [of(2)])


@requirement("access:feed")
async def test_whoever_is_too_far_behind_is_told_that_everything_changed(
    feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_feed, "PURGE_BATCH", 2)
    monkeypatch.setattr(postgres_feed, "MAX_READ", 3)
    feed = feeds.another()
    for number in range(5):
        await take(feed, of(number))
    await feeds.age(postgres_feed.KEPT_SECONDS)
    for number in (5, 6):
        await take(feed, of(number))
    await feed.purge()
    kept = "SELECT count(*) FROM auth.access_changes"
    assert await (await feeds.connection()).fetchval(kept) == 2
    assert await feed.since(4) == AccessChanges(7, [ANY_ACCESS_CHANGE])
    assert await feed.since(5) == AccessChanges(7, [of(5), of(6)])
    assert await feed.since(8) == AccessChanges(7, [ANY_ACCESS_CHANGE])  # the database was restored
    for number in (7, 8):
        await take(feed, of(number))
    assert await feed.since(5) == AccessChanges(9, [ANY_ACCESS_CHANGE])
    assert await feed.since(6) == AccessChanges(9, [of(6), of(7), of(8)])


class Ways:
    """Every way to lose access, through the real app."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.olga, self.bob = world.person("olga"), world.person("bob")
        self.organization = f"organization:o{secrets.token_hex(4)}"

    async def since(self, position: int | None) -> tuple[int, list[dict[str, str]]]:
        after = {} if position is None else {"after": str(position)}
        answer = await self.world.must("ListAccessChanges", **after)
        return int(answer["position"]), answer["changes"]

    async def shared(self, role: str = "VIEWER", subject: str | None = None) -> str:
        target = await self.world.made_by(self.olga)
        share = {"object": target, "subject": subject or self.bob.subject, "role": role}
        await self.olga.must("Share", **share)
        return target

    async def linked(self, **link: Any) -> tuple[str, str]:
        target = await self.world.made_by(self.olga)
        made = await self.olga.must("CreateShareLink", object=target, **link)
        await self.bob.must("OpenShareLink", token=made["token"])
        return target, made["linkId"]

    async def remove(self, subject: str, relation: str, target: str) -> None:
        a_tuple = {"subject": subject, "relation": relation, "object": target}
        await self.world.must("WriteTuples", deletes=[a_tuple])


@pytest.fixture(scope="module")
async def world(servers: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    apps = AuthApps(
        servers.environment.for_app("auth"), tmp_path_factory.mktemp("feed"), 7401 + 9_000
    )
    yield World(await apps.start().until_ready())
    apps.stop()


@pytest.fixture
def ways(world: World) -> Ways:
    return Ways(world)


Change = dict[str, str]
Take = Callable[[Ways], Awaitable[tuple[Awaitable[Any], Change]]]


def whom(person: Person, target: str) -> Change:
    return {"userId": person.name, "object": target}


async def by_unsharing(ways: Ways) -> Any:
    target = await ways.shared()
    unshare = ways.olga.must("Unshare", object=target, subject=ways.bob.subject)
    return unshare, whom(ways.bob, target)


async def by_a_lower_role(ways: Ways) -> Any:
    target = await ways.shared("EDITOR")
    share = ways.olga.must("Share", object=target, subject=ways.bob.subject, role="VIEWER")
    return share, whom(ways.bob, target)


async def by_unsharing_with_an_organization(ways: Ways) -> Any:
    members = f"{ways.organization}#member"
    target = await ways.shared(subject=members)
    return ways.olga.must("Unshare", object=target, subject=members), {"object": target}


async def by_leaving_an_organization(ways: Ways) -> Any:
    await ways.world.write(ways.bob.subject, "member", ways.organization)
    leave = ways.remove(ways.bob.subject, "member", ways.organization)
    return leave, {"userId": ways.bob.name}


async def by_revoking_the_link(ways: Ways) -> Any:
    target, link = await ways.linked()
    revoke = ways.olga.must("RevokeShareLink", object=target, linkId=link)
    return revoke, {"object": target}


async def by_the_link_s_end(ways: Ways) -> Any:
    ends = datetime.now(UTC) + timedelta(seconds=1)
    target, _ = await ways.linked(expiresAt=ends.isoformat())
    return asyncio.sleep(0), {"object": target}


async def by_deleting_the_object(ways: Ways) -> Any:
    target = await ways.shared()
    return ways.world.must("ForgetObject", object=target), whom(ways.bob, target)


@requirement("access:feed")
@pytest.mark.parametrize(
    "way",
    [
        by_unsharing,
        by_a_lower_role,
        by_unsharing_with_an_organization,
        by_leaving_an_organization,
        by_revoking_the_link,
        by_the_link_s_end,
        by_deleting_the_object,
    ],
)
async def test_every_way_to_lose_access_is_in_the_feed(ways: Ways, way: Take) -> None:
    take_away, change = await way(ways)
    position, _ = await ways.since(None)
    await take_away

    async def told() -> bool:
        return change in (await ways.since(position))[1]

    if way is not by_the_link_s_end:
        assert await told()  # acknowledged, so it is there
    await wait_until(told, what="the end of the access in the feed")


@requirement("access:feed", "access:erasure")
async def test_the_erasure_of_a_user_is_in_the_feed(ways: Ways, servers: Stack) -> None:
    target = await ways.shared()
    position, _ = await ways.since(None)
    async with open_stores(servers, MovedClock(datetime.now(UTC))) as stores:
        await UserTuples(stores.relations).erase(ways.bob.name)
    assert (await ways.since(position))[1] == [whom(ways.bob, target)]


@requirement("access:feed")
async def test_what_gives_access_empties_nobody_s_memory(ways: Ways) -> None:
    position, _ = await ways.since(None)
    target = await ways.world.made_by(ways.olga)
    link = await ways.olga.must("CreateShareLink", object=target)
    await ways.bob.must("OpenShareLink", token=link["token"])
    await ways.world.write(ways.bob.subject, "member", ways.organization)
    assert await ways.since(position) == (position, [])
