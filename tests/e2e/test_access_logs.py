"""Secrets and users' texts reach no log and no trace; secrets reach no table."""

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import asyncpg
from pydantic.alias_generators import to_camel

from services.contracts.apps import SERVICES
from services.contracts.auth.authorization import AUTHORIZATION_SERVICE
from services.contracts.auth.keys import API_KEY_SERVICE
from services.contracts.auth.tokens import TOKEN_SERVICE
from tests.e2e.actions import (
    api_key,
    ask,
    exchanged,
    prompt,
    refreshed,
    signed_in,
    until_refused,
    user_of,
)
from tests.e2e.conftest import KEY_SECRET
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.text_search import files_with, rows_with
from tests.support.wait import wait_until

HEADERS: Final = (
    *("authorization", "x-api-key", "cookie", "proxy-authorization", "idempotency-key", "baggage"),
    *("x-user-id", "x-scopes", "x-forwarded-for", "x-request-id", "last-event-id", "user-agent"),
)


class Canaries:
    """Unique words, each with the place where it was put."""

    def __init__(self) -> None:
        self.placed: dict[str, str] = {}

    def new(self, where: str) -> str:
        word = f"canary{uuid.uuid4().hex}"
        self.placed[word] = where
        return word


async def misplace(platform: Platform, client: Client, secrets: Mapping[str, str]) -> None:
    """Send secrets in wrong places, so that each is part of a failing request."""
    get_turn, stream = client.path("GetTurn"), client.path("StreamEvents")
    for secret in secrets.values():
        bearer = {"authorization": f"Bearer {secret}"}
        for headers, body in (
            (bearer, {}),
            ({"x-api-key": secret}, {}),
            (client.headers(), {"conversationId": secret, "turnId": secret}),
            (client.headers(), {secret: secret}),
            (client.headers({"cookie": f"session={secret}", "idempotency-key": secret}), {}),
        ):
            async with client.session.post(get_turn, json=body, headers=headers) as reply:
                assert reply.status in (400, 401, 404)
        query = {"conversationId": secret, "turnId": secret}
        async with client.session.get(stream, params=query, headers=client.headers()) as reply:
            assert reply.status in (400, 401, 404)
        for service, method, field in (
            (TOKEN_SERVICE, "RevokeToken", "token"),
            (TOKEN_SERVICE, "RefreshToken", "refreshToken"),
            (AUTHORIZATION_SERVICE, "OpenShareLink", "token"),
            (API_KEY_SERVICE, "GetApiKey", "keyId"),
        ):
            await client.call_of(service, method, **{field: secret})
    await until_written(client, platform)


async def until_written(client: Client, platform: Platform) -> None:
    """Log a last call and wait for its line: the lines before it are written."""
    request_id = f"last-{uuid.uuid4().hex}"
    await client.must("ListConversations", {"x-request-id": request_id})

    async def last_is_written() -> bool:
        return bool(files_with([platform.stack.log("edge")], request_id))

    await wait_until(last_is_written, 10, "the last call to be logged")


def log_files(platform: Platform, trace_file: Path) -> Iterator[Path]:
    yield trace_file
    yield from (path for path in platform.stack.state.logs.rglob("*") if path.is_file())


@requirement("access:logs")
async def test_misplaced_secrets_reach_no_log(
    platform: Platform, alice: Client, trace_file: Path
) -> None:
    canaries, calls = Canaries(), 0
    for service in SERVICES:
        for method in service.methods:
            if method.internal:
                continue
            url = alice.url + method.edge_path
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
            for field in method.request.model_fields if method.is_stream else ():
                query = {to_camel(field): canaries.new(f"{name}?{field}")}
                async with alice.session.get(url, params=query, headers=alice.headers()) as reply:
                    await reply.read()
                    calls += 1
    await until_written(alice, platform)
    assert calls > 500
    leaks = {
        where: files
        for word, where in canaries.placed.items()
        if "x-request-id" not in where  # logged on purpose
        and (files := files_with(log_files(platform, trace_file), word))
    }
    assert leaks == {}


async def send_texts(alice: Client, canaries: Canaries) -> str:
    """Put canaries into every text of a user, also in turns that fail; returns the conversation."""
    conversation = await alice.conversation(
        title=canaries.new("title"),
        systemPrompt=canaries.new("system prompt"),
        metadata={"note": canaries.new("metadata")},
    )
    await ask(alice, conversation, canaries.new("text"))
    spoken = {"conversationId": conversation, "text": canaries.new("text in a query")}
    path, headers = alice.path("StreamMessage"), alice.headers()
    async with alice.session.get(path, params=spoken, headers=headers) as reply:
        assert b"run.completed" in await reply.read()
    said = prompt(status=500, message=canaries.new("the upstream's message"))
    failed = await alice.call("SendMessage", conversationId=conversation, text=said.text)
    assert failed.status >= 500
    return conversation


async def keys_of(alice: Client, name: str) -> dict[str, str]:
    """Secrets of a key that was rotated and exchanged."""
    key_id, secret = await api_key(alice, name)
    rotated = await alice.must_of(API_KEY_SERVICE, "RotateApiKey", keyId=key_id)
    traded = await exchanged(alice, rotated["secret"])
    return {
        "key": secret,
        "rotated key": rotated["secret"],
        "traded token": traded.rpartition(".")[2],
    }


async def tokens_of(platform: Platform, alice: Client) -> dict[str, str]:
    """Tokens of a session that was refreshed and then ended by a reuse."""
    signed = await signed_in(platform, user_of(alice))
    first = await refreshed(alice, signed)
    second = await refreshed(alice, first["refreshToken"])
    reused = await alice.call_of(TOKEN_SERVICE, "RefreshToken", refreshToken=signed)
    assert reused.code == "UNAUTHENTICATED"
    await until_refused(alice.as_(second["accessToken"]))
    return {
        "refresh token": signed,
        "next refresh token": first["refreshToken"],
        "last refresh token": second["refreshToken"],
        "session's token": first["accessToken"].rpartition(".")[2],
        "access token": alice.token.rpartition(".")[2],
    }


@requirement("access:logs")
async def test_secrets_reach_no_table_and_no_log_and_texts_reach_no_log(
    platform: Platform,
    alice: Client,
    bob: Client,
    trace_file: Path,
    stores: list[asyncpg.Connection],
) -> None:
    canaries = Canaries()
    target = f"conversation:{await send_texts(alice, canaries)}"
    link = await alice.must_of(AUTHORIZATION_SERVICE, "CreateShareLink", object=target)
    await bob.must_of(AUTHORIZATION_SERVICE, "OpenShareLink", token=link["token"])
    secrets = {
        **await keys_of(alice, canaries.new("key name")),
        **await tokens_of(platform, alice),
        "share link": link["token"],
        "sealing secret": KEY_SECRET,
        **platform.stack.environment.secrets,
    }
    del secrets["valkeyHost"]  # an address
    await misplace(platform, alice, secrets)
    for what, secret in secrets.items():
        assert await rows_with(stores, secret) == {}, what
        assert files_with(log_files(platform, trace_file), secret) == [], what
    for word, where in canaries.placed.items():
        assert files_with(log_files(platform, trace_file), word) == [], where
