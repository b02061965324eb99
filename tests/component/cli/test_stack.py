"""`Stack`: real servers and sidecars around tiny apps."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from services.cli.stack.errors import StackError
from services.cli.stack.stack import Stack
from tests.component.cli.command import OFFSET, TEMPLATE
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
    """A call to an app's sidecar, with its token unless another is given."""
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
    """What app `llm` says of itself to app `workflows`, as soon as it can be reached."""

    async def reached() -> dict[str, Any] | None:
        status, body = await ask(stack, "workflows", "/v1.0/invoke/llm/method/whoami")
        return body if status == 200 else None

    return await wait_until(reached, 15, "llm to be reached")


@requirement("stack:dapr-yaml")
async def test_apps_reach_each_other_by_name_and_know_their_ports(stack: Stack) -> None:
    said = await whoami(stack)
    assert (said["APP_ID"], said["APP_PORT"], said["DAPR_HTTP_PORT"]) == ("llm", "13101", "13111")
    assert said["YOCASO_DATABASE_URL"] == stack.url("postgres")


@requirement("stack:dapr-yaml")
async def test_app_and_sidecar_refuse_a_caller_without_their_token(stack: Stack) -> None:
    assert (await ask(stack, "llm", "/v1.0/metadata", token="wrong"))[0] == 401
    async with (
        aiohttp.ClientSession() as session,
        session.get(stack.url("llm") + "/whoami") as response,
    ):
        assert response.status == 401


async def test_apps_have_tokens_of_their_own(stack: Stack) -> None:
    tokens = {stack.app_token("llm"), stack.app_token("workflows")}
    tokens |= {stack.api_token("llm"), stack.api_token("workflows")}
    assert len(tokens) == 4


async def test_an_app_may_not_read_the_secrets_of_components(stack: Stack) -> None:
    assert (await ask(stack, "llm", "/v1.0/secrets/secrets/postgresPassword"))[0] == 403


@requirement("stack:restart")
async def test_an_app_that_dies_is_started_again_and_its_sidecar_is_not(stack: Stack) -> None:
    sidecar = stack.process("llm-daprd")
    pid = stack.kill("llm")
    await wait_until(lambda: stack.process("llm") not in (None, pid), what="another process of llm")
    stack.wait_running("llm")
    assert stack.process("llm-daprd") == sidecar
    assert (await whoami(stack))["pid"] == stack.process("llm")
    assert "exited: llm (terminated by SIGKILL" in stack.supervisor.log.read_text()


@requirement("stack:restart")
async def test_a_sidecar_that_dies_is_started_again_and_its_app_is_not(stack: Stack) -> None:
    app = stack.process("llm")
    pid = stack.kill("llm-daprd")
    await wait_until(lambda: stack.process("llm-daprd") not in (None, pid), what="another sidecar")
    stack.wait_running("llm-daprd")
    assert stack.process("llm") == app
    assert (await whoami(stack))["pid"] == app


async def test_what_was_stored_outlives_the_death_of_postgres(stack: Stack) -> None:
    assert (
        await ask(stack, "llm", "/v1.0/state/statestore", body=[{"key": "k", "value": "kept"}])
    )[0] == 204
    pid = stack.kill("postgres")
    stack.wait_gone("postgres", pid)
    stack.wait_running("postgres")

    async def kept() -> bool:
        return await ask(stack, "llm", "/v1.0/state/statestore/k") == (200, "kept")

    await wait_until(kept, what="the stored value")


async def test_a_process_that_is_not_supervised_stays_down_until_it_is_started(
    stack: Stack,
) -> None:
    pid = stack.kill("valkey")
    await wait_until(lambda: stack.supervisor.state("valkey") == "EXITED", what="the end of valkey")
    assert stack.process("valkey") is None
    stack.restart("valkey")
    assert stack.process("valkey") not in (None, pid)


async def test_a_restart_may_change_the_environment(stack: Stack) -> None:
    stack.restart("llm", env={"GREETING": "changed"})
    assert (await whoami(stack))["GREETING"] == "changed"


async def test_a_paused_process_lives_but_is_not_running(stack: Stack) -> None:
    pid = stack.process("workflows")
    stack.pause("workflows")
    assert not stack.is_running("workflows")
    assert stack.process("workflows") == pid
    stack.resume("workflows")
    stack.wait_running("workflows")


async def test_a_second_host_of_an_app_shares_its_name(stack: Stack) -> None:
    name = stack.add_replica("llm")
    pids = {stack.process("llm"), stack.process(name)}
    seen = set[int]()

    async def both() -> bool:
        seen.add((await whoami(stack))["pid"])
        return seen == pids

    await wait_until(both, 20, "answers of both hosts")
    stack.halt(name)
    stack.halt(f"{name}-daprd")


async def test_output_goes_to_a_file_by_the_name_of_the_process(stack: Stack) -> None:
    await wait_until(lambda: "llm listens" in stack.log("llm").read_text(), what="its first line")


async def test_a_name_that_is_not_there_is_refused_with_those_that_are(stack: Stack) -> None:
    with pytest.raises(StackError, match="postgres"):
        stack.kill("nobody", signal.SIGTERM)
