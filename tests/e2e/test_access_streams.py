"""Whoever loses access loses the live stream too, within ten seconds; everybody else reads on."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from services.contracts.authorization import AUTHORIZATION_SERVICE
from tests.e2e.talk import Live, live_turn, prompt, reader, release, user_of
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.sse import SseEvent

BOUND: Final = 10.0


async def access(client: Client, method: str, **body: Any) -> Any:
    """Call AuthorizationService; what it has to succeed with."""
    path = client.url + AUTHORIZATION_SERVICE.edge_path(AUTHORIZATION_SERVICE[method])
    async with client.session.post(path, json=body, headers=client.headers()) as reply:
        answer = await reply.json()
        assert reply.status == 200, answer
        return answer


@dataclass(frozen=True, slots=True)
class Held:
    """A turn of alice's that stands still, and its gate."""

    live: Live
    object: str
    gate: str


@asynccontextmanager
async def held_turn(platform: Platform, alice: Client, conversation: str) -> AsyncIterator[Held]:
    """A turn whose model has said a word, and waits."""
    gate = f"gate-{uuid.uuid4().hex}"
    said = prompt(text="one two three", gate=gate, gate_after=1)
    async with live_turn(alice, conversation, said, until_text=True) as live:
        try:
            yield Held(live, f"conversation:{conversation}", gate)
        finally:
            await release(platform, gate)


async def frames_until_end(client: Client, ref: Mapping[str, str], seen: asyncio.Event) -> SseEvent:
    """Read a stream without resuming; its last frame."""
    frames: list[SseEvent] = []
    async for frame in reader(client, "StreamEvents", ref).events():
        frames.append(frame)
        seen.set()
    return frames[-1]


async def reading(client: Client, ref: Mapping[str, str]) -> "asyncio.Task[SseEvent]":
    """A reader that has begun to read."""
    seen = asyncio.Event()
    task = asyncio.create_task(frames_until_end(client, ref, seen))
    await asyncio.wait_for(seen.wait(), 10)
    return task


async def give(alice: Client, bob: Client, way: str, target: str) -> Any:
    """Let bob read, by a share or by a link that he opens; returns what takes it back."""
    if way == "share":
        subject = f"user:{user_of(bob)}"
        await access(alice, "Share", object=target, subject=subject)
        return "Unshare", {"object": target, "subject": subject}
    link = await access(alice, "CreateShareLink", object=target)
    await access(bob, "OpenShareLink", token=link["token"])
    return "RevokeShareLink", {"object": target, "linkId": link["linkId"]}


@requirement("access:stream-recheck")
@pytest.mark.parametrize("way", ["share", "link"])
async def test_a_share_that_is_taken_back_ends_the_live_stream(
    platform: Platform, alice: Client, bob: Client, conversation: str, way: str
) -> None:
    async with held_turn(platform, alice, conversation) as held:
        method, body = await give(alice, bob, way, held.object)
        bobs = await reading(bob, held.live.ref)
        alices = await reading(alice, held.live.ref)
        began = time.monotonic()
        await access(alice, method, **body)
        last = await asyncio.wait_for(bobs, BOUND)
        assert time.monotonic() - began < BOUND
        assert last.event == "error"
        assert last.json()["error"]["code"] == "NOT_FOUND"
        assert not alices.done()
        assert (await bob.call("GetTurn", **held.live.ref)).code == "NOT_FOUND"
        await release(platform, held.gate)
        assert (await asyncio.wait_for(alices, BOUND)).event == "run.completed"


@requirement("access:stream-recheck")
async def test_a_long_poll_never_gives_what_was_taken_back_meanwhile(
    platform: Platform, alice: Client, bob: Client, conversation: str
) -> None:
    async with held_turn(platform, alice, conversation) as held:
        method, body = await give(alice, bob, "share", held.object)
        known = (await bob.must("ListEvents", **held.live.ref))["events"]
        waiting = asyncio.create_task(
            bob.call("ListEvents", **held.live.ref, after=known[-1]["seq"], waitSeconds=30)
        )
        await access(alice, method, **body)
        await release(platform, held.gate)
        answer = await asyncio.wait_for(waiting, BOUND)
        assert answer.code == "NOT_FOUND"


@requirement("access:sharing")
async def test_a_viewer_reads_an_editor_writes_and_only_the_owner_deletes(
    alice: Client, bob: Client, conversation: str
) -> None:
    target, subject = f"conversation:{conversation}", f"user:{user_of(bob)}"
    named = {"conversationId": conversation}
    assert (await bob.call("GetConversation", **named)).code == "NOT_FOUND"
    await access(alice, "Share", object=target, subject=subject, role="VIEWER")
    await bob.must("GetConversation", **named)
    assert (await bob.call("AppendMessage", **named, text="no")).code == "PERMISSION_DENIED"
    await access(alice, "Share", object=target, subject=subject, role="EDITOR")
    assert (await bob.must("SendMessage", **named, text="yes"))["turn"]["status"] == "COMPLETED"
    assert (await bob.call("DeleteConversation", **named)).code == "PERMISSION_DENIED"
    shared = await access(bob, "ListSharedWithMe")
    assert shared["objects"] == [target]
    await access(alice, "Unshare", object=target, subject=subject)
    assert (await bob.call("GetConversation", **named)).code == "NOT_FOUND"
    texts = [each["text"] for each in (await alice.must("ListMessages", **named))["messages"]]
    assert "yes" in texts


@requirement("access:sharing")
async def test_a_deleted_conversation_is_gone_for_everybody_at_once(
    alice: Client, bob: Client, conversation: str
) -> None:
    target, named = f"conversation:{conversation}", {"conversationId": conversation}
    await access(alice, "Share", object=target, subject=f"user:{user_of(bob)}")
    await bob.must("GetConversation", **named)
    await alice.must("DeleteConversation", **named)
    for client in (alice, bob):
        assert (await client.call("GetConversation", **named)).code == "NOT_FOUND"
