"""A user of Firebase through the edge: signs in without a token, is locked out within seconds, and erased without a trace."""

from typing import Any, Final

import asyncpg

from services.auth.domain.firebase import user_id_of
from services.contracts.auth.accounts import ACCOUNT_SERVICE
from services.contracts.auth.tokens import TOKEN_SERVICE
from tests.e2e.conftest import FIREBASE_SECONDS
from tests.requirements import requirement
from tests.support.firebase import PROJECT, FirebaseServer
from tests.support.firebase.bridge import ID_TOKEN
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until

LOCKED_OUT_SECONDS: Final = FIREBASE_SECONDS + 5


async def sign_in(client: Client, id_token: str) -> tuple[Client, dict[str, Any]]:
    """Exchange an ID token; a client with the access token, and the reply."""
    reply = await client.must_of(
        TOKEN_SERVICE, "ExchangeToken", subjectToken=id_token, subjectTokenType=ID_TOKEN
    )
    return client.as_(reply["accessToken"]), reply


@requirement("access:firebase:standing")
async def test_a_user_disabled_at_firebase_is_locked_out_everywhere(
    anonymous: Client, google: FirebaseServer
) -> None:
    user = google.add("nina")
    nina, tokens = await sign_in(anonymous, google.id_token("nina"))
    conversation = await nina.conversation(title="mine")
    assert (await nina.must("GetConversation", conversationId=conversation))["title"] == "mine"
    user.disabled = True

    async def refresh_refused() -> bool:
        fresh = {"refreshToken": tokens["refreshToken"]}
        answer = await anonymous.call_of(TOKEN_SERVICE, "RefreshToken", **fresh)
        if answer.status == 200:
            tokens["refreshToken"] = answer.body["refreshToken"]
        return answer.status == 401

    async def locked_out() -> bool:
        return (await nina.call("ListConversations")).code == "UNAUTHENTICATED"

    await wait_until(refresh_refused, LOCKED_OUT_SECONDS, "the refusal", every=0.2)
    await wait_until(locked_out, LOCKED_OUT_SECONDS, "the end of the access token")


@requirement("access:firebase:link", "access:erasure")
async def test_a_deleted_account_is_gone_at_firebase_and_leaves_no_trace(
    anonymous: Client, google: FirebaseServer, own_platform: Platform, database: asyncpg.Connection
) -> None:
    google.add("olga", email="olga@example.com")
    token = google.id_token("olga")
    olga, _ = await sign_in(anonymous, token)
    await olga.conversation(title="private")
    await olga.must_of(TOKEN_SERVICE, "CreateCustomToken")
    assert len(await traces(database)) > 0
    begun = await olga.must_of(ACCOUNT_SERVICE, "DeleteAccount")

    async def completed() -> Any:
        found = await anonymous.must_of(
            ACCOUNT_SERVICE, "GetAccountDeletion", deletionId=begun["deletionId"]
        )
        return found if found["status"] == "COMPLETED" else None

    receipt = await wait_until(completed, 60, "the receipt", every=0.1)
    removed = {part["app"]: part["removed"] for part in receipt["parts"]}
    assert removed["auth"]["firebaseLinks"] == "1"
    assert "olga" not in google.users
    assert await traces(database) == []
    refused = await anonymous.call_of(
        TOKEN_SERVICE, "ExchangeToken", subjectToken=token, subjectTokenType=ID_TOKEN
    )
    assert refused.body["error"]["message"] == "The Firebase user was deleted."


async def traces(database: asyncpg.Connection) -> list[str]:
    """Keys of state that names olga."""
    rows = await database.fetch(
        "SELECT key FROM dapr.state WHERE key LIKE $1 OR value::text LIKE '%olga@example.com%'",
        f"%{user_id_of(PROJECT, 'olga')}%",
    )
    return [row["key"] for row in rows]
