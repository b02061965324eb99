"""OpenFGA as a server of the stack; the test that drops its database has a stack of its own in `test_stack`."""

import psutil

from services.cli.stack import Stack
from tests.component.cli.command import openfga_stores
from tests.requirements import requirement


@requirement("access:openfga")
async def test_openfga_requires_its_key(servers: Stack) -> None:
    key = servers.environment.secrets["openfgaToken"]
    assert [await openfga_stores(servers, token) for token in (key, "another", None)] == [
        200,
        401,
        401,
    ]


@requirement("access:openfga")
async def test_openfga_listens_only_on_loopback_and_its_assigned_ports(servers: Stack) -> None:
    process = psutil.Process(servers.pid("openfga"))
    listening = {c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} == set(servers.spec("openfga").ports.values())


@requirement("access:openfga")
async def test_arguments_and_log_of_openfga_contain_no_secret(servers: Stack) -> None:
    seen = " ".join(psutil.Process(servers.pid("openfga")).cmdline())
    seen += servers.log("openfga").read_text()
    for name in ("openfgaToken", "postgresPassword"):
        assert servers.environment.secrets[name] not in seen


async def test_only_auth_gets_the_url_and_key_of_openfga(servers: Stack) -> None:
    env = servers.environment.for_app("auth")
    assert env["AUTH_OPENFGA_URL"] == servers.url("openfga")
    assert env["AUTH_OPENFGA_TOKEN"] == servers.environment.secrets["openfgaToken"]
    assert "AUTH_OPENFGA_TOKEN" not in servers.environment.for_app("llm")
    assert env["AUTH_OPENFGA_TOKEN"] in servers.state.env_file.read_text()
