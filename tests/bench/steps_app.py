"""The app of W2: three trivial durable steps, as one `DurableWork` call and as activities of a workflow."""

import uuid
from collections.abc import Generator
from datetime import timedelta
from typing import Any, Final

from dapr.ext.workflow.aio import DaprWorkflowClient
from fastapi import FastAPI, Request
from pydantic import BaseModel

from services.contracts.events import EventType
from services.kit.dapr.workflows import LocalWorkflows, WorkflowContext
from services.kit.eventlog import DurableWork, NewEvent, Segment, TerminalEvents
from services.kit.http.dependencies import get_dependency
from services.kit.manifest import App
from services.kit.references import ActivityRef, EventRef, WorkflowRef
from services.kit.settings import PlatformSettings, load_settings
from services.platform import Platform, platform_app

STEPS = 3


class Work(BaseModel):
    """Names an execution."""

    id: str


class Number(BaseModel):
    """The input, and the result of each step: the last one plus 1."""

    value: int


ONE_STEP = ActivityRef("BenchStep", "workflows", Work, Number)
BY_ACTIVITIES = WorkflowRef("BenchByActivities", "workflows", Work, Number)
GO = EventRef("Go", Work)
BY_WAITS = WorkflowRef("BenchByWaits", "workflows", Work, Number, events=(GO,))


APP: Final = App(id="workflows", purpose="three steps", number=13)


def by_activities(ctx: WorkflowContext, work: Work) -> Generator[Any, Any, Number]:
    """Three steps in three activities."""
    result = Number(value=0)
    for _ in range(STEPS):
        result = yield from ctx.call(ONE_STEP, work)
    return result


def by_waits(ctx: WorkflowContext, work: Work) -> Generator[Any, Any, Number]:
    """Wait for an event, then run three activities at once."""
    yield from ctx.wait_for(GO, timedelta(minutes=1))
    done = yield from ctx.when_all([ctx.begin(ONE_STEP, work) for _ in range(STEPS)])
    return Number(value=len(done))


async def three_steps(segment: Segment, given: Number) -> Number:
    """Three steps, each checkpointed before the next begins."""
    result = given
    for number in range(STEPS):
        result = await segment.step(f"step-{number}", Number, lambda last=result: _add_one(last))
    return result


async def _add_one(last: Number) -> tuple[Number, list[NewEvent]]:
    return Number(value=last.value + 1), []


def create_app() -> FastAPI:
    app = platform_app(APP, load_settings(PlatformSettings), routers=[], compose=_compose)
    app.add_api_route("/three", _run_three, methods=["POST"])
    app.add_api_route("/activities", _run_activities, methods=["POST"])
    app.add_api_route("/waits", _run_waits, methods=["POST"])
    return app


async def _compose(platform: Platform) -> None:
    async def one_step(_: Work) -> Number:
        return Number(value=1)

    engine = await platform.open_engine()
    endings = TerminalEvents(EventType.RUN_COMPLETED, EventType.RUN_FAILED)
    platform.provide(
        DurableWork(engine, "bench", (Number, Number), three_steps, endings),
        LocalWorkflows(),
        DaprWorkflowClient(),
    )
    platform.workflow_host.add_workflow(BY_ACTIVITIES, by_activities)
    platform.workflow_host.add_workflow(BY_WAITS, by_waits)
    platform.workflow_host.add_activity(ONE_STEP, one_step)


async def _run_three(request: Request) -> dict[str, int]:
    """Returns when the third step is durable and the execution's stream is closed."""
    value = Number.model_validate_json(await request.body())
    result = await get_dependency(request.app, DurableWork).call(
        uuid.uuid4().hex, value, owner="bench"
    )
    return {"value": result.value}


async def _run_activities(request: Request) -> dict[str, str]:
    """Returns when the engine says that the workflow is complete."""
    name = uuid.uuid4().hex
    await get_dependency(request.app, LocalWorkflows).start(BY_ACTIVITIES, name, Work(id=name))
    await get_dependency(request.app, DaprWorkflowClient).wait_for_workflow_completion(
        name, fetch_payloads=False, timeout_in_seconds=60
    )
    return {"id": name}


async def _run_waits(request: Request) -> dict[str, str]:
    """Raises the event at once; returns when the engine says that the workflow is complete."""
    work = Work(id=uuid.uuid4().hex)
    workflows = get_dependency(request.app, LocalWorkflows)
    await workflows.start(BY_WAITS, work.id, work)
    await workflows.raise_event(BY_WAITS, work.id, GO, work, event_id="go")
    await get_dependency(request.app, DaprWorkflowClient).wait_for_workflow_completion(
        work.id, fetch_payloads=False, timeout_in_seconds=60
    )
    return {"id": work.id}
