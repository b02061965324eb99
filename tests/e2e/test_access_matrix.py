"""Every operation of the OpenAPI document, called by every principal for every target."""

import asyncio
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
from tests.e2e.access_matrix import (
    BEARER_KINDS,
    OK,
    PEOPLE,
    ROWS,
    Cell,
    CredentialState,
    Kind,
    Operation,
    Principal,
    Row,
    Target,
    cells,
    covered_combinations,
    operations,
    required_combinations,
)
from tests.e2e.actions import missing
from tests.e2e.tenants import Person, Tenants
from tests.requirements import requirement
from tests.support.concurrency import for_each
from tests.support.firebase import FirebaseServer
from tests.support.platform import Client, Platform

OPERATIONS = operations()
ENDED = (Principal.SIGNED_OUT, Principal.REVOKED_KEY, Principal.REVOKED_KEY_TOKEN)
SHARED = (Target.VIEWED, Target.EDITED)
LISTED = (Kind.CONVERSATION, Kind.API_KEY, Kind.ORGANIZATION_KEY)
TEXT_LISTS = ("conversations", "keys", "their keys", "events")
"""Lists with texts of their owner; the others hold ids only."""
TIMED = 50


@pytest.fixture(scope="module")
async def tenants(own_platform: Platform, google: FirebaseServer) -> AsyncIterator[Tenants]:
    async with Tenants(own_platform, google) as created:
        yield created


@dataclass(frozen=True, slots=True)
class Response:
    """What a caller sees of a response, without values that differ per call."""

    status: int
    headers: frozenset[str]
    text: str

    @property
    def code(self) -> str:
        """OK, or the code of the error."""
        return OK if self.status == 200 else json.loads(self.text)["error"]["code"]


async def ask(
    client: Client, operation: Operation, credential: str | None, body: Mapping[str, Any]
) -> Response:
    """Call an operation with this credential only."""
    headers = {"authorization": f"Bearer {credential}"} if credential else {}
    query, content = (body, None) if operation.verb == "get" else (None, body)
    async with client.session.request(
        operation.verb, client.url + operation.path, params=query, json=content, headers=headers
    ) as reply:
        shown = frozenset(name.lower() for name in reply.headers)
        return Response(reply.status, shown, await reply.text())


async def answer(tenants: Tenants, row: Row, cell: Cell) -> Response:
    operation = OPERATIONS[row.operation]
    caller = tenants.person(cell.principal)
    anew = row.consumes and cell.expected == OK
    if anew and row.kind is Kind.NOTHING:
        caller = await tenants.new_person("leaving")
        return await ask(caller.client, operation, caller.client.token, row.rest)
    body = await tenants.body(row, cell.principal, cell.target, anew=anew)
    credential = await tenants.credential(cell.principal, operation.scope)
    return await ask(caller.client, operation, credential, body)


@requirement("access:matrix")
def test_the_rows_cover_every_operation_and_each_of_its_ids() -> None:
    assert {row.operation for row in ROWS} == OPERATIONS.keys()
    for operation in OPERATIONS.values():
        named = {name for row in ROWS if row.operation == operation.id for name in row.names}
        assert named == operation.ids, operation.id
    assert len({row.name for row in ROWS}) == len(ROWS)
    planned = sum(len(list(cells(row, OPERATIONS[row.operation]))) for row in ROWS)
    wanted = required_combinations(OPERATIONS)
    print(f"{planned} cells, {len(wanted)} combinations, {len(OPERATIONS)} operations")
    assert covered_combinations(OPERATIONS) == wanted
    plain = sum(len(Principal) * (3 * len(each.ids) or 1) for each in OPERATIONS.values())
    assert len(wanted) == plain


@requirement("access:matrix", "access:scopes", "access:foreign-as-missing", "access:no-leaks")
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_every_principal_gets_the_code_of_the_contract_and_no_data_of_others(
    tenants: Tenants, row: Row
) -> None:
    responses: dict[tuple[Principal, Target], Response] = {}
    wrong: list[str] = []

    async def call(cell: Cell) -> None:
        got = responses[cell.principal, cell.target] = await answer(tenants, row, cell)
        code = got.code
        if code != cell.expected or got.status != status_of(cell.expected):
            wrong.append(f"{cell}: {got.status} {got.text[:200]}")
        if cell.target not in SHARED and row.kind not in BEARER_KINDS:
            for other in tenants.others(cell.principal):
                assert other.canary not in got.text, cell

    planned = list(cells(row, OPERATIONS[row.operation]))
    # Two turns of one conversation exclude each other.
    in_turn = [each for each in planned if each.expected == OK and not row.consumes]
    at_once = [each for each in planned if each not in in_turn]
    async with asyncio.TaskGroup() as calls:
        calls.create_task(for_each(in_turn, call, 1))
        calls.create_task(for_each(at_once, call))
    assert len(responses) == len(planned)
    assert wrong == []
    if row.kind is not Kind.NOTHING and row.kind not in BEARER_KINDS:
        for principal in Principal:
            foreign = responses[principal, Target.FOREIGN]
            assert foreign == responses[principal, Target.MISSING]
            if principal.credential is not CredentialState.VALID:
                assert foreign == responses[principal, Target.OWN]


def status_of(code: str) -> int:
    return 200 if code == OK else code_of(code).status


@requirement("access:edge:revocation", "access:tokens:revoke")
async def test_a_revoked_credential_that_worked_before_is_refused_within_five_seconds(
    tenants: Tenants, alice: Client
) -> None:
    async def refused(principal: Principal) -> None:
        revoked = alice.as_(await tenants.revoked(principal, alice))
        assert (await revoked.call("CreateConversation")).code == "UNAUTHENTICATED", principal

    await for_each(ENDED, refused)
    assert (await alice.call("ListConversations")).status == 200


@requirement("access:no-leaks")
async def test_every_list_shows_only_objects_of_its_caller(tenants: Tenants) -> None:
    for principal in PEOPLE:
        for kind in LISTED:
            await tenants.ids_of(kind, principal, Target.OWN)
    for principal in PEOPLE:
        person = tenants.person(principal)
        hidden = [each for other in tenants.others(principal) for each in hidden_of(other)]
        for what, reply in (await lists(person)).items():
            assert [each for each in hidden if each in reply] == [], (principal, what)
            if what in TEXT_LISTS:
                assert person.canary in reply, (principal, what)


def hidden_of(person: Person) -> list[str]:
    """A person's canary, and the ids of objects that are not shared."""
    return [person.canary, *(name for kind in LISTED for name in person.objects[kind].values())]


async def lists(person: Person) -> dict[str, str]:
    """Every list of a person, all pages as one text."""
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
    tenants: Tenants, operation: str, kind: Kind, field: str, word: str
) -> None:
    stranger = tenants.person(Principal.STRANGER).client
    foreign = (await tenants.ids_of(kind, Principal.STRANGER, Target.FOREIGN))[field]
    took: dict[str, list[float]] = {"foreign": [], "missing": []}
    for _ in range(TIMED):
        for what, name in (("foreign", foreign), ("missing", missing(word))):
            began = time.perf_counter()
            said = await ask(stranger, OPERATIONS[operation], stranger.token, {field: name})
            took[what].append(time.perf_counter() - began)
            assert said.code == "NOT_FOUND"
    quick, slow = sorted(statistics.median(each) for each in took.values())
    assert slow < 2 * quick, (quick, slow)
