"""Relationship tuples in a real OpenFGA: written, asked and taken back, by ids of any user, by several replicas."""

import asyncio
import copy
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.auth.adapters.openfga import OpenFgaRelations
from services.auth.adapters.openfga.store import MODEL, PinnedStore
from services.auth.adapters.postgres.feed import PostgresAccessFeed
from services.auth.app import MIGRATIONS
from services.auth.tables import SCHEMA
from services.cli.stack import Stack
from services.contracts.auth.authorization import RelationTuple
from services.kit.access.cache import ANY_ACCESS_CHANGE
from services.kit.errors import ErrorCode, RpcError
from services.kit.storage.db import Database
from tests.requirements import requirement

ODD_IDS = ("idp|0:a@b.example", "service:ci", "A-z_0.9|:@", "a" + ":" * 127)
NEVER_MADE = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
REPLICAS = 4


def a_tuple(subject: str, relation: str, target: str) -> RelationTuple:
    return RelationTuple(subject=subject, relation=relation, object=target)


def a_conversation() -> str:
    return f"conversation:conv_{secrets.token_hex(6)}"


class Replicas:
    """Adapters of several processes on one store of these tests' own."""

    def __init__(self, servers: Stack, database: Database) -> None:
        self.store = f"relations-{secrets.token_hex(4)}"
        self.feed = PostgresAccessFeed(database, lambda: None)
        self._servers = servers
        self._database = database
        self._open: list[OpenFgaRelations] = []

    def exclusive(self) -> AbstractAsyncContextManager[object]:
        return self._database.exclusive(self.store)

    def another(self) -> OpenFgaRelations:
        adapter = OpenFgaRelations(
            self._servers.url("openfga"),
            self._servers.environment.secrets["openfgaToken"],
            exclusive=self.exclusive,
            feed=self.feed,
            store=self.store,
        )
        self._open.append(adapter)
        return adapter

    async def close(self) -> None:
        await asyncio.gather(*(adapter.close() for adapter in self._open))


@pytest.fixture
async def replicas(servers: Stack, database_url: str) -> AsyncIterator[Replicas]:
    database = Database(database_url)
    await database.migrate(SCHEMA, MIGRATIONS)
    replicas = Replicas(servers, database)
    yield replicas
    await replicas.close()
    await database.close()


@pytest.fixture
async def relations(replicas: Replicas) -> OpenFgaRelations:
    return replicas.another()


async def allowed(relations: OpenFgaRelations, *asked: RelationTuple) -> list[bool]:
    return await relations.check(asked, fresh=True)


@requirement("access:model-pinned")
async def test_replicas_that_start_together_make_one_store_and_one_model(
    replicas: Replicas,
) -> None:
    adapters = [replicas.another() for _ in range(REPLICAS)]
    await asyncio.gather(*(adapter.prepare() for adapter in adapters))
    clients = [adapter._client for adapter in adapters]
    assert len({client.get_store_id() for client in clients}) == 1
    assert len({client.get_authorization_model_id() for client in clients}) == 1
    stores = await clients[0].list_stores({"name": replicas.store})
    models = await clients[0].read_authorization_models()
    assert (len(stores.stores), len(models.authorization_models)) == (1, 1)


@requirement("access:model-pinned")
async def test_a_new_model_is_written_at_the_next_start_and_the_old_one_stays_pinned_where_it_was(
    replicas: Replicas, tmp_path: Path
) -> None:
    before, after = replicas.another(), replicas.another()
    await before.prepare()
    newer = json.loads(MODEL.read_text())
    newer["type_definitions"].append(
        {**copy.deepcopy(newer["type_definitions"][1]), "type": "team"}
    )
    (tmp_path / "newer.json").write_text(json.dumps(newer))
    after._store = PinnedStore(
        after._client, replicas.store, replicas.exclusive, replicas.feed, tmp_path / "newer.json"
    )
    question = a_tuple("user:ada", "member", "team:one")
    position = (await replicas.feed.since(None)).position
    await after.write([question])
    assert (await replicas.feed.since(position)).changes == [ANY_ACCESS_CHANGE]
    assert await allowed(after, question) == [True]
    with pytest.raises(RpcError) as unknown:
        await allowed(before, question)
    assert unknown.value.code is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize("lost", ["store", "model"])
async def test_a_store_or_model_that_the_server_has_lost_is_looked_for_again(
    relations: OpenFgaRelations, lost: str
) -> None:
    owns = a_tuple("user:ada", "owner", a_conversation())
    await relations.write([owns])
    if lost == "store":
        relations._client.set_store_id(NEVER_MADE)
    else:
        relations._client.set_authorization_model_id(NEVER_MADE)
    assert await allowed(relations, owns) == [True]


@requirement("access:relations")
async def test_several_questions_are_answered_in_their_order(relations: OpenFgaRelations) -> None:
    one, other = a_conversation(), a_conversation()
    await relations.write(
        [a_tuple("user:ada", "editor", one), a_tuple("user:bob", "viewer", other)]
    )
    asked = [
        a_tuple("user:bob", "viewer", one),
        a_tuple("user:ada", "viewer", one),
        a_tuple("user:ada", "owner", one),
        a_tuple("user:bob", "viewer", other),
    ]
    assert await allowed(relations, *asked) == [False, True, False, True]
    assert [(await allowed(relations, each))[0] for each in asked] == [False, True, False, True]


@requirement("access:relations")
@pytest.mark.parametrize("name", ODD_IDS)
async def test_an_id_comes_back_as_it_was_whatever_is_in_it(
    relations: OpenFgaRelations, name: str
) -> None:
    user, target = f"user:{name}", a_conversation()
    owns = a_tuple(user, "owner", target)
    await relations.write([owns])
    assert await relations.read(target) == [owns]
    assert await relations.read_subject(user) == [owns]
    assert await relations.users("viewer", target, fresh=True) == [user]
    assert await relations.objects(user, "viewer", "conversation", fresh=True) == [target]
    assert (await relations.changes(None, 10, None)).changes[0].tuple == owns
    explained = await relations.expand("owner", target)
    assert (explained.operation, explained.subjects) == ("direct", [user])
    assert await allowed(relations, owns, a_tuple(user[:-1], "owner", target)) == [True, False]


@requirement("access:relations")
async def test_ids_that_differ_in_forbidden_characters_only_are_different(
    relations: OpenFgaRelations,
) -> None:
    target = a_conversation()
    await relations.write([a_tuple("user:a:b", "viewer", target)])
    others = [a_tuple(f"user:{name}", "viewer", target) for name in ("a|b", "a@b", "ab", "a")]
    assert await allowed(relations, *others) == [False] * len(others)


@requirement("access:relations")
async def test_tuples_are_written_all_or_none_and_as_often_as_one_likes(
    relations: OpenFgaRelations,
) -> None:
    target = a_conversation()
    good, bad = a_tuple("user:ada", "owner", target), a_tuple("user:ada", "sovereign", target)
    with pytest.raises(RpcError) as refused:
        await relations.write([good, bad])
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
    assert await relations.read(target) == []
    for _ in range(2):
        await relations.write([good])
    assert await relations.read(target) == [good]
    for _ in range(2):
        await relations.write([], [good])
    assert await relations.read(target) == []


async def test_what_the_model_does_not_know_is_refused_alone_and_among_others(
    relations: OpenFgaRelations,
) -> None:
    known = a_tuple("user:ada", "owner", a_conversation())
    for unknown in (
        a_tuple("user:ada", "owner", "planet:x"),
        a_tuple("user:ada", "sees", known.object),
    ):
        for asked in ([unknown], [known, unknown]):
            with pytest.raises(RpcError) as refused:
                await relations.check(asked, fresh=True)
            assert refused.value.code is ErrorCode.INVALID_ARGUMENT


@requirement("access:revoked-at-once")
async def test_the_first_fresh_check_after_a_revocation_says_no(replicas: Replicas) -> None:
    writer, reader = replicas.another(), replicas.another()
    for number in range(50):
        seen = a_tuple("user:ada", "viewer", f"file:f{number}")
        await writer.write([seen])
        assert await allowed(reader, seen) == [True]
        await writer.write([], [seen])
        assert await allowed(reader, seen) == [False]


async def test_more_facts_than_a_page_are_all_read(relations: OpenFgaRelations) -> None:
    target = a_conversation()
    shared = [a_tuple(f"user:u{number}", "viewer", target) for number in range(150)]
    await relations.write(shared[:100])
    await relations.write(shared[100:])
    assert {each.subject for each in await relations.read(target)} == {s.subject for s in shared}


async def test_tuples_about_a_user_are_found_in_every_type(relations: OpenFgaRelations) -> None:
    known = [
        a_tuple("user:ada", "owner", a_conversation()),
        a_tuple("user:ada", "member", "organization:acme"),
        a_tuple("user:ada", "viewer", "notification_topic:news"),
    ]
    await relations.write([*known, a_tuple("user:bob", "member", "organization:acme")])
    found = await relations.read_subject("user:ada")
    assert sorted(each.object for each in found) == sorted(each.object for each in known)


async def test_the_history_goes_on_where_its_cursor_says(relations: OpenFgaRelations) -> None:
    tuples = [a_tuple("user:ada", "owner", f"run:r{number}") for number in range(5)]
    for each in tuples[:3]:
        await relations.write([each])
    first = await relations.changes("run", 2, None)
    rest = await relations.changes("run", 10, first.cursor)
    assert [each.tuple for each in (*first.changes, *rest.changes)] == tuples[:3]
    assert (await relations.changes("run", 10, rest.cursor)).changes == []
    await relations.write([], [tuples[0]])
    [later] = (await relations.changes("run", 10, rest.cursor)).changes
    assert (later.tuple, later.written) == (tuples[0], False)


async def test_a_cursor_of_another_list_is_refused(relations: OpenFgaRelations) -> None:
    await relations.write([a_tuple("user:ada", "owner", "run:r")])
    page = await relations.changes("run", 1, None)
    for kind, cursor in (("file", page.cursor), (None, "rubbish")):
        with pytest.raises(RpcError) as refused:
            await relations.changes(kind, 1, cursor)
        assert refused.value.code is ErrorCode.INVALID_ARGUMENT


async def test_an_explanation_names_what_a_relation_comes_from(relations: OpenFgaRelations) -> None:
    await relations.write([a_tuple("organization:acme", "owner", "api_key:k")])
    root = await relations.expand("manager", "api_key:k")
    computed, through = root.children
    assert (root.operation, computed.computed_from) == ("union", ["api_key:k#owner"])
    assert through.operation == "from api_key:k#owner"
    assert through.computed_from == ["organization:acme#admin"]


@requirement("access:fail-closed")
@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_while_openfga_is_away_every_question_is_unavailable_and_then_answered_again(
    servers: Stack, relations: OpenFgaRelations, fault: str
) -> None:
    owns = a_tuple("user:ada", "owner", a_conversation())
    await relations.write([owns])
    if fault == "killed":
        await asyncio.to_thread(servers.halt, "openfga")
    else:
        servers.pause("openfga")
    try:
        calls: list[Callable[[], Any]] = [
            partial(relations.check, [owns], fresh=True),
            partial(relations.check, [owns, owns], fresh=True),
            partial(relations.write, [owns]),
            partial(relations.read, owns.object),
            partial(relations.objects, owns.subject, "viewer", "conversation", fresh=True),
            partial(relations.users, "viewer", owns.object, fresh=True),
            partial(relations.expand, "viewer", owns.object),
            partial(relations.changes, None, 1, None),
        ]
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
    finally:
        if fault == "killed":
            await asyncio.to_thread(servers.restart, "openfga")
        else:
            servers.resume("openfga")
    codes = [getattr(outcome, "code", outcome) for outcome in outcomes]
    assert codes == [ErrorCode.UNAVAILABLE] * len(calls)
    assert await allowed(relations, owns) == [True]


@requirement("access:fail-closed")
async def test_a_wrong_key_is_unavailable_never_a_yes(servers: Stack, replicas: Replicas) -> None:
    @asynccontextmanager
    async def nothing() -> AsyncIterator[None]:
        yield

    stranger = OpenFgaRelations(
        servers.url("openfga"), "not the key", exclusive=nothing, feed=replicas.feed
    )
    with pytest.raises(RpcError) as refused:
        await stranger.check([a_tuple("user:ada", "owner", "conversation:c")], fresh=True)
    assert refused.value.code is ErrorCode.UNAVAILABLE
    await stranger.close()
