"""Without certificates the apps, not the sidecars, refuse the callers that the contract does not name."""

import asyncio
import uuid
from collections.abc import Iterator
from itertools import product
from typing import Any, Final

import aiohttp
import pytest

from services.contracts.apps import APPS, EDGE, METHODS, callers_of
from services.contracts.llm.conversations import CONVERSATION_SERVICE
from services.kit.contract import AnyMethod
from tests.e2e.conftest import STRANGER, TRUSTED_APP
from tests.e2e.test_foreign import WAYS, environment, refusal, require_same_bytes
from tests.requirements import requirement
from tests.support.concurrency import for_each
from tests.support.foreign import PROGRAMS, ForeignSidecar, Program, asking, running_sidecars
from tests.support.platform import Platform
from tests.support.port_offsets import SIDECARS, offset_of

pytestmark = pytest.mark.disturbs  # the start of a platform holds the event loop

OFFSET: Final = offset_of("e2e without certificates")
SIDECAR_PORT: Final = SIDECARS + OFFSET
CALLERS: Final = {app.id for app in APPS if app.calls}
"""Apps whose sidecars may invoke others."""
INTERNAL: Final = [method for method in METHODS if method.internal]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform without certificates and access policies, which trusts one back end."""
    running = Platform(tmp_path_factory.mktemp("plain"), OFFSET, trusted_apps=(TRUSTED_APP,))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def sidecars(plain: Platform) -> Iterator[dict[str, ForeignSidecar]]:
    """The sidecar of the trusted back end and that of an app that is not trusted."""
    folder = plain.stack.state.path
    with running_sidecars(folder, SIDECAR_PORT, (TRUSTED_APP, STRANGER)) as running:
        yield running


async def called(
    platform: Platform,
    http: aiohttp.ClientSession,
    caller: str,
    method: AnyMethod,
    headers: dict[str, str],
) -> tuple[int, Any]:
    """Call a method from the sidecar of an app; status and error code."""
    path = f"/v1.0/invoke/{method.service.app_id}/method{method.path}"
    own = {"dapr-api-token": platform.stack.api_token(caller), **headers}
    url = platform.stack.url(f"{caller}-daprd") + path
    async with http.post(url, json={}, headers=own) as reply:
        return reply.status, (await reply.json())["error"]["code"]


@requirement("access:zero-trust")
async def test_an_app_refuses_callers_that_the_contract_does_not_name(plain: Platform) -> None:
    async with aiohttp.ClientSession() as http:

        async def refused(attempt: tuple[AnyMethod, str, dict[str, str]]) -> None:
            method, caller, said = attempt
            found = await called(plain, http, caller, method, said)
            assert found == (403, "PERMISSION_DENIED"), (caller, method.name, said)

        assert await for_each(attempts(), refused) > len(INTERNAL)


def attempts() -> Iterator[tuple[AnyMethod, str, dict[str, str]]]:
    """Every internal method with every app that may not call it, which also claims to be one that may."""
    for method in INTERNAL:
        named = callers_of(method)
        claims = ({}, *({"dapr-caller-app-id": name} for name in named))
        yield from product([method], CALLERS - {*named, method.service.app_id}, claims)


@requirement("kit:identity")
@pytest.mark.parametrize("app", sorted(CALLERS - {EDGE.id}))
async def test_only_the_edge_can_forward_a_user(plain: Platform, app: str) -> None:
    method = CONVERSATION_SERVICE["ListConversations"]
    async with aiohttp.ClientSession() as http:
        found = await called(plain, http, app, method, {"x-user-id": "carol"})
    assert found == (401, "UNAUTHENTICATED")


@requirement("dapr:foreign-apps")
async def test_a_foreign_app_that_is_not_trusted_is_unauthenticated(
    plain: Platform, sidecars: dict[str, ForeignSidecar]
) -> None:
    async def refused(program: Program) -> None:
        env = environment(plain, sidecars[STRANGER], "ada")
        async with asking(program, "trusted", "hello", env) as asked:
            error = refusal(await asked.finish())
        assert (error["status"], error["code"]) == (401, "UNAUTHENTICATED")

    await asyncio.gather(*map(refused, PROGRAMS))


@requirement("dapr:foreign-apps")
@pytest.mark.parametrize("way", WAYS)
async def test_a_foreign_app_calls_either_way(
    plain: Platform, sidecars: dict[str, ForeignSidecar], way: str
) -> None:
    async def answered(program: Program) -> None:
        user = f"ada-{uuid.uuid4().hex[:8]}"
        sidecar = sidecars[{"edge": STRANGER, "trusted": TRUSTED_APP}[way]]
        async with asking(program, way, "hello", environment(plain, sidecar, user)) as asked:
            await asked.finish()
        await require_same_bytes(plain, user, asked)

    await asyncio.gather(*map(answered, PROGRAMS))
