"""Secrets, and what people say, reach no log and no trace; secrets reach no table either."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg

from services.contracts.authorization import AUTHORIZATION_SERVICE
from services.contracts.keys import API_KEY_SERVICE
from services.contracts.scopes import CONVERSATIONS_READ, CONVERSATIONS_WRITE
from services.contracts.services import SERVICES
from services.contracts.tokens import TOKEN_SERVICE, SubjectTokenType
from services.kit.contract import RpcService
from tests.e2e.conftest import KEY_SECRET
from tests.e2e.talk import ask, prompt
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.stores import files_with, rows_with
from tests.support.wait import wait_until

HEADERS: Final = (
    *("authorization", "x-api-key", "cookie", "proxy-authorization", "idempotency-key", "baggage"),
    *("x-user-id", "x-scopes", "x-forwarded-for", "x-request-id", "last-event-id", "user-agent"),
)


class Canaries:
    """Words that appear nowhere else; each is remembered with where it was put."""

    def __init__(self) -> None:
        self.placed: dict[str, str] = {}

    def new(self, where: str) -> str:
        word = f"canary{uuid.uuid4().hex}"
        self.placed[word] = where
        return word


async def call(client: Client, service: RpcService, method: str, **body: Any) -> Any:
    path = client.url + service.edge_path(service[method])
    async with client.session.post(path, json=body, headers=client.headers()) as reply:
        answer = await reply.json()
        assert reply.status == 200, answer
        return answer


def written(platform: Platform, trace_file: Path) -> Iterator[Path]:
    """Every log, and the traces."""
    yield trace_file
    yield from (path for path in platform.stack.state.logs.rglob("*") if path.is_file())


@requirement("access:logs")
async def test_what_is_sent_wrongly_is_not_written_down(
    platform: Platform, alice: Client, trace_file: Path
) -> None:
    canaries, calls = Canaries(), 0
    request_id = f"last-{uuid.uuid4().hex}"
    for service in SERVICES:
        for method in service.methods:
            if method.internal:
                continue
            url = alice.url + service.edge_path(method)
            name = method.name
            for headers, body in (
                *(({h: canaries.new(f"{name} header {h}")}, b"{}") for h in HEADERS),
                ({}, f'{{"{canaries.new(f"{name} unknown field")}": 1}}'.encode()),
                ({}, f'{{"broken": "{canaries.new(f"{name} broken JSON")}'.encode()),
                *(
                    ({}, f'{{"{field}": "{canaries.new(f"{name}.{field}")}"}}'.encode())
                    for field in method.request.model_fields
                ),
            ):
                sent = {"content-type": "application/json", **alice.headers(), **headers}
                if "x-api-key" in headers or name == "DeleteAccount":
                    del sent["authorization"]
                async with alice.session.post(url, data=body, headers=sent) as reply:
                    await reply.read()
                    calls += 1
    # A line that is known to be written, after which all the others are.
    await alice.must("ListConversations", {"x-request-id": request_id})

    async def last_is_written() -> bool:
        return bool(files_with([platform.stack.log("edge")], request_id))

    await wait_until(last_is_written, 10, "the last call to be logged")
    assert calls > 500
    leaks = {
        where: files
        for word, where in canaries.placed.items()
        if "x-request-id" not in where  # which is what a log is searched by
        and (files := files_with(written(platform, trace_file), word))
    }
    assert leaks == {}


@requirement("access:logs")
async def test_secrets_are_in_no_table_and_no_log_and_words_in_no_log(
    platform: Platform,
    alice: Client,
    bob: Client,
    trace_file: Path,
    stores: list[asyncpg.Connection],
) -> None:
    canaries = Canaries()
    conversation = await alice.conversation(
        title=canaries.new("title"),
        systemPrompt=canaries.new("system prompt"),
        metadata={"note": canaries.new("metadata")},
    )
    await ask(alice, conversation, canaries.new("text"))
    said = prompt(status=500)
    await alice.call("SendMessage", conversationId=conversation, text=said.text)
    key = await call(
        alice,
        API_KEY_SERVICE,
        "CreateApiKey",
        name=canaries.new("key name"),
        scopes=[CONVERSATIONS_READ, CONVERSATIONS_WRITE],
    )
    rotated = await call(alice, API_KEY_SERVICE, "RotateApiKey", keyId=key["apiKey"]["keyId"])
    traded = await call(
        alice,
        TOKEN_SERVICE,
        "ExchangeToken",
        subjectToken=rotated["secret"],
        subjectTokenType=SubjectTokenType.API_KEY,
    )
    target = f"conversation:{conversation}"
    link = await call(alice, AUTHORIZATION_SERVICE, "CreateShareLink", object=target)
    await call(bob, AUTHORIZATION_SERVICE, "OpenShareLink", token=link["token"])
    secrets = {
        "key": key["secret"],
        "rotated key": rotated["secret"],
        "traded token": traded["accessToken"].rpartition(".")[2],
        "access token": alice.token.rpartition(".")[2],
        "share link": link["token"],
        "sealing secret": KEY_SECRET,
        "app token": platform.stack.app_token("auth"),
        "API token": platform.stack.api_token("edge"),
        "OpenFGA's key": platform.stack.environment.secrets["openfgaToken"],
        "database password": platform.stack.environment.secrets["postgresPassword"],
    }
    for what, secret in secrets.items():
        assert await rows_with(stores, secret) == {}, what
        assert files_with(written(platform, trace_file), secret) == [], what
    for word, where in canaries.placed.items():
        assert files_with(written(platform, trace_file), word) == [], where
