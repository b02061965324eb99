"""Workflows on a real sidecar: every block by RPC, and SIGKILL of app and sidecar at every kind of wait."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from services.cli.stack import Stack
from services.contracts.workflows.service import RAISE_EVENT, RaiseEventRequest
from services.kit.dapr.client import RpcClient
from services.kit.errors import ErrorCode, RpcError
from services.kit.references import WorkflowStatus
from services.kit.storage.db import Database
from services.platform import WorkflowClient
from tests.component.kit.workflows.contract import ANSWER, CALLER, FIXED, HOST, PLAY, Plan, Text
from tests.component.kit.workflows.guide import EXAMPLE
from tests.requirements import requirement
from tests.support.port_offsets import offset_of
from tests.support.wait import wait_until

OFFSET: Final = offset_of("workflows")
TEMPLATE: Final = Path(__file__).parent / "workflows" / "dapr.yaml"
SIDECAR: Final = f"{HOST}-daprd"
ENDED: Final = ("COMPLETED", "FAILED", "TERMINATED")
SETTLED: Final = (ErrorCode.NOT_FOUND, ErrorCode.FAILED_PRECONDITION)
"""Before the start, and after an end by an earlier try whose answer was lost."""
pytestmark = pytest.mark.timeout(150)


class Plays:
    """Client of the test app, and reader of its effects."""

    def __init__(
        self, stack: Stack, client: RpcClient, session: aiohttp.ClientSession, database: Database
    ) -> None:
        self.stack = stack
        self.client = client
        self.workflows = WorkflowClient(client)
        self._session = session
        self._database = database

    async def start(self, kind: str, **plan: Any) -> str:
        """Start a play under a fresh id, repeating until it is accepted."""
        instance_id = f"{kind.replace(' ', '-')}-{uuid.uuid4().hex[:12]}"
        await self.until_accepted(
            lambda: self.workflows.start(PLAY, instance_id, Plan(kind=kind, **plan))
        )
        return instance_id

    async def answer(self, instance_id: str, text: str) -> None:
        """Raise the event, repeating with the same id until it is accepted."""
        await self.until_accepted(
            lambda: self.workflows.raise_event(
                PLAY, instance_id, ANSWER, Text(text=text), event_id=text
            )
        )

    async def until_accepted(self, call: Any) -> None:
        async def accepted() -> bool:
            try:
                await call()
            except RpcError as error:
                if not error.retryable and error.code not in SETTLED:
                    raise
                return error.code is ErrorCode.FAILED_PRECONDITION
            return True

        await wait_until(accepted, 60, "the call to be accepted", every=0.2)

    async def read(self, instance_id: str) -> dict[str, Any]:
        """What daprd says; empty while it cannot say."""
        url = f"{self.stack.url(HOST)}/instances/{instance_id}"
        headers = {"dapr-api-token": self.stack.app_token(HOST)}
        try:
            async with self._session.get(url, headers=headers) as reply:
                return await reply.json() if reply.status == 200 else {}
        except (aiohttp.ClientError, TimeoutError):
            return {}

    async def ended(self, instance_id: str, seconds: float = 60) -> dict[str, Any]:
        """The end of an instance."""

        async def end() -> dict[str, Any] | None:
            found = await self.read(instance_id)
            return found if found.get("status") in ENDED else None

        return await wait_until(end, seconds, f"the end of {instance_id}", every=0.05)

    async def texts(self, instance_id: str) -> list[str]:
        """The result of an instance that completes."""
        found = await self.ended(instance_id)
        assert found["status"] == "COMPLETED", found
        return json.loads(found["output"])["texts"]

    async def running(self, *instance_ids: str) -> None:
        """Wait until these exist and wait for something."""

        async def all_run() -> bool:
            found = [await self.read(each) for each in instance_ids]
            return all(each.get("status") == "RUNNING" for each in found)

        await wait_until(all_run, 60, f"{instance_ids} to run", every=0.05)

    async def marks(self, instance_id: str) -> dict[str, int]:
        """Calls of the steps of an instance and its children."""
        rows = await self._database.fetch(
            "SELECT step, calls FROM marks WHERE instance_id = $1 OR instance_id LIKE $1 || ':%'",
            instance_id,
        )
        return {row[0]: row[1] for row in rows}

    async def open_gate(self, instance_id: str) -> None:
        await self._database.fetch("INSERT INTO gates VALUES ($1)", instance_id)

    async def begun(self, instance_id: str) -> None:
        """Wait until its long activity has begun."""

        async def has_begun() -> bool:
            statement = "SELECT 1 FROM begun WHERE name = $1"
            return bool(await self._database.fetch(statement, instance_id))

        await wait_until(has_begun, 60, "the activity to begin", every=0.05)

    async def kill(self, *names: str) -> None:
        """SIGKILL processes at once; their supervisor restarts them."""
        pids = {name: self.stack.kill(name) for name in names}
        for name, pid in pids.items():
            await asyncio.to_thread(self.stack.wait_exited, name, pid)

    async def refused(self, call: Any, code: ErrorCode) -> str:
        with pytest.raises(RpcError) as refused:
            await call
        assert refused.value.code is code, refused.value
        return refused.value.message


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The app with its sidecar and servers."""
    stack = Stack(tmp_path_factory.mktemp("workflows"), port_offset=OFFSET, dapr_yaml=TEMPLATE)
    stack.start(seconds=90)
    yield stack
    stack.stop()


@pytest.fixture
async def plays(host: Stack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plays]:
    monkeypatch.setenv("DAPR_HTTP_PORT", host.url(f"{CALLER}-daprd").rpartition(":")[2])
    monkeypatch.setenv("DAPR_API_TOKEN", host.api_token(CALLER))
    database, client = Database(host.database_url()), RpcClient()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        opened = Plays(host, client, session, database)
        try:
            await opened.texts(await opened.start("timer", seconds=0))
            yield opened
        finally:
            await client.close()
            await database.close()


@requirement("kit:workflows:events")
async def test_an_event_ends_the_wait_and_its_limit_does(plays: Plays) -> None:
    answered, late = await plays.start("event"), await plays.start("event", seconds=1)
    await plays.answer(answered, "yes")
    assert await plays.texts(answered) == ["yes"]
    assert await plays.texts(late) == ["timed out"]
    assert await plays.marks(answered) == {"yes": 1}


@requirement("kit:workflows:events")
async def test_a_bad_event_enters_no_history(plays: Plays) -> None:
    waiting = await plays.start("event")
    await plays.running(waiting)
    raising = plays.workflows.raise_event
    unknown = raising(PLAY, "nobody", ANSWER, Text(text="x"), event_id="1")
    await plays.refused(unknown, ErrorCode.NOT_FOUND)
    for event, value in (("Answer", {"text": 5}), ("Answer", {}), ("Else", {"text": "x"})):
        request = RaiseEventRequest(
            workflow=PLAY.name, instance_id=waiting, event=event, event_id="1", value=value
        )
        message = await plays.refused(
            plays.client.call(RAISE_EVENT, request), ErrorCode.INVALID_ARGUMENT
        )
        assert message.startswith("event:" if event == "Else" else "text:")
    await plays.answer(waiting, "good")
    assert await plays.texts(waiting) == ["good"]
    ended = raising(PLAY, waiting, ANSWER, Text(text="x"), event_id="2")
    await plays.refused(ended, ErrorCode.FAILED_PRECONDITION)


@requirement("kit:workflows:when")
async def test_when_any_loses_no_event_and_when_all_collects_failures(plays: Plays) -> None:
    race = await plays.start("race", seconds=1, wanted=3)
    together = await plays.start("all")
    await plays.running(race, together, f"{together}:ask")
    await plays.answer(race, "a")
    await plays.answer(race, "a")
    await plays.answer(race, "b")
    assert await plays.texts(race) == ["a", "b", "expired"]
    await plays.open_gate(together)
    await plays.answer(f"{together}:ask", "yes")
    expected = ["gate", "PAYLOAD_TOO_LARGE", "yes", "time", "quick"]
    assert await plays.texts(together) == expected


@requirement("kit:workflows:continue")
async def test_continue_as_new_loses_no_event_and_hears_no_old_timer(plays: Plays) -> None:
    collect = await plays.start("collect", wanted=12)
    stale = await plays.start("stale timer", seconds=4)
    await plays.running(collect)
    texts = [f"e{number}" for number in range(12)]
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(plays.answer(collect, text) for text in (*texts, *texts[:5])))
    assert sorted(await plays.texts(collect)) == sorted(texts)
    assert set((await plays.marks(collect)).values()) == {1}
    assert await plays.texts(stale) == ["slept"]
    assert asyncio.get_running_loop().time() - began > 3


@requirement("kit:workflows:start")
async def test_a_repeated_start_changes_nothing_also_after_the_end(plays: Plays) -> None:
    instance_id = await plays.start("timer", seconds=0)
    assert await plays.texts(instance_id) == ["slept"]
    await plays.workflows.start(PLAY, instance_id, Plan(kind="event"))
    assert await plays.workflows.status(PLAY, instance_id) is WorkflowStatus.COMPLETED
    assert await plays.marks(instance_id) == {"slept": 1}
    other = plays.workflows.start(FIXED, instance_id, Plan(kind="fixed"))
    await plays.refused(other, ErrorCode.FAILED_PRECONDITION)
    failed = await plays.start("no such kind")
    assert (await plays.ended(failed))["status"] == "FAILED"
    await plays.workflows.start(PLAY, failed, Plan(kind="timer", seconds=0))
    assert await plays.texts(failed) == ["slept"]


@requirement("kit:workflows:events", "kit:workflows:when")
async def test_the_example_of_the_guide_runs(plays: Plays) -> None:
    draft = EXAMPLE.Draft(draft_id=f"draft-{uuid.uuid4().hex}")
    await EXAMPLE.approve(plays.workflows, draft, "ada")
    found = await plays.ended(draft.draft_id)
    assert json.loads(found["output"]) == {"granted": True, "by": "ada"}


@requirement("kit:workflows:payload")
async def test_what_is_too_large_is_named(plays: Plays) -> None:
    found = await plays.ended(await plays.start("too large"))
    assert found["status"] == "FAILED"
    assert "PAYLOAD_TOO_LARGE: the result of Play has 20" in found["failure"]
    large = plays.workflows.start(PLAY, "large", Plan(kind="x" * 20_000))
    assert "the input of Play" in await plays.refused(large, ErrorCode.PAYLOAD_TOO_LARGE)


@requirement("kit:workflows:cancel")
async def test_a_cancel_reaches_waits_children_and_activities(plays: Plays) -> None:
    kinds = ("timer", "event", "child", "all", "race", "watched")
    ids = {kind: await plays.start(kind, wanted=9) for kind in kinds}
    children = [f"{ids['child']}:ask", f"{ids['all']}:ask"]
    await plays.running(*ids.values(), *children)
    await plays.begun(ids["watched"])
    for instance_id in ids.values():
        await plays.workflows.cancel(PLAY, instance_id)
        await plays.workflows.cancel(PLAY, instance_id)
    assert await plays.texts(ids.pop("watched")) == ["watched"]
    for instance_id in (*ids.values(), *children):
        found = await plays.ended(instance_id, 10)
        assert found["status"] == "FAILED", found
        status = await plays.workflows.status(PLAY, instance_id)
        assert status is WorkflowStatus.CANCELLED
        await plays.workflows.cancel(PLAY, instance_id)
    await plays.workflows.start(PLAY, ids["timer"], Plan(kind="timer", seconds=0))
    assert await plays.workflows.status(PLAY, ids["timer"]) is WorkflowStatus.CANCELLED


@requirement("kit:workflows:cancel")
async def test_an_instance_can_be_read_while_it_ends(plays: Plays) -> None:
    """Its rows change under daprd's reads; about one cancel in a hundred met that."""
    ids = [await plays.start(kind, wanted=9) for kind in ("event", "all", "race") * 8]
    await plays.running(*ids)

    async def cancel(instance_id: str) -> None:
        while await plays.workflows.status(PLAY, instance_id) is not WorkflowStatus.CANCELLED:
            await plays.workflows.cancel(PLAY, instance_id)

    await asyncio.gather(*map(cancel, ids))


@requirement("kit:workflows:cancel")
async def test_a_cancel_is_enforced_after_the_grace(plays: Plays) -> None:
    stubborn = await plays.start("stubborn")
    await plays.running(stubborn, f"{stubborn}:ask")
    await plays.workflows.cancel(PLAY, stubborn)
    assert "grace" in (await plays.ended(stubborn, 20))["failure"]
    fixed = f"fixed-{uuid.uuid4().hex}"
    await plays.workflows.start(FIXED, fixed, Plan(kind="fixed"))
    cancel = plays.workflows.cancel(FIXED, fixed)
    await plays.refused(cancel, ErrorCode.FAILED_PRECONDITION)
    await plays.refused(plays.workflows.cancel(PLAY, "nobody"), ErrorCode.NOT_FOUND)


@requirement("kit:workflows:children")
async def test_a_purge_takes_the_history_of_children(plays: Plays) -> None:
    parent = await plays.start("child")
    await plays.running(f"{parent}:ask")
    await plays.answer(f"{parent}:ask", "yes")
    assert await plays.texts(parent) == ["child said yes"]
    for _ in range(2):
        await plays.workflows.purge([parent, "nobody"])
    for instance_id in (parent, f"{parent}:ask"):
        assert (await plays.read(instance_id))["status"] is None


@requirement("chaos:W4", "kit:workflows:events", "kit:workflows:children")
@pytest.mark.parametrize("victims", [(HOST,), (SIDECAR,), (HOST, SIDECAR)], ids="+".join)
async def test_every_wait_survives_a_kill(plays: Plays, victims: tuple[str, ...]) -> None:
    kinds = ("event", "child", "all")
    ids = {kind: await plays.start(kind) for kind in kinds}
    slept = await plays.start("timer", seconds=3)
    collect = await plays.start("collect", wanted=3)
    cancelled = await plays.start("child")
    children = [f"{ids['child']}:ask", f"{ids['all']}:ask", f"{cancelled}:ask"]
    await plays.running(*ids.values(), slept, collect, *children)
    await plays.begun(ids["all"])
    await plays.answer(collect, "one")
    await wait_until(lambda: plays.marks(collect), 30, "the first run of collect")
    await plays.workflows.cancel(PLAY, cancelled)

    await plays.kill(*victims)

    await plays.answer(collect, "two")
    await plays.answer(collect, "one")
    await plays.answer(collect, "three")
    await plays.answer(ids["event"], "yes")
    for child in children[:2]:
        await plays.answer(child, "yes")
    await plays.open_gate(ids["all"])
    assert await plays.texts(ids["event"]) == ["yes"]
    assert await plays.texts(ids["child"]) == ["child said yes"]
    assert await plays.texts(ids["all"]) == ["gate", "PAYLOAD_TOO_LARGE", "yes", "time", "quick"]
    assert await plays.texts(slept) == ["slept"]
    assert await plays.texts(collect) == ["one", "two", "three"]
    assert set(await plays.marks(collect)) == {"one", "two", "three"}
    for instance_id in (cancelled, children[2]):
        assert (await plays.ended(instance_id))["status"] == "FAILED"
        assert await plays.workflows.status(PLAY, instance_id) is WorkflowStatus.CANCELLED
