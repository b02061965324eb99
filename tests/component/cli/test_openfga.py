"""OpenFGA among the servers of a stack."""

from collections.abc import Iterator

import aiohttp
import asyncpg
import psutil
import pytest

from services.cli.stack import Stack
from tests.component.cli.command import OFFSET, TEMPLATE
from tests.requirements import requirement


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = Stack(tmp_path_factory.mktemp("openfga"), port_offset=OFFSET, dapr_yaml=TEMPLATE)
    running.start(apps=False)
    yield running
    running.stop()


async def stores(stack: Stack, token: str | None) -> int:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession() as session,
        session.get(stack.url("openfga") + "/stores", headers=headers) as reply,
    ):
        return reply.status


@requirement("access:openfga")
async def test_only_who_has_its_key_is_answered(stack: Stack) -> None:
    key = stack.environment.secrets["openfgaToken"]
    assert [await stores(stack, token) for token in (key, "another", None)] == [200, 401, 401]


@requirement("access:openfga")
async def test_it_listens_on_loopback_and_only_where_the_plan_says(stack: Stack) -> None:
    process = psutil.Process(stack.process("openfga"))
    listening = {c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} == set(stack.spec("openfga").ports.values())


@requirement("access:openfga")
async def test_no_secret_is_among_its_arguments_or_in_its_log(stack: Stack) -> None:
    seen = " ".join(psutil.Process(stack.process("openfga")).cmdline())
    seen += stack.log("openfga").read_text()
    for name in ("openfgaToken", "postgresPassword"):
        assert stack.environment.secrets[name] not in seen


@requirement("access:openfga")
async def test_a_state_folder_older_than_openfga_gets_its_database(stack: Stack) -> None:
    stack.halt("openfga")
    connection = await asyncpg.connect(stack.database_url())
    await connection.execute("DROP DATABASE openfga WITH (FORCE)")
    await connection.close()
    stack.restart("openfga")
    assert await stores(stack, stack.environment.secrets["openfgaToken"]) == 200


async def test_auth_is_told_where_it_is(stack: Stack) -> None:
    told = stack.environment.for_app("auth")
    assert told["AUTH_OPENFGA_URL"] == stack.url("openfga")
    assert told["AUTH_OPENFGA_TOKEN"] == stack.environment.secrets["openfgaToken"]
    assert "AUTH_OPENFGA_TOKEN" not in stack.environment.for_app("llm")
    assert told["AUTH_OPENFGA_TOKEN"] in stack.state.env_file.read_text()
