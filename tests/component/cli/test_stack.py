"""`Stack` with real servers and sidecars, and small test apps."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import aiohttp
import asyncpg
import pytest

from services.cli.stack.errors import StackError
from services.cli.stack.stack import Stack
from tests.component.cli.command import OFFSET, TEMPLATE, openfga_stores
from tests.requirements import requirement
from tests.support.wait import wait_until


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = Stack(
        tmp_path_factory.mktemp("stack"),
        port_offset=OFFSET,
        dapr_yaml=TEMPLATE,
        unsupervised={"valkey"},
    )
    running.start()
    yield running
    running.stop()


async def ask(
    stack: Stack, app: str, path: str, *, token: str | None = None, body: Any = None
) -> tuple[int, Any]:
    """Call an app's sidecar, by default with its token."""
    headers = {"dapr-api-token": stack.api_token(app) if token is None else token}
    method = "GET" if body is None else "POST"
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method, stack.url(f"{app}-daprd") + path, headers=headers, json=body
        ) as response,
    ):
        text = await response.text()
        is_json = "json" in response.content_type
        return response.status, json.loads(text) if is_json and text else text


async def whoami(stack: Stack) -> dict[str, Any]:
    """The answer of `llm` to a call from `workflows`, once service invocation works."""

    async def reached() -> dict[str, Any] | None:
        status, body = await ask(stack, "workflows", "/v1.0/invoke/llm/method/whoami")
        return body if status == 200 else None

    return await wait_until(reached, 15, "llm to be reached")


@requirement("stack:dapr-yaml")
async def test_apps_invoke_each_other_by_app_id_and_get_their_ports_from_the_environment(
    stack: Stack,
) -> None:
    env = await whoami(stack)
    ports = (str(6101 + OFFSET), str(6111 + OFFSET))
    assert (env["APP_ID"], env["APP_PORT"], env["DAPR_HTTP_PORT"]) == ("llm", *ports)
    assert env["YOCASO_DATABASE_URL"] == stack.url("postgres")


@requirement("stack:dapr-yaml")
async def test_app_and_sidecar_reject_a_caller_without_their_token(stack: Stack) -> None:
    assert (await ask(stack, "llm", "/v1.0/metadata", token="wrong"))[0] == 401
    async with (
        aiohttp.ClientSession() as session,
        session.get(stack.url("llm") + "/whoami") as response,
    ):
        assert response.status == 401


async def test_each_app_and_sidecar_has_its_own_token(stack: Stack) -> None:
    tokens = {stack.app_token("llm"), stack.app_token("workflows")}
    tokens |= {stack.api_token("llm"), stack.api_token("workflows")}
    assert len(tokens) == 4


async def test_an_app_cannot_read_the_secrets_of_components(stack: Stack) -> None:
    assert (await ask(stack, "llm", "/v1.0/secrets/secrets/postgresPassword"))[0] == 403


@requirement("stack:restart")
async def test_a_killed_app_is_restarted_without_its_sidecar(stack: Stack) -> None:
    sidecar = stack.pid("llm-daprd")
    pid = stack.kill("llm")
    await wait_until(lambda: stack.pid("llm") not in (None, pid), what="another process of llm")
    stack.wait_ready("llm")
    assert stack.pid("llm-daprd") == sidecar
    assert (await whoami(stack))["pid"] == stack.pid("llm")
    assert "exited: llm (terminated by SIGKILL" in stack.supervisor.log.read_text()


@requirement("stack:restart")
async def test_a_killed_sidecar_is_restarted_without_its_app(stack: Stack) -> None:
    app = stack.pid("llm")
    pid = stack.kill("llm-daprd")
    await wait_until(lambda: stack.pid("llm-daprd") not in (None, pid), what="another sidecar")
    stack.wait_ready("llm-daprd")
    assert stack.pid("llm") == app
    assert (await whoami(stack))["pid"] == app


async def test_stored_state_survives_a_kill_of_postgres(stack: Stack) -> None:
    assert (
        await ask(stack, "llm", "/v1.0/state/statestore", body=[{"key": "k", "value": "kept"}])
    )[0] == 204
    pid = stack.kill("postgres")
    stack.wait_exited("postgres", pid)
    stack.wait_ready("postgres")

    async def kept() -> bool:
        return await ask(stack, "llm", "/v1.0/state/statestore/k") == (200, "kept")

    await wait_until(kept, what="the stored value")


@requirement("access:openfga")
async def test_a_missing_database_is_created_at_the_start_of_openfga(stack: Stack) -> None:
    stack.halt("openfga")
    connection = await asyncpg.connect(stack.database_url())
    await connection.execute("DROP DATABASE openfga WITH (FORCE)")
    await connection.close()
    stack.restart("openfga")
    assert await openfga_stores(stack, stack.environment.secrets["openfgaToken"]) == 200


async def test_an_unsupervised_process_is_not_restarted(
    stack: Stack,
) -> None:
    pid = stack.kill("valkey")
    await wait_until(lambda: stack.supervisor.state("valkey") == "EXITED", what="the end of valkey")
    assert stack.pid("valkey") is None
    stack.restart("valkey")
    assert stack.pid("valkey") not in (None, pid)


async def test_a_process_killed_for_an_outage_stays_down_until_it_is_started(stack: Stack) -> None:
    pid = stack.pid("workflows")
    stack.kill_and_halt("workflows")
    assert (stack.pid("workflows"), stack.supervisor.state("workflows")) == (None, "STOPPED")
    assert "stopped: workflows (terminated by SIGKILL)" in stack.supervisor.log.read_text()
    stack.supervisor.start("workflows")
    stack.wait_ready("workflows")
    assert stack.pid("workflows") != pid


async def test_processes_are_stopped_and_started_at_once(stack: Stack) -> None:
    names = ("llm", "llm-daprd", "workflows")
    stack.halt(*names)
    assert [stack.supervisor.state(name) for name in names] == ["STOPPED"] * len(names)
    stack.supervisor.start(*names)
    stack.wait_ready(*names)


async def test_a_restart_can_change_the_environment(stack: Stack) -> None:
    stack.restart("llm", env={"GREETING": "changed"})
    assert (await whoami(stack))["GREETING"] == "changed"


async def test_a_paused_process_runs_but_is_not_ready(stack: Stack) -> None:
    pid = stack.pid("workflows")
    stack.pause("workflows")
    assert not stack.is_ready("workflows")
    assert stack.pid("workflows") == pid
    stack.resume("workflows")
    stack.wait_ready("workflows")


async def test_a_second_host_of_an_app_receives_calls(stack: Stack) -> None:
    name = stack.add_replica("llm")
    pids = {stack.pid("llm"), stack.pid(name)}
    seen = set[int]()

    async def both() -> bool:
        seen.add((await whoami(stack))["pid"])
        return seen == pids

    await wait_until(both, 20, "answers of both hosts")
    stack.halt(name, f"{name}-daprd")


async def test_each_process_has_a_log_file(stack: Stack) -> None:
    await wait_until(lambda: "llm listens" in stack.log("llm").read_text(), what="its first line")


async def test_the_error_for_an_unknown_process_lists_the_known_ones(stack: Stack) -> None:
    with pytest.raises(StackError, match="postgres"):
        stack.kill("unknown", signal.SIGTERM)
