"""Jobs on a real sidecar, scheduler and Postgres."""

import asyncio
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from services.cli.stack import Stack
from services.kit.dapr.deliveries import MAX_ATTEMPTS
from tests.component.jobs.app import TICK_VARIABLE
from tests.component.jobs.conftest import Works, a_plan
from tests.requirements import requirement
from tests.support.wait import wait_until

pytestmark = pytest.mark.timeout(150)

SECOND = timedelta(seconds=1)
REPLICA = "llm-2"
PAST = "2026-11-27T10:00:00Z"


@pytest.fixture
def replica(stack: Stack) -> Iterator[str]:
    """A second replica, stopped afterwards."""
    if REPLICA not in stack.names:
        stack.add_replica("llm", 2)
    else:
        stack.supervisor.start(f"{REPLICA}-daprd")
        stack.restart(REPLICA)
    yield REPLICA
    for name in (REPLICA, f"{REPLICA}-daprd"):
        stack.halt(name)


@requirement("kit:jobs:once")
async def test_a_cron_job_runs_once_per_due_time_in_one_of_the_replicas(
    works: Works, replica: str
) -> None:
    assert works.stack.is_ready(replica)

    async def ticked() -> bool:
        return len(await works.effects("tick")) >= 6

    await wait_until(ticked, 40, "six ticks", every=0.2)
    runs = [datetime.fromisoformat(row["run"]) for row in await works.effects("tick")]
    assert_due_once(runs)


@requirement("kit:jobs:once")
async def test_a_tick_that_is_delivered_again_has_one_effect(works: Works, replica: str) -> None:
    await works.database.fetch("UPDATE events.jobs SET last_run = NULL WHERE name = 'hourly'")
    answers = await asyncio.gather(
        *(works.post("/job/hourly", app=app) for app in ("llm", replica) * 3)
    )
    assert {status for status, _ in answers} <= {200, 503}
    assert 200 in {status for status, _ in answers}
    assert await works.post("/job/hourly") == (200, {})
    await works.wait_effects(1, "hourly")


@requirement("kit:jobs:one-shot")
async def test_a_scheduled_task_runs_once_at_its_time(works: Works) -> None:
    due = datetime.now(UTC) + 2 * SECOND
    plan = a_plan(1, due, uuid.uuid4().hex)
    assert [(await works.post("/schedule", plan))[0] for _ in range(3)] == [200] * 3
    await works.wait_effects(1)
    [effect] = await works.effects()
    assert effect["at"] >= due - SECOND
    status, _ = await works.post("/schedule", plan)  # repeated after it ran
    assert status == 200
    await works.schedule(2)
    await works.wait_effects(2)
    assert await works.tries(1) == [effect["pid"]]


@requirement("kit:jobs:one-shot")
async def test_another_schedule_of_a_key_is_refused_unless_it_replaces(works: Works) -> None:
    later, key = datetime.now(UTC) + 600 * SECOND, uuid.uuid4().hex
    assert (await works.post("/schedule", a_plan(3, later, key)))[0] == 200
    status, answer = await works.post("/schedule", a_plan(4, later, key))
    assert (status, answer["error"]["code"]) == (409, "ALREADY_EXISTS")
    soon = datetime.now(UTC)
    assert (await works.post("/schedule", a_plan(4, soon, key, replace=True)))[0] == 200
    await works.wait_effects(1)
    assert (await works.tries(3), len(await works.tries(4))) == ([], 1)


@requirement("kit:jobs:one-shot")
async def test_a_cancelled_schedule_does_not_run(works: Works) -> None:
    key = await works.schedule(5, seconds=3)
    for _ in range(2):
        assert await works.post("/cancel", {"key": key}) == (200, {})
    await works.schedule(6, seconds=4)
    await works.wait_effects(1)
    assert await works.tries(5) == []


@requirement("kit:jobs:one-shot")
@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"key": "a:b"}, "INVALID_ARGUMENT", "key"),
        ({"key": ""}, "INVALID_ARGUMENT", "key"),
        ({"key": "a/b"}, "INVALID_ARGUMENT", "key"),
        ({"task": {"number": 1, "mode": "x" * 16_384}}, "PAYLOAD_TOO_LARGE", "16384"),
    ],
)
async def test_a_bad_schedule_is_refused(
    works: Works, change: dict[str, object], code: str, field: str
) -> None:
    plan = a_plan(7, datetime.now(UTC), uuid.uuid4().hex) | change
    _, answer = await works.post("/schedule", plan)
    assert answer["error"]["code"] == code
    assert field in answer["error"]["message"]


@requirement("kit:jobs:once")
async def test_what_was_due_while_the_app_was_down_is_one_run(works: Works) -> None:
    await works.schedule(8, seconds=1)
    works.stack.halt("llm")
    due = "SELECT now() > $1::timestamptz"
    missed = datetime.now(UTC) + 7 * SECOND

    async def is_past() -> bool:
        return (await works.database.fetch_one(due, missed))[0]

    await wait_until(is_past, 20, "three ticks to be missed", every=0.2)
    before = len(await works.effects("tick"))
    works.stack.supervisor.start("llm")
    await works.wait_effects(1)

    async def ticked() -> bool:
        return len(await works.effects("tick")) >= before + 3

    await wait_until(ticked, 40, "ticks after the restart", every=0.2)
    runs = [datetime.fromisoformat(row["run"]) for row in await works.effects("tick")][before:]
    assert runs[0] >= missed - 2 * SECOND  # none for what was missed, but the newest
    assert_due_once(runs)


@requirement("kit:jobs:failures")
async def test_an_unavailable_run_is_repeated_until_it_succeeds(works: Works) -> None:
    await works.schedule(9, mode="unavailable")
    await works.wait_tries(9, 3)
    await works.mend(9)
    await works.wait_effects(1)


@requirement("kit:jobs:failures")
async def test_a_refused_run_is_given_up_at_once_and_a_bug_after_five_tries(works: Works) -> None:
    refused = await works.schedule(10, mode="refused")
    bug = await works.schedule(11, mode="bug")

    async def given_up(name: str, error: str) -> bool:
        row = await works.record_of(f"work:{name}")
        return row is not None and row["last_run"] is not None and row["error"] == error

    await wait_until(lambda: given_up(refused, "FAILED_PRECONDITION"), 30, "the refused run")
    assert len(await works.tries(10)) == 1
    await wait_until(lambda: given_up(bug, "ValueError"), 90, "the bug to be given up")
    assert len(await works.tries(11)) == MAX_ATTEMPTS
    await works.schedule(12)
    await works.wait_effects(1)
    assert (len(await works.tries(10)), len(await works.tries(11))) == (1, MAX_ATTEMPTS)


@requirement("kit:jobs:failures")
async def test_a_run_over_its_time_limit_is_ended_and_repeated(works: Works) -> None:
    name = f"slow:{uuid.uuid4().hex}"
    body = {"due": PAST, "payload": {"number": 13}}
    assert (await works.post(f"/job/{name}", body))[0] == 503
    record = await works.record_of(name)
    assert (record["error"], record["owner"], record["attempts"]) == ("TimeoutError", None, 1)
    await works.mend(13)
    assert await works.post(f"/job/{name}", body) == (200, {})
    assert len(await works.tries(13)) == 2


@requirement("kit:jobs:failures")
async def test_a_delivery_that_no_job_can_read_does_not_come_again(works: Works) -> None:
    assert await works.post("/job/work:k", {"due": "yesterday"}) == (200, {})
    assert await works.post("/job/work:k", {"due": PAST, "payload": {}}) == (200, {})


@requirement("kit:jobs:failures")
async def test_a_job_of_another_release_is_left_to_its_replicas_for_a_day(works: Works) -> None:
    soon = datetime.now(UTC).isoformat()
    assert (await works.post("/job/unborn:k", {"due": soon, "payload": {}}))[0] == 503
    assert await works.post("/job/unborn:k", {"due": "2020-01-01T00:00:00Z", "payload": {}}) == (
        200,
        {},
    )


@requirement("kit:jobs:callers")
async def test_only_the_scheduler_delivers_jobs(works: Works) -> None:
    status, answer = await works.post("/job/hourly", headers={"dapr-caller-app-id": "auth"})
    assert (status, answer["error"]["code"]) == (403, "PERMISSION_DENIED")
    status, answer = await works.post("/job/hourly", headers={"dapr-api-token": "wrong"})
    assert (status, answer["error"]["code"]) == (401, "UNAUTHENTICATED")


@requirement("kit:jobs:registration")
async def test_a_schedule_can_change_and_a_job_can_leave_the_manifest(works: Works) -> None:
    try:
        works.stack.restart("llm", env={TICK_VARIABLE: "@every 1s"})

        async def is_faster() -> bool:
            runs = [row["at"] for row in await works.effects("tick")][-3:]
            return len(runs) == 3 and runs[2] - runs[0] < timedelta(seconds=3)

        await wait_until(is_faster, 40, "ticks every second", every=0.2)
        works.stack.restart("llm", env={TICK_VARIABLE: ""})
        await wait_until(lambda: _has_no_tick(works), 30, "the job to be removed", every=0.2)
        after = len(await works.effects("tick"))
        await works.schedule(14, seconds=3)
        await works.wait_effects(1)
        assert len(await works.effects("tick")) == after
    finally:
        works.stack.restart("llm", env={TICK_VARIABLE: "*/2 * * * * *"})


@requirement("kit:jobs:registration")
async def test_an_app_starts_without_the_scheduler_and_registers_its_jobs_later(
    works: Works,
) -> None:
    works.stack.restart("llm", env={TICK_VARIABLE: ""})
    await wait_until(lambda: _has_no_tick(works), 30, "the job to be removed", every=0.2)
    works.stack.halt("scheduler")
    try:
        works.stack.restart("llm", env={TICK_VARIABLE: "*/2 * * * * *"})
        status, answer = await works.post("/schedule", a_plan(15, datetime.now(UTC), "k15"))
        assert (status, answer["error"]["code"]) == (503, "UNAVAILABLE")
    finally:
        works.stack.supervisor.start("scheduler")
    before = len(await works.effects("tick"))

    async def ticked() -> bool:
        return len(await works.effects("tick")) > before

    await wait_until(ticked, 60, "a tick of the job that was registered late", every=0.2)


@requirement("kit:jobs:one-shot")
async def test_the_jobs_of_the_readme_run(works: Works) -> None:
    assert await works.post("/trial", {"account": "ada"}) == (200, {})
    await works.database.fetch("UPDATE events.jobs SET last_run = NULL WHERE name = 'report'")
    for _ in range(2):
        assert await works.post("/job/report") == (200, {})
    rows = await works.database.fetch(
        "SELECT to_char(day AT TIME ZONE 'UTC', 'HH24:MI') FROM reports"
    )
    assert [row[0] for row in rows] == ["03:15"]

    async def ended() -> list[str]:
        return [row[0] for row in await works.database.fetch("SELECT account FROM ended_trials")]

    assert await wait_until(ended, 30, "the trial to end") == ["ada"]


async def _has_no_tick(works: Works) -> bool:
    return await works.record_of("tick") is None


def assert_due_once(runs: list[datetime]) -> None:
    """Each run of `tick` is for a due time of its own; on a slow machine one may stand for several."""
    assert runs == sorted(set(runs))
    assert all((run.second % 2, run.microsecond) == (0, 0) for run in runs)
