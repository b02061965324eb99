"""Sign-in against Google's own Auth emulator: `pytest -m emulator`, with the npm package `firebase-tools` at hand.

The emulator is `firebase` of the PATH, or what `npx` fetches.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from services.auth.adapters.firebase.directory import open_emulated_admin
from tests.support.firebase import PROJECT
from tests.support.firebase.bridge import COOKIE, Bridge, open_bridge
from tests.support.firebase.signing import signing_input
from tests.support.port_offsets import PORTS
from tests.support.wait import wait_until

pytestmark = [pytest.mark.emulator, pytest.mark.timeout(120)]

FIREBASE_PORT: Final = PORTS["firebase emulator's"]
EMULATOR_PORT: Final = PORTS["emulator"]
HOST: Final = f"127.0.0.1:{EMULATOR_PORT}"
API: Final = f"http://{HOST}/identitytoolkit.googleapis.com/v1"
CONFIG: Final = {
    "emulators": {
        "auth": {"host": "127.0.0.1", "port": EMULATOR_PORT},
        "hub": {"host": "127.0.0.1", "port": EMULATOR_PORT + 1},
        "logging": {"host": "127.0.0.1", "port": EMULATOR_PORT + 2},
        "ui": {"enabled": False},
    }
}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("emulator")
    (folder / "firebase.json").write_text(json.dumps(CONFIG))
    installed = shutil.which("firebase")
    command = [installed] if installed else ["npx", "--yes", "firebase-tools@15"]
    log = folder / "emulator.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "emulators:start", "--only", "auth", "--project", PROJECT],
            cwd=folder,
            env={**os.environ, "CI": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    yield log
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(20)


@pytest.fixture(scope="module")
async def bridge(emulator: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bridge]:
    async def answers() -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://{HOST}/") as reply:
                return reply.status == 200
        except aiohttp.ClientError:
            return False

    await wait_until(answers, 90, f"the emulator ({emulator})", every=0.2)
    env = {"FIREBASE_AUTH_EMULATOR_HOST": HOST, "AUTH_FIREBASE_ALLOW_EMULATOR": "true"}
    folder = tmp_path_factory.mktemp("emulated")
    async with open_bridge(folder, FIREBASE_PORT, env, probe=sign_up) as bridge:
        yield bridge


async def ask(session: aiohttp.ClientSession, method: str, **body: Any) -> Any:
    """What a client app asks of Firebase."""
    async with session.post(f"{API}/accounts:{method}?key=any", json=body) as reply:
        assert reply.status == 200, await reply.text()
        return await reply.json()


async def sign_up(bridge: Bridge) -> str:
    """The ID token of somebody new."""
    return (await ask(bridge.session, "signUp", returnSecureToken=True))["idToken"]


async def test_who_signs_up_comes_in_by_id_token_by_cookie_and_by_custom_token(
    bridge: Bridge,
) -> None:
    token = await sign_up(bridge)
    user_id = (await bridge.claims(await bridge.exchange(token)))["sub"]
    minted = await bridge.call("CreateSessionCookie", idToken=token)
    assert minted.status == 200, minted
    by_cookie = await bridge.exchange(minted.body["sessionCookie"], COOKIE)
    assert (await bridge.claims(by_cookie))["sub"] == user_id
    custom = await bridge.custom_token(user_id)
    assert custom.status == 200, custom
    signed_in = await ask(
        bridge.session,
        "signInWithCustomToken",
        token=custom.body["customToken"],
        returnSecureToken=True,
    )
    assert (await bridge.claims(await bridge.exchange(signed_in["idToken"])))["sub"] == user_id


@pytest.mark.parametrize("how", ["disabled", "deleted"])
async def test_who_is_out_at_the_emulator_is_out_here(bridge: Bridge, how: str) -> None:
    signed_up = await ask(bridge.session, "signUp", returnSecureToken=True)
    before = await bridge.exchange(signed_up["idToken"])
    assert before.status == 200
    users = open_emulated_admin(PROJECT, HOST).users
    if how == "disabled":
        await asyncio.to_thread(users.update_user, signed_up["localId"], disabled=True)
    else:
        await asyncio.to_thread(users.delete_user, signed_up["localId"])
    refused = await bridge.until_refused(signed_up["idToken"])
    assert refused.message == f"The Firebase user {'is' if how == 'disabled' else 'was'} {how}."
    assert (await bridge.refresh(before)).code == "UNAUTHENTICATED"


async def test_a_forged_user_is_not_let_in_by_the_emulators_unsigned_tokens(
    bridge: Bridge,
) -> None:
    claims = bridge.google.claims("nobody")
    unsigned = signing_input({"alg": "none", "typ": "JWT"}, claims) + "."
    refused = await bridge.exchange(unsigned)
    assert refused.message == "The Firebase user was deleted."
    signed = await bridge.exchange(bridge.google.signers[-1].sign(claims))
    assert signed.message == "The Firebase ID token is not one of the emulator."
