"""A person of Firebase through the front door: in without a token, out within seconds, and erased without a trace."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, Final

import aiohttp
import asyncpg
import pytest

from services.auth.domain.firebase import user_id_of
from services.contracts.auth.accounts import ACCOUNT_SERVICE
from services.contracts.auth.tokens import TOKEN_SERVICE
from services.kit.contract import RpcService
from tests.requirements import requirement
from tests.support.firebase import PROJECT, FirebaseServer
from tests.support.firebase.bridge import ID_TOKEN, OFFSET, until_sign_in_works
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until

pytestmark = pytest.mark.timeout(120)

FIREBASE_PORT: Final = 21_904
LOCKED_OUT_SECONDS: Final = 10


@pytest.fixture(scope="module")
async def google() -> AsyncIterator[FirebaseServer]:
    async with FirebaseServer(FIREBASE_PORT) as server:
        yield server


@pytest.fixture(scope="module")
def platform(
    google: FirebaseServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    env = {"auth": {**google.environment(), "AUTH_FIREBASE_REVOCATION_SECONDS": "5"}}
    running = Platform(tmp_path_factory.mktemp("doors"), OFFSET, env=env).start()
    yield running
    running.stop()


@pytest.fixture
async def client(platform: Platform, google: FirebaseServer) -> AsyncIterator[Client]:
    """Somebody without a token, where turns are answered and people of Firebase let in."""
    await platform.until_answering()
    await until_sign_in_works(platform.edge_url, google)
    async with aiohttp.ClientSession() as session:
        yield Client(platform.edge_url, "", session)


async def call(
    client: Client, service: RpcService, method: str, **body: Any
) -> tuple[int, dict[str, Any]]:
    headers = client.headers() if client.token else {}
    url = client.url + service[method].edge_path
    async with client.session.post(url, json=body, headers=headers) as reply:
        return reply.status, await reply.json()


async def sign_in(client: Client, id_token: str) -> tuple[Client, dict[str, Any]]:
    status, reply = await call(
        client, TOKEN_SERVICE, "ExchangeToken", subjectToken=id_token, subjectTokenType=ID_TOKEN
    )
    assert status == 200, reply
    return replace(client, token=reply["accessToken"]), reply


async def traces(platform: Platform) -> list[str]:
    """Keys of state that names olga."""
    connection = await asyncpg.connect(platform.stack.database_url())
    rows = await connection.fetch(
        "SELECT key FROM dapr.state WHERE key LIKE $1 OR value::text LIKE '%olga@example.com%'",
        f"%{user_id_of(PROJECT, 'olga')}%",
    )
    await connection.close()
    return [row["key"] for row in rows]


@requirement("access:firebase:standing")
async def test_who_is_disabled_at_firebase_is_locked_out_everywhere(
    client: Client, google: FirebaseServer
) -> None:
    user = google.add("nina")
    nina, tokens = await sign_in(client, google.id_token("nina"))
    conversation = await nina.conversation(title="mine")
    assert (await nina.must("GetConversation", conversationId=conversation))["title"] == "mine"
    user.disabled = True

    async def refresh_refused() -> bool:
        fresh = {"refreshToken": tokens["refreshToken"]}
        status, reply = await call(client, TOKEN_SERVICE, "RefreshToken", **fresh)
        if status == 200:
            tokens["refreshToken"] = reply["refreshToken"]
        return status == 401

    async def locked_out() -> bool:
        return (await nina.call("ListConversations")).code == "UNAUTHENTICATED"

    await wait_until(refresh_refused, LOCKED_OUT_SECONDS, "the refusal", every=0.5)
    await wait_until(locked_out, LOCKED_OUT_SECONDS, "the end of the access token")


@requirement("access:firebase:link", "access:erasure")
async def test_who_deletes_the_account_is_gone_at_firebase_and_leaves_no_trace(
    client: Client, google: FirebaseServer, platform: Platform
) -> None:
    google.add("olga", email="olga@example.com")
    token = google.id_token("olga")
    olga, _ = await sign_in(client, token)
    await olga.conversation(title="private")
    status, custom = await call(olga, TOKEN_SERVICE, "CreateCustomToken")
    assert status == 200, custom
    assert len(await traces(platform)) > 0
    status, begun = await call(olga, ACCOUNT_SERVICE, "DeleteAccount")
    assert status == 200, begun

    async def completed() -> Any:
        found = await call(
            client, ACCOUNT_SERVICE, "GetAccountDeletion", deletionId=begun["deletionId"]
        )
        return found[1] if found[1]["status"] == "COMPLETED" else None

    receipt = await wait_until(completed, 60, "the receipt", every=0.25)
    removed = {part["app"]: part["removed"] for part in receipt["parts"]}
    assert removed["auth"]["firebaseLinks"] == "1"
    assert google.users.keys() & {"olga"} == set()
    assert await traces(platform) == []
    status, refused = await call(
        client, TOKEN_SERVICE, "ExchangeToken", subjectToken=token, subjectTokenType=ID_TOKEN
    )
    assert refused["error"]["message"] == "The Firebase user was deleted."
