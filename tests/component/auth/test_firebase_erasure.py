"""The end of a Firebase user: deleted there, forgotten here, whatever fails in between."""

from collections.abc import AsyncIterator

import pytest
from dapr.conf import settings as dapr_settings

from services.auth.adapters.firebase.directory import AdminDirectory, open_service_account_admin
from services.auth.adapters.postgres.sessions import PostgresRevocations
from services.auth.service.firebase import FirebaseService
from services.kit.clock import utc_now
from services.kit.dapr.actors import Actors
from services.kit.dapr.sidecar import Sidecar
from services.kit.errors import ErrorCode, RpcError
from services.kit.storage.db import Database
from tests.requirements import requirement
from tests.support.firebase import PROJECT
from tests.support.firebase.bridge import Bridge


@pytest.fixture
async def links(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FirebaseService]:
    """What the activity of the erasure works with, beside the app."""
    stack, google = bridge.stack, bridge.google
    monkeypatch.setattr(dapr_settings, "DAPR_API_TOKEN", stack.api_token("auth"))
    sidecar = Sidecar(f"127.0.0.1:{stack.spec('auth-daprd').ports['gRPC of the sidecar of auth']}")
    database = Database(stack.database_url())
    account = google.service_account()
    # The SDK takes seconds to load where the machine is slow, and a call has only so many.
    admin = open_service_account_admin(PROJECT, account, f"{google.url}/v1")
    directory = AdminDirectory(lambda: admin, utc_now)
    revocations = PostgresRevocations(database, utc_now)
    yield FirebaseService(None, directory, revocations, Actors(sidecar), utc_now)
    await directory.close()
    await database.close()
    await sidecar.close()


@requirement("access:firebase:link")
async def test_an_erased_user_is_gone_at_firebase_and_here_and_does_not_come_back(
    bridge: Bridge, links: FirebaseService
) -> None:
    google = bridge.google
    google.add("zoe")
    session = await bridge.exchange(google.id_token("zoe"))
    user_id, token = await bridge.user_id("zoe"), google.id_token("zoe")
    assert await links.count(user_id) == {"firebaseLinks": 1}
    await links.erase(user_id)
    await links.erase(user_id)
    assert (google.users, google.calls["delete"]) == ({}, 1)
    assert await links.count(user_id) == {"firebaseLinks": 0}
    assert (await bridge.exchange(token)).message == "The Firebase user was deleted."
    assert (await bridge.refresh(session)).code == "UNAUTHENTICATED"
    assert (await bridge.custom_token(user_id)).code == "FAILED_PRECONDITION"
    assert await links.count(user_id) == {"firebaseLinks": 0}


@requirement("access:firebase:link")
async def test_while_firebase_is_away_the_link_stays_and_the_erasure_comes_back(
    bridge: Bridge, links: FirebaseService
) -> None:
    google = bridge.google
    google.add("yan")
    user_id = await bridge.user_id("yan")
    google.down = {"delete"}
    with pytest.raises(RpcError) as refused:
        await links.erase(user_id)
    assert refused.value.code is ErrorCode.UNAVAILABLE
    assert await links.count(user_id) == {"firebaseLinks": 1}
    google.down = set()
    google.users.clear()  # somebody else has deleted the user meanwhile
    await links.erase(user_id)
    assert await links.count(user_id) == {"firebaseLinks": 0}


async def test_who_never_came_from_firebase_has_nothing_to_erase(
    bridge: Bridge, links: FirebaseService
) -> None:
    await links.erase("alice")
    assert await links.count("alice") == {"firebaseLinks": 0}
    assert bridge.google.calls.total() == 0
