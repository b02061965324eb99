"""Other people's Dapr apps, in Go, TypeScript and Java, call the platform through sidecars of their own."""

import asyncio
import uuid
from typing import Any, Final

import pytest

from services.contracts.apps import EDGE
from services.contracts.llm.conversations import CREATE_CONVERSATION, STREAM_MESSAGE
from tests.e2e.actions import prompt
from tests.e2e.conftest import STRANGER, TRUSTED_APP
from tests.requirements import requirement
from tests.support.cutting_proxy import CuttingProxy
from tests.support.foreign import PROGRAMS, Asking, ForeignSidecar, Program, asking
from tests.support.model_server import Script, script_text
from tests.support.platform import Client, Platform, idempotency_key
from tests.support.sse import StreamClient

WAYS: Final = ("edge", "trusted")
CUTS: Final = (150, 700, 801, 903, 1_000)
"""Bytes of the answers, with their headers, after which the first connections are cut."""
TOKENS: Final = 12
HELD_AFTER: Final = 4

pytestmark = pytest.mark.timeout(60)
in_each_language = pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: each.language)


def trusted_app_of(program: Program) -> str:
    return f"{TRUSTED_APP}-{program.language}"


def environment(platform: Platform, sidecar: ForeignSidecar, user: str) -> dict[str, str]:
    """What a program needs for either way of calling."""
    return {
        **sidecar.environment,
        "YOCASO_TOKEN": platform.token(user),
        "YOCASO_USER": user,
    }


async def events_of(platform: Platform, user: str, conversation: str) -> list[tuple[str, str, str]]:
    """The events of the conversation's only turn, as the edge sends them to a client of the user."""
    async with platform.client(user) as client:
        messages = await client.must("ListMessages", conversationId=conversation)
        turn = messages["messages"][0]["turnId"]
        body = {"conversationId": conversation, "turnId": turn}
        reader = client.reader("StreamEvents", body)
        return [
            (event.id or "", event.event, event.data)
            async for event in reader.events()
            if event.event != "reconnect"
        ]


async def require_same_bytes(platform: Platform, user: str, asked: Asking) -> None:
    """The program printed each event of the turn once, as it was sent."""
    conversation = asked.lines[0]["conversationId"]
    assert asked.events == await events_of(platform, user, conversation)
    assert asked.events[-1][1] == "run.completed"


def refusal(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The error that a program printed, and nothing else."""
    [line] = lines
    return line["error"]


@requirement("dapr:foreign-apps")
@pytest.mark.parametrize("way", WAYS)
async def test_a_turn_streams_and_resumes_where_its_sidecar_died(
    own_platform: Platform, sidecars: dict[str, ForeignSidecar], way: str
) -> None:
    async def resumes(program: Program) -> None:
        user, gate = f"ada-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
        sidecar = sidecars[trusted_app_of(program)]
        said = prompt(tokens=TOKENS, unicode=True, gate=gate, gate_after=HELD_AFTER)
        env = environment(own_platform, sidecar, user)
        async with asking(program, way, said.text, env) as asked:
            await asked.until("text.delta")
            await own_platform.wait_held(gate)  # shown is the first token; the others were not sent
            sidecar.stop(kill=True)
            sidecar.start()
            await asyncio.to_thread(sidecar.wait_ready)
            await own_platform.release_gate(gate)
            await asked.finish()
        await require_same_bytes(own_platform, user, asked)
        [call] = await own_platform.model_calls(said.word)
        assert call["tokens_sent"] == TOKENS

    await asyncio.gather(*map(resumes, PROGRAMS))


@requirement("dapr:foreign-apps")
async def test_connections_that_are_cut_within_an_answer_repeat_and_lose_nothing(
    own_platform: Platform, sidecars: dict[str, ForeignSidecar]
) -> None:
    sidecar = sidecars[TRUSTED_APP]

    async def loses_nothing(program: Program) -> None:
        user = f"ada-{uuid.uuid4().hex[:8]}"
        text = script_text(tokens=120, unicode=True, delay_ms=5)
        async with CuttingProxy(sidecar.port, CUTS) as proxy:
            env = environment(own_platform, sidecar, user)
            port = {"DAPR_HTTP_PORT": str(proxy.port)}
            async with asking(program, "edge", text, {**env, **port}) as asked:
                await asked.finish()
        await require_same_bytes(own_platform, user, asked)
        assert len(proxy.done) >= 3  # a client may close a connection before its cut
        async with own_platform.client(user) as client:
            assert len((await client.must("ListConversations"))["conversations"]) == 1

    await asyncio.gather(*map(loses_nothing, PROGRAMS))


@requirement("dapr:foreign-apps")
@in_each_language
async def test_a_wrong_token_is_unauthenticated(
    own_platform: Platform, sidecars: dict[str, ForeignSidecar], program: Program
) -> None:
    env = environment(own_platform, sidecars[trusted_app_of(program)], "ada")
    async with asking(program, "edge", "hello", {**env, "YOCASO_TOKEN": "wrong"}) as asked:
        error = refusal(await asked.finish())
    assert (error["status"], error["code"]) == (401, "UNAUTHENTICATED")


@requirement("dapr:foreign-apps")
@in_each_language
async def test_with_certificates_the_sidecar_refuses_an_app_that_is_not_trusted(
    own_platform: Platform, sidecars: dict[str, ForeignSidecar], program: Program
) -> None:
    env = environment(own_platform, sidecars[STRANGER], "ada")
    async with asking(program, "trusted", "hello", env) as asked:
        error = refusal(await asked.finish())
    assert error["status"] == 403
    assert error["isTerminal"]


@requirement("dapr:foreign-apps")
@pytest.mark.parametrize("app", [TRUSTED_APP, STRANGER])
async def test_the_edge_takes_the_user_from_the_token_whatever_an_app_says(
    own_platform: Platform, sidecars: dict[str, ForeignSidecar], alice: Client, app: str
) -> None:
    sidecar, user = sidecars[app], f"ada-{uuid.uuid4().hex[:8]}"
    url = sidecar.url_of(EDGE.id, CREATE_CONVERSATION.edge_path)
    claims = {"x-user-id": "eve", "x-scopes": "conversations:write", "dapr-caller-app-id": "edge"}
    headers = {"dapr-api-token": sidecar.token, **claims}
    async with alice.session.post(url, json={}, headers=headers) as reply:
        assert reply.status == 401
    headers["authorization"] = f"Bearer {own_platform.token(user)}"
    async with alice.session.post(url, json={}, headers=headers) as reply:
        created = await reply.json()
    async with own_platform.client(user) as client:
        found = await client.must("ListConversations")
    assert [each["conversationId"] for each in found["conversations"]] == [
        created["conversationId"]
    ]


@requirement("dapr:foreign-streams")
async def test_through_the_edge_a_stream_ends_with_reconnect_before_a_sidecar_cuts_it(
    own_platform: Platform, sidecars: dict[str, ForeignSidecar]
) -> None:
    gate = uuid.uuid4().hex
    async with own_platform.client(f"ada-{uuid.uuid4().hex[:8]}") as client:
        body = {
            "conversationId": await client.conversation(),
            "text": script_text(tokens=TOKENS, gate=gate, gate_after=HELD_AFTER),
        }
        sidecar = sidecars[STRANGER]
        headers = client.headers({"dapr-api-token": sidecar.token, **idempotency_key()})
        url = sidecar.url_of(EDGE.id, STREAM_MESSAGE.edge_path)
        reader = StreamClient(client.session, url, headers=headers, body=body)
        seen = [event.event async for event in reader.events()]
        assert seen[-1] == "reconnect"
        assert "text.delta" in seen
        await own_platform.release_gate(gate)
        fold = await reader.run()
    assert (fold.terminal, fold.text) == ("run.completed", Script(tokens=TOKENS).answer(""))
