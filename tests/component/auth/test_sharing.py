"""Sharing through the real auth app: by user, by organization and by link, and what is left of it after."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from services.cli.stack import Stack
from services.contracts.apps import USER_SCOPES
from tests.component.auth.conftest import AuthApp, AuthApps
from tests.requirements import requirement
from tests.support.wait import wait_until

SERVICE = "AuthorizationService"
LONG_AGO = "2020-01-01T00:00:00Z"
HOUR = timedelta(hours=1)


@dataclass
class Person:
    """Somebody who comes through the edge."""

    app: AuthApp
    name: str

    @property
    def subject(self) -> str:
        return f"user:{self.name}"

    async def ask(self, method: str, **body: Any) -> tuple[int, Any]:
        headers = {
            "dapr-caller-app-id": "edge",
            "x-user-id": self.name,
            "x-user-email": "somebody@example.com",
            "x-scopes": " ".join(USER_SCOPES),
        }
        return await self.app.ask(SERVICE, method, body, headers)

    async def must(self, method: str, **body: Any) -> Any:
        status, answer = await self.ask(method, **body)
        assert status == 200, answer
        return answer

    async def refused(self, method: str, **body: Any) -> str:
        status, answer = await self.ask(method, **body)
        assert status >= 400, answer
        return answer["error"]["code"]


@dataclass
class World:
    """An auth app, and another app that writes tuples."""

    app: AuthApp

    def person(self, name: str) -> Person:
        return Person(self.app, f"{name}|{secrets.token_hex(4)}")

    async def internal(self, method: str, **body: Any) -> tuple[int, Any]:
        return await self.app.ask(SERVICE, method, body, {"dapr-caller-app-id": "llm"})

    async def must(self, method: str, **body: Any) -> Any:
        status, answer = await self.internal(method, **body)
        assert status == 200, answer
        return answer

    async def made_by(self, owner: Person, kind: str = "conversation") -> str:
        target = f"{kind}:{kind}_{secrets.token_hex(8)}"
        await self.write(owner.subject, "owner", target)
        return target

    async def write(self, subject: str, relation: str, target: str) -> None:
        a_tuple = {"subject": subject, "relation": relation, "object": target}
        await self.must("WriteTuples", writes=[a_tuple])

    async def may(self, person: Person, relation: str, target: str) -> bool:
        question = {"subject": person.subject, "relation": relation, "object": target}
        return (await self.must("Check", **question, fresh=True))["allowed"]


@pytest.fixture(scope="module")
async def world(servers: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    apps = AuthApps(servers.environment.for_app("auth"), tmp_path_factory.mktemp("sharing"))
    yield World(await apps.start().until_ready())
    apps.stop()


@requirement("access:sharing")
@pytest.mark.parametrize("kind", ["conversation", "file", "run"])
async def test_an_owner_gives_a_role_changes_it_and_takes_it_back(world: World, kind: str) -> None:
    olga, bob = world.person("olga"), world.person("bob")
    target = await world.made_by(olga, kind)
    given = await olga.must("Share", object=target, subject=bob.subject, role="EDITOR")
    assert given == {"subject": bob.subject, "role": "EDITOR"}
    assert await world.may(bob, "editor", target)
    await olga.must("Share", object=target, subject=bob.subject)
    assert not await world.may(bob, "editor", target)
    assert await world.may(bob, "viewer", target)
    listed = await olga.must("ListShares", object=target)
    assert listed["shares"] == [{"subject": bob.subject, "role": "VIEWER"}]
    assert (await bob.must("ListSharedWithMe", type=kind))["objects"] == [target]
    for _ in range(2):
        await olga.must("Unshare", object=target, subject=bob.subject)
    assert not await world.may(bob, "viewer", target)
    assert (await olga.must("ListShares", object=target))["shares"] == []
    assert await world.may(olga, "owner", target)


@requirement("access:sharing")
async def test_the_members_of_an_organization_and_of_a_group_have_what_it_is_given(
    world: World,
) -> None:
    olga, omar, gwen = (world.person(name) for name in ("olga", "omar", "gwen"))
    target = await world.made_by(olga)
    mark = secrets.token_hex(4)
    for person, holder in ((omar, f"organization:o{mark}"), (gwen, f"group:g{mark}")):
        await world.write(person.subject, "member", holder)
        await olga.must("Share", object=target, subject=f"{holder}#member")
        assert await world.may(person, "viewer", target)
        assert (await person.must("ListSharedWithMe"))["objects"] == [target]


@requirement("access:sharing")
async def test_what_one_owns_is_not_shared_with_one(world: World) -> None:
    olga = world.person("olga")
    await world.made_by(olga)
    assert (await olga.must("ListSharedWithMe"))["objects"] == []


def sharing_calls(target: str, other: Person) -> list[tuple[str, dict[str, Any]]]:
    """Every method that only the owner may call."""
    return [
        ("Share", {"object": target, "subject": other.subject}),
        ("Unshare", {"object": target, "subject": other.subject}),
        ("ListShares", {"object": target}),
        ("CreateShareLink", {"object": target}),
        ("RevokeShareLink", {"object": target, "linkId": f"link_{'0' * 32}"}),
    ]


@requirement("access:sharing", "access:foreign-as-missing")
async def test_nobody_but_the_owner_shares_and_a_foreign_object_is_as_one_that_never_was(
    world: World,
) -> None:
    olga, eve, vera = (world.person(name) for name in ("olga", "eve", "vera"))
    target, missing = await world.made_by(olga), f"conversation:conv_{secrets.token_hex(8)}"
    await olga.must("Share", object=target, subject=vera.subject, role="EDITOR")
    foreign, absent = sharing_calls(target, eve), sharing_calls(missing, eve)
    for (method, on_foreign), (_, on_missing) in zip(foreign, absent, strict=True):
        assert await vera.refused(method, **on_foreign) == "PERMISSION_DENIED", method
        answers = [await eve.ask(method, **body) for body in (on_foreign, on_missing)]
        assert answers[0][0] == 404
        assert answers[0] == answers[1], method
    assert not await world.may(eve, "viewer", target)


@requirement("access:sharing")
async def test_sharing_with_oneself_or_with_nobody_is_a_mistake(world: World) -> None:
    olga = world.person("olga")
    target = await world.made_by(olga)
    for subject in (
        olga.subject,
        "user:*",
        "organization:acme",
        "api_key:k",
        "share_link:l#holder",
    ):
        assert await olga.refused("Share", object=target, subject=subject) == "INVALID_ARGUMENT"
    assert await olga.refused("Share", object="api_key:k", subject="user:b") == "INVALID_ARGUMENT"


@requirement("access:share-links")
async def test_a_link_gives_its_role_to_who_opens_it_until_it_is_revoked(world: World) -> None:
    olga, bob, eve = (world.person(name) for name in ("olga", "bob", "eve"))
    target = await world.made_by(olga)
    link = await olga.must("CreateShareLink", object=target, role="EDITOR")
    assert not await world.may(bob, "viewer", target)
    for person in (bob, eve, bob):
        opened = await person.must("OpenShareLink", token=link["token"])
        assert opened == {"object": target, "role": "EDITOR"}
        assert await world.may(person, "editor", target)
    [shown] = (await olga.must("ListShares", object=target))["links"]
    assert shown["linkId"] == link["linkId"]
    assert "token" not in shown
    for _ in range(2):
        await olga.must("RevokeShareLink", object=target, linkId=link["linkId"])
    assert not await world.may(bob, "viewer", target)
    assert not await world.may(eve, "viewer", target)
    assert (await olga.must("ListShares", object=target))["links"] == []
    assert (await bob.must("ListSharedWithMe"))["objects"] == []


async def expiring_link(owner: Person, target: str) -> dict[str, Any]:
    """A link with an hour to live; `let_expire` ends it sooner."""
    later = (datetime.now(UTC) + HOUR).isoformat()
    return await owner.must("CreateShareLink", object=target, expiresAt=later)


async def let_expire(database_url: str, link: dict[str, Any]) -> None:
    """Have the hour of a link be over."""
    connection = await asyncpg.connect(database_url)
    over = "UPDATE auth.share_links SET expires_at = now() WHERE link_id = $1"
    assert await connection.execute(over, link["linkId"]) == "UPDATE 1"
    await connection.close()


@requirement("access:share-links")
async def test_unknown_expired_and_revoked_links_answer_alike(
    world: World, database_url: str
) -> None:
    olga, bob = world.person("olga"), world.person("bob")
    target = await world.made_by(olga)
    revoked = await olga.must("CreateShareLink", object=target)
    await olga.must("RevokeShareLink", object=target, linkId=revoked["linkId"])
    expired = await expiring_link(olga, target)
    await let_expire(database_url, expired)
    tokens = (revoked["token"], expired["token"], "yl_" + "0" * 48)
    answers = [await bob.ask("OpenShareLink", token=token) for token in tokens]
    assert answers[0][0] == 404
    assert answers[0] == answers[1] == answers[2]
    past = await olga.refused("CreateShareLink", object=target, expiresAt=LONG_AGO)
    assert past == "INVALID_ARGUMENT"


@requirement("access:share-links")
async def test_who_opened_a_link_loses_it_when_its_time_is_over(
    world: World, database_url: str
) -> None:
    olga, bob = world.person("olga"), world.person("bob")
    target = await world.made_by(olga)
    link = await expiring_link(olga, target)
    await bob.must("OpenShareLink", token=link["token"])
    assert await world.may(bob, "viewer", target)
    await let_expire(database_url, link)

    async def lost() -> bool:
        return not await world.may(bob, "viewer", target)

    await wait_until(lost, 10, "the role to end with the link")


@requirement("access:share-links")
async def test_a_link_of_another_object_is_not_revoked_by_its_name(world: World) -> None:
    olga = world.person("olga")
    one, other = await world.made_by(olga), await world.made_by(olga)
    link = await olga.must("CreateShareLink", object=one)
    assert await olga.refused("RevokeShareLink", object=other, linkId=link["linkId"]) == "NOT_FOUND"
    assert len((await olga.must("ListShares", object=one))["links"]) == 1


@requirement("access:share-links")
async def test_neither_the_database_nor_the_log_has_a_token(
    world: World, database_url: str
) -> None:
    olga, bob = world.person("olga"), world.person("bob")
    target = await world.made_by(olga)
    token = (await olga.must("CreateShareLink", object=target))["token"]
    await bob.must("OpenShareLink", token=token)
    assert len(bytes.fromhex(token.removeprefix("yl_"))) * 8 >= 160
    connection = await asyncpg.connect(database_url)
    seen = world.app.log.read_text()
    for table in ("share_links", "outbox", "audit_events"):
        rows = await connection.fetch(f"SELECT {table}::text AS row FROM auth.{table}")
        seen += "".join(row["row"] for row in rows)
    await connection.close()
    assert target in seen
    for secret in (token, token.removeprefix("yl_"), token.encode().hex()):
        assert secret not in seen


@requirement("access:object-deletion")
async def test_a_deleted_object_leaves_neither_fact_nor_link(
    world: World, database_url: str
) -> None:
    olga, bob, eve = (world.person(name) for name in ("olga", "bob", "eve"))
    target = await world.made_by(olga)
    await olga.must("Share", object=target, subject=bob.subject)
    link = await olga.must("CreateShareLink", object=target)
    await eve.must("OpenShareLink", token=link["token"])
    for _ in range(2):
        await world.must("ForgetObject", object=target)
    for person in (olga, bob, eve):
        assert not await world.may(person, "viewer", target)
    assert (await world.must("ListUsers", relation="viewer", object=target))["subjects"] == []
    holders = {"relation": "holder", "object": f"share_link:{link['linkId']}"}
    assert (await world.must("ListUsers", **holders))["subjects"] == []
    assert await eve.refused("OpenShareLink", token=link["token"]) == "NOT_FOUND"
    connection = await asyncpg.connect(database_url)
    left = await connection.fetchval(
        "SELECT count(*) FROM auth.share_links WHERE object = $1", target
    )
    await connection.close()
    assert left == 0


@requirement("access:sharing")
async def test_every_change_of_sharing_is_in_the_owners_log(
    world: World, database_url: str
) -> None:
    olga, bob = world.person("olga"), world.person("bob")
    target = await world.made_by(olga)
    await olga.must("Share", object=target, subject=bob.subject)
    await olga.must("Unshare", object=target, subject=bob.subject)
    link = await olga.must("CreateShareLink", object=target)
    await bob.must("OpenShareLink", token=link["token"])
    await olga.must("RevokeShareLink", object=target, linkId=link["linkId"])
    await bob.refused("ListShares", object=target)

    async def logged() -> list[Any]:
        rows = await connection.fetch(
            "SELECT action, actor, details->>'change' AS change FROM auth.audit_events"
            " WHERE owner = $1 AND object = $2 ORDER BY number",
            olga.subject,
            target,
        )
        return [tuple(row) for row in rows] if len(rows) >= 6 else []

    connection = await asyncpg.connect(database_url)
    assert await wait_until(logged, what="the events") == [
        ("SHARING_CHANGED", olga.name, "shared"),
        ("SHARING_CHANGED", olga.name, "unshared"),
        ("SHARING_CHANGED", olga.name, "link created"),
        ("SHARING_CHANGED", bob.name, "link opened"),
        ("SHARING_CHANGED", olga.name, "link revoked"),
        ("ACCESS_DENIED", bob.name, None),
    ]
    await connection.close()


async def test_what_an_organizations_key_shares_is_in_the_organizations_log(
    world: World, database_url: str
) -> None:
    service, eve = world.person("organization.acme"), world.person("eve")
    target = await world.made_by(service)
    await service.must("Share", object=target, subject="user:bob")
    assert await eve.refused("ListShares", object=target) == "NOT_FOUND"

    async def logs() -> list[str]:
        rows = await connection.fetch(
            "SELECT owner FROM auth.audit_events WHERE object = $1", target
        )
        return [row["owner"] for row in rows] if len(rows) >= 2 else []

    connection = await asyncpg.connect(database_url)
    log = f"organization:{service.name.removeprefix('organization.')}"
    assert await wait_until(logs, what="the events") == [log, log]
    await connection.close()


async def test_tuples_are_asked_and_written_by_apps_only(world: World) -> None:
    olga = world.person("olga")
    a_tuple = {"subject": olga.subject, "relation": "owner", "object": "conversation:c"}
    bodies: dict[str, dict[str, Any]] = {
        "Check": a_tuple,
        "BatchCheck": {"checks": [a_tuple]},
        "ListObjects": {"subject": olga.subject, "relation": "owner", "type": "file"},
        "ListUsers": {"relation": "owner", "object": "file:f"},
        "Expand": {"relation": "owner", "object": "file:f"},
        "WriteTuples": {"writes": [a_tuple]},
        "ForgetObject": {"object": "conversation:c"},
        "ReadChanges": {},
    }
    for method, body in bodies.items():
        assert await olga.refused(method, **body) == "PERMISSION_DENIED", method
        status, answer = await world.internal(method, **body)
        assert status == 200, (method, answer)


@requirement("access:fail-closed")
async def test_while_openfga_is_away_nobody_is_let_through_and_what_was_kept_comes_later(
    world: World, servers: Stack
) -> None:
    olga, bob, eve = (world.person(name) for name in ("olga", "bob", "eve"))
    target, other = await world.made_by(olga), await world.made_by(olga)
    link = await olga.must("CreateShareLink", object=target)
    await asyncio.to_thread(servers.halt, "openfga")
    try:
        question = {"subject": olga.subject, "relation": "owner", "object": target}
        for person in (olga, eve):
            assert await person.refused("ListShares", object=other) == "UNAVAILABLE"
        assert (await world.internal("Check", **question))[0] == 503
        assert (await world.internal("BatchCheck", checks=[question, question]))[0] == 503
        assert (await world.internal("WriteTuples", writes=[question]))[0] == 503
        assert (await world.internal("ForgetObject", object=target))[0] == 503
        assert await bob.refused("OpenShareLink", token=link["token"]) == "UNAVAILABLE"
    finally:
        await asyncio.to_thread(servers.restart, "openfga")

    async def delivered() -> bool:
        return await world.may(bob, "viewer", target)

    await wait_until(delivered, 10, "the opened link to count")
    assert await olga.must("ListShares", object=other) == {"shares": [], "links": []}
