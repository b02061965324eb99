"""The authorization model, asked on a real OpenFGA; and every weaker model, which has to be found out."""

import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openfga_sdk.client.models import (
    ClientBatchCheckItem,
    ClientBatchCheckRequest,
    ClientListObjectsRequest,
    ClientTuple,
    ClientWriteRequest,
)
from openfga_sdk.models.create_store_request import CreateStoreRequest

from services.auth.adapters.openfga.calls import client_of
from services.auth.adapters.openfga.store import MODEL
from services.cli.stack import Stack
from tests.component.auth.model_table import EVERYBODY, assertions, tuples, who_may
from tests.component.auth.mutants import mutants, names_in
from tests.requirements import requirement

OURS = json.loads(MODEL.read_text())
DSL = MODEL.with_suffix(".fga")
WRITE_AT_ONCE = 100


class Judge:
    """A store with the tuples of the table, which is asked by any model."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def learn(self, model: Any) -> str:
        """Write a model; its id."""
        return (await self._client.write_authorization_model(model)).authorization_model_id

    async def wrong(self, model: str, kind: str = "") -> list[str]:
        """The assertions about a type, or all, that do not hold by a model."""
        table = [each for each in assertions() if each[0][2].startswith(kind)]
        checks = [
            ClientBatchCheckItem(user, relation, target, correlation_id=str(number))
            for number, ((user, relation, target), _) in enumerate(table)
        ]
        answer = await self._client.batch_check(
            ClientBatchCheckRequest(checks=checks),
            {"authorization_model_id": model, "max_parallel_requests": 1},
        )
        assert len(answer.result) == len(table)
        return [
            f"{table[number][0]} is {each.allowed}"
            for each in answer.result
            for number in [int(each.correlation_id)]
            if each.error is not None or each.allowed is not table[number][1]
        ]

    async def objects(self, model: str, user: str, relation: str, kind: str) -> list[str]:
        request = ClientListObjectsRequest(user=f"user:{user}", relation=relation, type=kind)
        answer = await self._client.list_objects(request, {"authorization_model_id": model})
        return sorted(answer.objects)


@pytest.fixture(scope="module")
async def judge(servers: Stack) -> AsyncIterator[Judge]:
    """Relationship tuples are written by our model; a weaker one overlooks those that it does not allow."""
    client: Any = client_of(servers.url("openfga"), servers.environment.secrets["openfgaToken"])
    store = await client.create_store(CreateStoreRequest(name=f"model-{secrets.token_hex(4)}"))
    client.set_store_id(store.id)
    await client.write_authorization_model(OURS)
    known = [ClientTuple(user, relation, target) for user, relation, target in tuples()]
    assert len(known) <= WRITE_AT_ONCE
    await client.write(ClientWriteRequest(writes=known))
    yield Judge(client)
    await client.close()


@requirement("access:model")
async def test_the_model_says_what_the_table_says(judge: Judge) -> None:
    assert await judge.wrong(await judge.learn(OURS)) == []


@requirement("access:model")
async def test_what_is_listed_is_what_is_allowed(judge: Judge) -> None:
    model = await judge.learn(OURS)
    table = list(who_may())
    for kind, relation in sorted(
        {(target.split(":")[0], relation) for target, relation, _ in table}
    ):
        for name in EVERYBODY:
            expected = sorted(
                target
                for target, asked, allowed in table
                if asked == relation and target.startswith(f"{kind}:") and name in allowed
            )
            found = await judge.objects(model, name, relation, kind)
            asked = {target for target, each, _ in table if each == relation}
            assert [each for each in found if each in asked] == expected, (name, relation, kind)


@requirement("access:model-mutation")
async def test_a_model_that_lacks_any_part_of_any_line_is_found_out(judge: Judge) -> None:
    survivors: list[str] = []
    seen: list[str] = []
    for name, model in mutants(OURS):
        seen.append(name)
        weaker = await judge.learn(model)
        kind = name.partition("#")[0] + ":"  # where the answer changes first
        if not await judge.wrong(weaker, kind) and not await judge.wrong(weaker):
            survivors.append(name)
    print(f"{len(seen)} mutants of the model, {len(survivors)} survived")
    assert survivors == []
    assert sorted(seen) == sorted(names_in(DSL))


def test_nothing_is_given_to_everybody() -> None:
    assert ":*" not in DSL.read_text()
    assert "wildcard" not in MODEL.read_text()
