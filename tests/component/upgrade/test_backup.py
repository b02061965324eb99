"""A backup taken by the documented commands while turns run, restored into an empty folder after everything was killed."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.cli.stack import postgres
from services.contracts.auth.accounts import ACCOUNT_SERVICE
from tests.chaos.turns import ObservedTurn, script, script_held_once
from tests.component.upgrade.conftest import OFFSET
from tests.component.upgrade.kept import HISTORY, QUEUE, QUEUED, WAITING_ROWS, until_stored
from tests.requirements import requirement
from tests.support.checkers import check_seqs
from tests.support.platform import SHORT_RETENTION, Client, Platform
from tests.support.wait import wait_until

README = Path(__file__).parents[3] / "services" / "README.md"
BACKUP = "Back up and restore"
"""Heading of the commands, which are two blocks: one that backs up, one that restores."""


def commands() -> tuple[str, str]:
    """The documented commands, without the last one, which starts the platform in the foreground."""
    _, found, rest = README.read_text().partition(f"\n## {BACKUP}\n")
    assert found
    back_up, restore = re.findall(r"^```sh\n(.*?)^```$", rest, re.MULTILINE | re.DOTALL)[:2]
    *steps, last = restore.strip().splitlines()
    assert last == "uv run yocaso up"
    return back_up, "\n".join(steps)


def run(script: str, folder: Path) -> None:
    programs = [str(Path(sys.executable).parent), postgres.client_env(0, "")["PATH"]]
    done = subprocess.run(
        ["sh", "-euc", script],
        cwd=folder,
        env={**os.environ, "PATH": os.pathsep.join(programs)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass
class Diary:
    """Appends messages to one conversation without a pause; knows what was acknowledged."""

    client: Client
    conversation: str
    acknowledged: list[str] = field(default_factory=list[str])
    stopped: bool = False

    async def write(self) -> None:
        while not self.stopped:
            text = f"entry {len(self.acknowledged)}"
            key = {"idempotency-key": uuid.uuid4().hex}
            body = {"conversationId": self.conversation, "text": text}
            answer = await self.client.call("AppendMessage", key, **body)
            assert answer.status == 200, answer
            self.acknowledged.append(text)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, for supervisord's socket."""
    made = Path(tempfile.mkdtemp(prefix="yocaso-backup-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)  # Postgres's children may still be ending


def kill_all(platform: Platform) -> None:
    """Kill every process, as a power failure does."""
    for pid in platform.stack.state.leftovers().values():
        os.kill(pid, signal.SIGKILL)
    platform.stop()


@dataclass(frozen=True, slots=True)
class Before:
    """What clients knew when the backup began, and the gate of the turns that wait."""

    acknowledged: list[str]
    diary: str
    turns: list[ObservedTurn]
    followed: str
    gate: str
    deletion_id: str


async def work_and_back_up(platform: Platform, back_up: Callable[[], None]) -> Before:
    """Back up while messages are appended, turns stream, wait, are queued and are retried, and an account is erased."""
    gate = uuid.uuid4().hex
    async with platform.client("alice") as alice, platform.client("carol") as carol:
        diary = Diary(alice, await alice.conversation(title="diary"))
        writing = asyncio.create_task(diary.write())
        scripts = [script_held_once(gate)] * 3 + [script(delay_ms=150)] * 3
        turns = [await ObservedTurn.begin(alice, each) for each in scripts]
        await asyncio.gather(*(turn.shows(2) for turn in turns))
        busy: dict[str, Any] = {"status": 429, "retry_after": "2"}
        retried = await ObservedTurn.begin(alice, [busy, *script()])
        await wait_until(lambda: retried.fold.events, 20, "the turn that is retried")
        url = platform.stack.database_url()
        await until_stored(url, HISTORY, retried.ref["turnId"], WAITING_ROWS)
        turns.append(retried)
        followed = turns[0].conversation
        body = {"conversationId": followed, "text": QUEUED, "admission": "ENQUEUE"}
        queued = asyncio.create_task(alice.call("SendMessage", **body))
        await until_stored(url, QUEUE, followed)
        deletion = await carol.must_of(ACCOUNT_SERVICE, "DeleteAccount")
        await wait_until(lambda: len(diary.acknowledged) > 20, 20, "entries of the diary")
        acknowledged = list(diary.acknowledged)
        await asyncio.to_thread(back_up)
        after = len(diary.acknowledged) + 5
        await wait_until(lambda: len(diary.acknowledged) > after, 20, "entries after the backup")
        diary.stopped = True
        await writing
        for turn in turns:
            turn.abandon()
        queued.cancel()
    return Before(acknowledged, diary.conversation, turns, followed, gate, deletion["deletionId"])


async def check_restored(platform: Platform, before: Before) -> None:
    """Nothing acknowledged before the backup is missing or doubled, and all work ends."""
    await platform.release_gate(before.gate)
    async with platform.client("alice") as alice:
        entries = await all_messages(alice, before.diary)
        texts = [each["text"] for each in entries]
        assert texts[: len(before.acknowledged)] == before.acknowledged
        assert texts == [f"entry {number}" for number in range(len(texts))], "a gap or a repeat"
        assert check_seqs([int(each["seq"]) for each in entries]) == []
        for turn in before.turns:
            await check_turn(alice, turn, followed=turn.conversation == before.followed)
        sent = await alice.must("SendMessage", conversationId=before.diary, text="and now?")
        assert sent["turn"]["status"] == "COMPLETED"

        async def is_erased() -> bool:
            found = await alice.must_of(
                ACCOUNT_SERVICE, "GetAccountDeletion", deletionId=before.deletion_id
            )
            return found["status"] == "COMPLETED"

        await wait_until(is_erased, 60, "the account deletion to complete", every=0.25)


async def check_turn(client: Client, turn: ObservedTurn, *, followed: bool) -> None:
    """It completed with one question and one answer, which are what its stream shows."""

    async def ended() -> dict[str, Any] | None:
        found = await client.must("GetTurn", **turn.ref)
        return found if found["status"] not in ("QUEUED", "RUNNING") else None

    found = await wait_until(ended, 60, f"the end of {turn.ref}", every=0.1)
    assert found["status"] == "COMPLETED", found
    fold = await client.reader("StreamEvents", turn.ref).run()
    said = [("USER", turn.text), ("ASSISTANT", fold.text)]
    if followed:
        said += [("USER", QUEUED), ("ASSISTANT", f"You said: {QUEUED}")]

    async def is_said() -> bool:
        listed = await all_messages(client, turn.conversation)
        return [(each["role"], each["text"]) for each in listed] == said

    await wait_until(is_said, 30, f"each message of {turn.conversation} once")


async def all_messages(client: Client, conversation: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page: dict[str, Any] = {"nextCursor": None}
    while "nextCursor" in page:
        cursor = {"cursor": page["nextCursor"]} if page["nextCursor"] else {}
        body = {"conversationId": conversation, "limit": 100, **cursor}
        page = await client.must("ListMessages", **body)
        found += page["messages"]
    return found


@pytest.mark.timeout(180)
@requirement("upgrade:backup")
async def test_a_backup_amid_turns_restores_what_was_acknowledged_once(folder: Path) -> None:
    back_up, restore = commands()
    platform = Platform(folder / ".yocaso", OFFSET, env=SHORT_RETENTION).start()
    try:
        before = await work_and_back_up(platform, lambda: run(back_up, folder))
    finally:
        kill_all(platform)
    (folder / ".yocaso").rename(folder / "lost")
    run(restore, folder)
    platform = Platform(folder / ".yocaso", OFFSET, env=SHORT_RETENTION).start()
    try:
        await check_restored(platform, before)
    finally:
        platform.stop()
