"""versitygw as a server of the stack."""

import json
import stat

import psutil
import pytest
from pydantic import SecretStr

from services.cli.stack import Stack
from services.kit.errors import ErrorCode, RpcError
from services.kit.storage.objects import ObjectStore, ObjectStoreSettings
from tests.component.objects.conftest import APP
from tests.requirements import requirement

SERVER = "versitygw"
SECRETS = ("objectsKeyId", "objectsSecret")


@requirement("stack:objects")
async def test_the_server_listens_only_on_loopback(stack: Stack) -> None:
    process = psutil.Process(stack.pid(SERVER))
    listening = {c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert {(each.ip, each.port) for each in listening} == {
        ("127.0.0.1", stack.spec(SERVER).ports[SERVER])
    }


@requirement("stack:objects")
async def test_only_apps_that_use_it_get_its_credentials(stack: Stack) -> None:
    mine, other = (stack.environment.for_app(app) for app in (APP, "llm"))
    assert mine["YOCASO_OBJECTS_URL"] == stack.url(SERVER)
    assert mine["YOCASO_OBJECTS_SECRET"] == stack.environment.secrets["objectsSecret"]
    assert [name for name in other if "OBJECTS" in name] == []
    assert mine["YOCASO_OBJECTS_SECRET"] in stack.state.env_file.read_text()


@requirement("stack:objects")
async def test_arguments_and_log_of_the_server_contain_no_secret(
    stack: Stack, objects: ObjectStore
) -> None:
    await objects.put("server/a", b"x")
    seen = " ".join(psutil.Process(stack.pid(SERVER)).cmdline()) + stack.log(SERVER).read_text()
    assert [name for name in SECRETS if stack.environment.secrets[name] in seen] == []
    assert "server/a" not in seen


async def test_a_users_configuration_of_amazon_has_no_effect(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "absent")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    await objects.put("server/isolated", b"x")
    assert await objects.get("server/isolated") == b"x"


@requirement("stack:objects")
async def test_wrong_credentials_are_refused_without_detail(settings: ObjectStoreSettings) -> None:
    wrong = settings.model_copy(update={"secret": SecretStr("0" * 64)})
    objects = ObjectStore(wrong)
    try:
        with pytest.raises(RpcError) as refused:
            await objects.put("server/refused", b"x")
    finally:
        await objects.close()
    assert refused.value.code is ErrorCode.INTERNAL
    assert "ignature" not in refused.value.message


@requirement("stack:objects")
async def test_objects_and_credentials_survive_a_restart_of_the_server(
    stack: Stack, objects: ObjectStore
) -> None:
    await objects.put("server/kept", b"kept")
    stack.restart(SERVER)
    assert await objects.get("server/kept") == b"kept"
    saved = json.loads(stack.state.secrets_file.read_text())
    assert [saved[name] for name in SECRETS] == [stack.environment.secrets[n] for n in SECRETS]
    assert stat.S_IMODE(stack.state.secrets_file.stat().st_mode) == 0o600
