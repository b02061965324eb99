"""A revocation ends open streams and waiting calls, and no other way of reading shows further events."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.contracts.auth.authorization import AUTHORIZATION_SERVICE
from services.contracts.auth.keys import API_KEY_SERVICE
from services.contracts.auth.tokens import TOKEN_SERVICE
from tests.e2e.access_matrix import Principal
from tests.e2e.actions import (
    REVOCATION_SECONDS,
    LiveTurn,
    api_key,
    exchanged,
    live_turn,
    prompt,
    refreshed,
    signed_in,
    user_of,
)
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.sse import SseEvent
from tests.support.wait import wait_until

LIVE_SECONDS = 10
"""Seconds within which the stream of a revoked reader ends."""
REFUSED_SECONDS = 5
"""Seconds within which a call is refused, also without a wake-up."""
REVOCATIONS = ("unshared", "link revoked")


class Access:
    """Bob's access to a conversation of alice, by a share or a link."""

    def __init__(self, way: str, alice: Client, bob: Client, conversation: str) -> None:
        self._way, self._alice, self._bob = way, alice, bob
        self._object = f"conversation:{conversation}"
        self._link: dict[str, Any] = {}

    async def give(self, role: str = "VIEWER") -> None:
        """Share with bob, or create a link that bob opens."""
        if self._way == "unshared":
            await self._ask("Share", subject=f"user:{user_of(self._bob)}", role=role)
            return
        self._link = await self._ask("CreateShareLink", role=role)
        await self._bob.must_of(AUTHORIZATION_SERVICE, "OpenShareLink", token=self._link["token"])

    async def take(self) -> None:
        """Revoke the share or the link."""
        if self._way == "unshared":
            await self._ask("Unshare", subject=f"user:{user_of(self._bob)}")
        else:
            await self._ask("RevokeShareLink", linkId=self._link["linkId"])

    async def _ask(self, method: str, **body: Any) -> Any:
        return await self._alice.must_of(AUTHORIZATION_SERVICE, method, object=self._object, **body)


@asynccontextmanager
async def held_turn(
    platform: Platform, client: Client, conversation: str
) -> AsyncIterator[LiveTurn]:
    """A turn that has shown text and is held at a gate named after its conversation."""
    said = prompt(tokens=3, gate=conversation, gate_after=1)
    async with live_turn(client, conversation, said, until_text=True) as turn:
        await platform.wait_held(conversation)
        yield turn


async def until_error(frames: AsyncIterator[SseEvent], first: asyncio.Event) -> dict[str, Any]:
    """Read to the event `error`, which must be the last; sets `first` at the first event."""
    errors: list[dict[str, Any]] = []
    async for frame in frames:
        first.set()
        assert not errors, f"{frame} after the error"
        if frame.event == "error":
            errors.append(frame.json()["error"])
    assert len(errors) == 1
    return errors[0]


@requirement("access:stream-recheck", "access:sharing", "access:share-links")
@pytest.mark.parametrize("way", REVOCATIONS)
async def test_only_the_stream_of_a_revoked_reader_ends_with_an_error_within_ten_seconds(
    own_platform: Platform, alice: Client, bob: Client, conversation: str, way: str
) -> None:
    access, reading = Access(way, alice, bob, conversation), asyncio.Event()
    await access.give()
    async with held_turn(own_platform, alice, conversation) as turn:
        follower = bob.reader("StreamEvents", turn.ref)
        ending = asyncio.create_task(until_error(follower.events(), reading))
        await asyncio.wait_for(reading.wait(), LIVE_SECONDS)
        began = time.monotonic()
        await access.take()
        error = await asyncio.wait_for(ending, LIVE_SECONDS)
        print(f"{way}: the stream ended after {time.monotonic() - began:.1f} s")
        assert error["code"] == "NOT_FOUND"
        for method in ("GetTurn", "ListEvents"):
            assert (await bob.call(method, **turn.ref)).code == "NOT_FOUND"
        for resumed in ({}, {"last-event-id": str(follower.fold.seq)}):
            async with bob.stream("StreamEvents", resumed, **turn.ref) as reply:
                assert reply.status == 404
        await own_platform.release_gate(conversation)
        assert (await turn.rest()).terminal == "run.completed"


@requirement("access:stream-recheck")
@pytest.mark.parametrize("way", REVOCATIONS)
async def test_a_revoked_editor_sees_no_further_event_of_its_own_turn(
    own_platform: Platform, alice: Client, bob: Client, conversation: str, way: str
) -> None:
    access, reading = Access(way, alice, bob, conversation), asyncio.Event()
    await access.give("EDITOR")
    async with held_turn(own_platform, bob, conversation) as turn:
        ending = asyncio.create_task(until_error(turn.frames, reading))
        await access.take()
        error = await asyncio.wait_for(ending, LIVE_SECONDS)
        assert error["code"] == "NOT_FOUND"
        await own_platform.release_gate(conversation)
        seen = turn.stream.fold.text
        whole = await alice.reader("StreamEvents", turn.ref).run()
        assert whole.terminal == "run.completed"
        assert whole.text.startswith(seen)
        assert whole.text != seen


@requirement("access:stream-recheck")
@pytest.mark.parametrize("way", REVOCATIONS)
async def test_a_long_poll_returns_no_event_from_after_a_revocation(
    own_platform: Platform, alice: Client, bob: Client, conversation: str, way: str
) -> None:
    access = Access(way, alice, bob, conversation)
    await access.give()
    async with held_turn(own_platform, alice, conversation) as turn:
        seen = (await bob.must("ListEvents", **turn.ref))["events"]
        after = seen[-1]["seq"]
        waiting = asyncio.create_task(
            bob.call("ListEvents", **turn.ref, after=after, waitSeconds=20)
        )
        # A call of alice that waits in the same way shows that bob's call waits too.
        hers = await alice.must("ListEvents", **turn.ref, after=after, waitSeconds=1)
        assert hers["events"] == []
        assert not waiting.done()
        await access.take()
        await own_platform.release_gate(conversation)
        answer = await asyncio.wait_for(waiting, LIVE_SECONDS)
        assert answer.code == "NOT_FOUND"
        assert (await turn.rest()).terminal == "run.completed"


@requirement("access:edge:revocation", "access:tokens:revoke", "access:keys:revoke")
@pytest.mark.parametrize(
    "what", [Principal.SIGNED_OUT, Principal.REVOKED_KEY, Principal.REVOKED_KEY_TOKEN]
)
async def test_a_revoked_credential_ends_only_its_own_streams(
    own_platform: Platform, alice: Client, conversation: str, what: Principal
) -> None:
    key_id, secret = await api_key(alice)
    pair = await refreshed(alice, await signed_in(own_platform, user_of(alice)))
    shown = {
        Principal.SIGNED_OUT: pair["accessToken"],
        Principal.REVOKED_KEY: secret,
        Principal.REVOKED_KEY_TOKEN: await exchanged(alice, secret),
    }[what]
    robot = alice.as_(shown)
    async with (
        held_turn(own_platform, robot, conversation) as mine,
        alice.stream("StreamEvents", **mine.ref) as followed,
    ):
        assert followed.status == 200
        other = asyncio.create_task(followed.read())
        ending = asyncio.create_task(mine.rest())
        if what is Principal.SIGNED_OUT:
            await alice.must_of(TOKEN_SERVICE, "RevokeToken", token=pair["refreshToken"])
        else:
            await alice.must_of(API_KEY_SERVICE, "RevokeApiKey", keyId=key_id)
        fold = await asyncio.wait_for(ending, REVOCATION_SECONDS)
        assert fold.terminal is None
        async with robot.stream("StreamEvents", **mine.ref) as resumed:
            assert resumed.status == 401
        assert not other.done()
        await own_platform.release_gate(conversation)
        assert b"run.completed" in await asyncio.wait_for(other, LIVE_SECONDS)


@requirement("access:stream-recheck")
async def test_send_message_returns_no_answer_to_a_user_revoked_while_it_waits(
    own_platform: Platform, alice: Client, bob: Client, conversation: str
) -> None:
    access = Access("unshared", alice, bob, conversation)
    await access.give("EDITOR")
    said = prompt(tokens=2, gate=conversation)
    sending = asyncio.create_task(
        bob.call("SendMessage", conversationId=conversation, text=said.text)
    )
    await own_platform.wait_held(conversation)
    await access.take()
    await own_platform.release_gate(conversation)
    assert (await asyncio.wait_for(sending, 20)).code == "NOT_FOUND"

    async def answered() -> bool:
        found = await alice.must("ListMessages", conversationId=conversation)
        return [each["role"] for each in found["messages"]] == ["USER", "ASSISTANT"]

    await wait_until(answered, 10, "the answer to be stored")


@requirement("access:cache", "access:stream-recheck")
@pytest.mark.disturbs
async def test_a_revocation_takes_effect_while_wake_ups_are_lost(
    own_platform: Platform, alice: Client, bob: Client, conversation: str
) -> None:
    access, reading = Access("unshared", alice, bob, conversation), asyncio.Event()
    await access.give()
    async with held_turn(own_platform, alice, conversation) as turn:
        follower = bob.reader("StreamEvents", turn.ref)
        ending = asyncio.create_task(until_error(follower.events(), reading))
        await asyncio.wait_for(reading.wait(), LIVE_SECONDS)
        own_platform.stack.pause("valkey")
        try:
            await access.take()

            async def refused() -> bool:
                return (await bob.call("GetTurn", **turn.ref)).code == "NOT_FOUND"

            await wait_until(refused, REFUSED_SECONDS, "the refusal")
            assert (await asyncio.wait_for(ending, LIVE_SECONDS))["code"] == "NOT_FOUND"
        finally:
            own_platform.stack.resume("valkey")
        await own_platform.release_gate(conversation)
        assert (await turn.rest()).terminal == "run.completed"
