"""A thousand random cuts of streams, by clients and by kills: every reader gets the same bytes."""

import asyncio
import os
import random
import time
import uuid
from collections.abc import Callable
from itertools import cycle

from tests.chaos.faults import kill, until_ready
from tests.chaos.turns import generation
from tests.requirements import requirement
from tests.support.model_server import script_text
from tests.support.platform import Client, Platform, idempotency_key
from tests.support.retries import until_ok
from tests.support.sse import Fold, StreamClient
from tests.support.wait import wait_until

CUTS = 1_000
AT_ONCE = 8
WORDS = 120
KILLS = 2
"""`poe soak` does the same for as long as it is told."""
PROBABILITY = 0.6


GENERATIONS = [generation(attempt, WORDS) for attempt in range(4)]


def _message() -> str:
    attempts = [{"text": text, "delay_ms": 25} for text in GENERATIONS]
    return f"{script_text(attempts=attempts)} {uuid.uuid4().hex}"


class _Wave:
    """Concurrent turns, each read by a client that cuts its own connection."""

    def __init__(self, client: Client, conversations: list[str], source: random.Random) -> None:
        self.client = client
        self.conversations = conversations
        self.streams = [self._stream(one, source) for one in conversations]

    def _stream(self, conversation: str, source: random.Random) -> StreamClient:
        return self.client.reader(
            "StreamMessage",
            {"conversationId": conversation, "text": _message()},
            idempotency_key(),
            random_cuts=random.Random(source.random()),
            cut_probability=PROBABILITY,
        )

    @property
    def shown(self) -> int:
        """Words shown so far of all answers."""
        return sum(len(stream.fold.text.split()) for stream in self.streams)

    @property
    def cuts(self) -> int:
        """How many open streams were cut and resumed."""
        return sum(each.connections - 1 - len(each.failures) for each in self.streams)

    async def run(self) -> None:
        """Read every stream to its end."""
        await asyncio.gather(*(stream.run(timeout=120) for stream in self.streams))

    async def problems(self) -> list[str]:
        """Differences from the committed text and from the events of an uncut reader."""
        pairs = zip(self.conversations, self.streams, strict=True)
        found = await asyncio.gather(*(self._compare(one, stream.fold) for one, stream in pairs))
        return [each for those in found for each in those]

    async def _compare(self, conversation: str, fold: Fold) -> list[str]:
        listed = await until_ok(self.client, "ListMessages", conversationId=conversation)
        ref = {"conversationId": conversation, "turnId": fold.events[0]["data"]["turnId"]}
        whole = await self.client.reader("StreamEvents", ref).run()
        found: list[str] = []
        if fold.raw != whole.raw:
            found.append(f"{conversation}: an uncut reader got other events")
        if [each["text"] for each in listed["messages"]][1:] != [fold.text]:
            found.append(f"{conversation}: committed and shown text differ")
        if fold.text not in GENERATIONS:
            found.append(f"{conversation}: spliced {fold.text!r}")
        return found


@requirement("events:thousand-cuts", "events:gap-free", "chaos:C3", "turns:attempt-restarted")
async def test_a_thousand_random_cuts_give_the_same_bytes(
    platform: Platform, alice: Client, figure: Callable[..., None]
) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or time.time_ns() % 2**32)
    source = random.Random(seed)
    targets = cycle(["edge", "llm"])
    cuts = kills = turns = restarts = 0
    began = time.monotonic()
    problems: list[str] = []
    while (cuts < CUTS or kills < KILLS) and not problems:
        ids = await asyncio.gather(*(until_ok(alice, "CreateConversation") for _ in range(AT_ONCE)))
        wave = _Wave(alice, [one["conversationId"] for one in ids], source)
        reading = asyncio.create_task(wave.run())
        if kills < KILLS:
            await _kill_amid(platform, wave, next(targets), source)
            kills += 1
        await reading
        problems = await wave.problems()
        cuts += wave.cuts
        turns += AT_ONCE
        restarts += sum(stream.fold.restarts for stream in wave.streams)
    seconds = round(time.monotonic() - began, 1)
    figure(
        figure="random cuts",
        seed=seed,
        cuts=cuts,
        turns=turns,
        kills=kills,
        attempts_restarted=restarts,
        seconds=seconds,
    )
    assert problems == [], f"CHAOS_SEED={seed}"
    assert restarts > 0, "no kill of llm interrupted an answer"


async def _kill_amid(platform: Platform, wave: _Wave, target: str, source: random.Random) -> None:
    """Kill a process after a random number of words."""
    wanted = source.randint(1, AT_ONCE * WORDS // 2)
    await wait_until(lambda: wave.shown >= wanted, 60, f"{wanted} words")
    await kill(platform, target)
    await until_ready(platform, target)
