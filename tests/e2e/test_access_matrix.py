"""Every operation of the OpenAPI document, asked by everybody about everything: what each may, and what nobody sees."""

import json
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from services.contracts.auth.audit import AUDIT_SERVICE
from services.contracts.auth.authorization import AUTHORIZATION_SERVICE
from services.contracts.auth.keys import API_KEY_SERVICE
from services.kit.errors import code_of
from tests.e2e.matrix import (
    BEARER,
    OK,
    PEOPLE,
    ROWS,
    Cell,
    Kind,
    Operation,
    Principal,
    Row,
    Standing,
    Target,
    asked,
    asked_for,
    cells,
    operations,
)
from tests.e2e.talk import missing
from tests.e2e.world import Person, World
from tests.requirements import requirement
from tests.support.platform import Client, Platform

OPERATIONS = operations()
ENDED = (Principal.SIGNED_OUT, Principal.REVOKED_KEY, Principal.REVOKED_KEY_TOKEN)
SHARED = (Target.VIEWED, Target.EDITED)
LISTED = (Kind.CONVERSATION, Kind.API_KEY, Kind.ORGANIZATION_KEY)
WORDED = ("conversations", "keys", "their keys", "events")
"""The lists that hold words of whose they are; the others hold ids only."""
TIMED = 150


@pytest.fixture(scope="module")
async def world(platform: Platform) -> AsyncIterator[World]:
    """The people of this file."""
    async with World(platform) as made:
        yield made


@dataclass(frozen=True, slots=True)
class Said:
    """All that a caller can see of an answer, but for what differs from call to call."""

    status: int
    headers: frozenset[str]
    text: str

    @property
    def code(self) -> str:
        """OK, or the code of the error."""
        return OK if self.status == 200 else json.loads(self.text)["error"]["code"]


async def ask(
    client: Client, operation: Operation, credential: str | None, body: Mapping[str, Any]
) -> Said:
    """Call an operation with just this credential."""
    headers = {"authorization": f"Bearer {credential}"} if credential else {}
    query, content = (body, None) if operation.verb == "get" else (None, body)
    async with client.session.request(
        operation.verb, client.url + operation.path, params=query, json=content, headers=headers
    ) as reply:
        shown = frozenset(name.lower() for name in reply.headers)
        return Said(reply.status, shown, await reply.text())


async def answer(world: World, row: Row, cell: Cell) -> Said:
    """What a cell answers."""
    operation = OPERATIONS[row.operation]
    caller = world.person(cell.principal)
    anew = row.spoils and cell.expected == OK
    if anew and row.kind is Kind.NOTHING:
        caller = await world.newcomer("leaving")
        return await ask(caller.client, operation, caller.client.token, row.rest)
    body = await world.body(row, cell.principal, cell.target, anew=anew)
    credential = await world.credential(cell.principal, operation.scope)
    return await ask(caller.client, operation, credential, body)


@requirement("access:matrix")
def test_every_operation_and_each_of_its_ids_has_a_row_and_every_row_an_operation() -> None:
    assert {row.operation for row in ROWS} == OPERATIONS.keys()
    for operation in OPERATIONS.values():
        named = {name for row in ROWS if row.operation == operation.id for name in row.names}
        assert named == operation.ids, operation.id
    assert len({row.name for row in ROWS}) == len(ROWS)
    planned = sum(len(list(cells(row, OPERATIONS[row.operation]))) for row in ROWS)
    wanted = asked_for(OPERATIONS)
    print(f"{planned} cells for {len(wanted)} questions about {len(OPERATIONS)} operations")
    assert asked(OPERATIONS) == wanted
    plain = sum(len(Principal) * (3 * len(each.ids) or 1) for each in OPERATIONS.values())
    assert len(wanted) == plain


@requirement("access:matrix", "access:scopes", "access:foreign-as-missing", "access:no-canary")
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_everybody_gets_what_the_contract_gives_and_sees_nothing_of_others(
    world: World, row: Row
) -> None:
    said: dict[tuple[Principal, Target], Said] = {}
    wrong: list[str] = []
    for cell in cells(row, OPERATIONS[row.operation]):
        got = said[cell.principal, cell.target] = await answer(world, row, cell)
        code = got.code
        if code != cell.expected or got.status != status_of(cell.expected):
            wrong.append(f"{cell}: {got.status} {got.text[:200]}")
        if cell.target not in SHARED and row.kind not in BEARER:
            for other in world.others(cell.principal):
                assert other.canary not in got.text, cell
    assert wrong == []
    if row.kind is not Kind.NOTHING and row.kind not in BEARER:
        for principal in Principal:
            foreign = said[principal, Target.FOREIGN]
            assert foreign == said[principal, Target.MISSING]
            if principal.standing is not Standing.IN:
                assert foreign == said[principal, Target.OWN]


def status_of(code: str) -> int:
    """The HTTP status of a code."""
    return 200 if code == OK else code_of(code).status


@requirement("access:edge:revocation", "access:tokens:revoke")
@pytest.mark.parametrize("principal", ENDED)
async def test_what_ended_is_refused_within_five_seconds_though_it_worked_before(
    world: World, alice: Client, principal: Principal
) -> None:
    ended = alice.as_(await world.ended(principal, alice))
    assert (await ended.call("CreateConversation")).code == "UNAUTHENTICATED"
    assert (await alice.call("ListConversations")).status == 200


@requirement("access:no-canary")
async def test_every_list_shows_its_callers_own_and_nothing_of_anybody_else(world: World) -> None:
    for principal in PEOPLE:
        for kind in LISTED:
            await world.thing(kind, principal, Target.OWN)
    for principal in PEOPLE:
        person = world.person(principal)
        hidden = [each for other in world.others(principal) for each in hidden_of(other)]
        for what, reply in (await lists(person)).items():
            assert [each for each in hidden if each in reply] == [], (principal, what)
            if what in WORDED:
                assert person.canary in reply, (principal, what)


def hidden_of(person: Person) -> list[str]:
    """The word of somebody, and the ids of things that are shared with nobody here."""
    return [person.canary, *(name for kind in LISTED for name in person.things[kind].values())]


async def lists(person: Person) -> dict[str, str]:
    """What every list of somebody's holds, all pages as one text."""
    client, theirs = person.client, {"organizationId": person.organization}
    shared = await client.must_of(AUTHORIZATION_SERVICE, "ListSharedWithMe")
    return {
        "conversations": str(await pages(client, "ListConversations", {})),
        "keys": str(await pages(client, "ListApiKeys", {})),
        "their keys": str(await pages(client, "ListApiKeys", theirs)),
        "events": str(await pages(client, "ListAuditEvents", {})),
        "their events": str(await pages(client, "ListAuditEvents", theirs)),
        "shared": str(shared),
    }


async def pages(client: Client, method: str, body: dict[str, str]) -> list[Any]:
    """Every page of a list."""
    services = {"ListApiKeys": API_KEY_SERVICE, "ListAuditEvents": AUDIT_SERVICE}
    found: list[Any] = []
    while True:
        if method in services:
            page = await client.must_of(services[method], method, **body)
        else:
            page = await client.must(method, **body)
        found.append(page)
        if "nextCursor" not in page:
            return found
        body = {**body, "cursor": page["nextCursor"]}


@requirement("access:foreign-as-missing")
@pytest.mark.parametrize(
    ("operation", "kind", "field", "word"),
    [
        ("ConversationService.GetConversation", Kind.CONVERSATION, "conversationId", "conv"),
        ("ApiKeyService.GetApiKey", Kind.API_KEY, "keyId", "key"),
    ],
)
async def test_a_foreign_id_takes_as_long_as_a_missing_one(
    world: World, operation: str, kind: Kind, field: str, word: str
) -> None:
    stranger = world.person(Principal.STRANGER).client
    foreign = (await world.thing(kind, Principal.STRANGER, Target.FOREIGN))[field]
    took: dict[str, list[float]] = {"foreign": [], "missing": []}
    for _ in range(TIMED):
        for what, name in (("foreign", foreign), ("missing", missing(word))):
            began = time.perf_counter()
            said = await ask(stranger, OPERATIONS[operation], stranger.token, {field: name})
            took[what].append(time.perf_counter() - began)
            assert said.code == "NOT_FOUND"
    quick, slow = sorted(statistics.median(each) for each in took.values())
    assert slow < 2 * quick, (quick, slow)
