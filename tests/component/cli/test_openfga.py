"""OpenFGA as a server of the stack."""

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
async def test_openfga_requires_its_key(stack: Stack) -> None:
    key = stack.environment.secrets["openfgaToken"]
    assert [await stores(stack, token) for token in (key, "another", None)] == [200, 401, 401]


@requirement("access:openfga")
async def test_openfga_listens_only_on_loopback_and_its_assigned_ports(stack: Stack) -> None:
    process = psutil.Process(stack.pid("openfga"))
    listening = {c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} == set(stack.spec("openfga").ports.values())


@requirement("access:openfga")
async def test_arguments_and_log_of_openfga_contain_no_secret(stack: Stack) -> None:
    seen = " ".join(psutil.Process(stack.pid("openfga")).cmdline())
    seen += stack.log("openfga").read_text()
    for name in ("openfgaToken", "postgresPassword"):
        assert stack.environment.secrets[name] not in seen


@requirement("access:openfga")
async def test_a_missing_database_is_created_at_the_start_of_openfga(stack: Stack) -> None:
    stack.halt("openfga")
    connection = await asyncpg.connect(stack.database_url())
    await connection.execute("DROP DATABASE openfga WITH (FORCE)")
    await connection.close()
    stack.restart("openfga")
    assert await stores(stack, stack.environment.secrets["openfgaToken"]) == 200


async def test_only_auth_gets_the_url_and_key_of_openfga(stack: Stack) -> None:
    env = stack.environment.for_app("auth")
    assert env["AUTH_OPENFGA_URL"] == stack.url("openfga")
    assert env["AUTH_OPENFGA_TOKEN"] == stack.environment.secrets["openfgaToken"]
    assert "AUTH_OPENFGA_TOKEN" not in stack.environment.for_app("llm")
    assert env["AUTH_OPENFGA_TOKEN"] in stack.state.env_file.read_text()
