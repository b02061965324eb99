"""Calls made while a fault lasts: every answer is checked, and every outcome becomes known."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

import aiohttp

from services.kit.contract import TIMEOUT_SECONDS
from tests.support.checkers import check_append_log, check_seqs
from tests.support.history import History
from tests.support.platform import Answer, Client
from tests.support.retries import RECOVERY_SECONDS, RETRYABLE_STATUSES, until_ok
from tests.support.wait import wait_until

ANSWER_SECONDS: Final = TIMEOUT_SECONDS + 3
"""Seconds after which a call counts as hung: the method's time limit at the edge, and some for a busy machine."""
LONGEST_SECONDS: Final = 150
"""Bounds the repeats of a call over a whole fault; the recovery after it has a limit of its own."""
WRITERS: Final = 4
PAUSE: Final = 0.1
STEADY: Final = 20
"""Appends that succeed one after the other once the fault has ended."""


@dataclass(frozen=True, slots=True)
class Call:
    """An attempt of a call; monotonic seconds. `status` is 0 if the connection failed."""

    method: str
    began: float
    ended: float
    status: int


@dataclass
class Load:
    """Keyed appends and reads of one user. An append is repeated with its key until it is acknowledged."""

    client: Client
    conversations: list[str]
    history: History = field(default_factory=History)
    calls: list[Call] = field(default_factory=list[Call])
    problems: list[str] = field(default_factory=list[str])
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    @asynccontextmanager
    async def running(cls, client: Client, writers: int = WRITERS) -> AsyncIterator[Self]:
        """A load during the block; afterwards every append that was begun is acknowledged."""
        made = [await until_ok(client, "CreateConversation") for _ in range(writers)]
        load = cls(client, [each["conversationId"] for each in made])
        works = [load._append(each) for each in load.conversations]
        tasks = [asyncio.create_task(work) for work in (*works, load._read())]
        try:
            yield load
            load._stopping.set()
            async with asyncio.timeout(RECOVERY_SECONDS):
                await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def succeeded(self, method: str, since: float, until: float) -> list[Call]:
        """Successful calls that began and ended within a time."""
        within = (each for each in self.calls if each.began >= since and each.ended <= until)
        return [each for each in within if each.method == method and each.status == 200]

    async def find_problems(self) -> list[str]:
        """Hung calls, answers that are not retryable errors, and lost, doubled or misplaced appends."""
        found = list(self.problems)
        for each in self.conversations:
            messages = await self._messages(each)
            appends = [one for one in self.history.operations("append") if one.key == each]
            found += check_append_log([one["text"] for one in messages], appends)
            found += check_seqs([int(one["seq"]) for one in messages])
        return found

    async def stay_steady(self) -> None:
        """`STEADY` appends to another conversation succeed in a row."""
        conversation = await self.client.conversation()
        for _ in range(STEADY):
            await self.client.must(
                "AppendMessage", conversationId=conversation, text=uuid.uuid4().hex
            )

    async def _append(self, conversation: str) -> None:
        while not self._stopping.is_set():
            text, key = uuid.uuid4().hex, {"idempotency-key": uuid.uuid4().hex}
            body = {"conversationId": conversation, "text": text}
            async with self.history.operation(
                self.client.token[-8:], "append", conversation, text
            ) as operation:
                await self._until_succeeded("AppendMessage", key, body)
                operation.ok()
            await asyncio.sleep(PAUSE)

    async def _until_succeeded(
        self, method: str, headers: dict[str, str], body: dict[str, Any]
    ) -> None:
        await wait_until(
            lambda: self._succeeds(method, headers, body), LONGEST_SECONDS, method, every=PAUSE
        )

    async def _read(self) -> None:
        while not self._stopping.is_set():
            body = {"conversationId": self.conversations[0], "limit": 1}
            await self._succeeds("ListMessages", {}, body)
            await asyncio.sleep(PAUSE)

    async def _succeeds(self, method: str, headers: dict[str, str], body: dict[str, Any]) -> bool:
        """One attempt; records its time and what is wrong with its answer."""
        began = time.monotonic()
        answer: Answer | None = None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self.client.call(method, headers, **body)
        except TimeoutError:
            self.problems.append(f"{method} did not answer within {ANSWER_SECONDS:g} s")
        except (aiohttp.ClientError, OSError):
            pass
        except ValueError as error:
            self.problems.append(f"{method} answered no JSON: {error}")
        status = answer.status if answer else 0
        self.calls.append(Call(method, began, time.monotonic(), status))
        if answer and status != 200 and not _is_retryable(answer):
            self.problems.append(f"{method}: {answer.status} {answer.body}")
        return status == 200

    async def _messages(self, conversation: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        cursor: dict[str, Any] = {}
        while True:
            page = await until_ok(
                self.client, "ListMessages", conversationId=conversation, limit=100, **cursor
            )
            rows += page["messages"]
            if not page.get("nextCursor"):
                return rows
            cursor = {"cursor": page["nextCursor"]}


def _is_retryable(answer: Answer) -> bool:
    """Whether an answer is an RpcError that invites a retry."""
    error = answer.body.get("error", {}) if isinstance(answer.body, dict) else {}
    return answer.status in RETRYABLE_STATUSES and error.get("isTerminal") is False
