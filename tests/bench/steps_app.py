"""The app of W2: three trivial durable steps, as one `DurableWork` call and as three activities of a workflow."""

import uuid
from collections.abc import Generator
from typing import Any, Final

from dapr.ext.workflow.aio import DaprWorkflowClient
from fastapi import FastAPI, Request
from pydantic import BaseModel

from services.contracts.events import EventType
from services.kit.dapr.workflows import LocalWorkflows, WorkflowContext
from services.kit.eventlog import DurableWork, NewEvent, Segment, TerminalEvents
from services.kit.http.dependencies import get_dependency
from services.kit.manifest import App
from services.kit.references import ActivityRef, WorkflowRef
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
BY_ACTIVITIES = WorkflowRef("BenchByActivities", "workflows", Work)


APP: Final = App(id="workflows", purpose="three steps", number=13)


def by_activities(ctx: WorkflowContext, work: Work) -> Generator[Any, Any, Number]:
    """Three steps in three activities."""
    result = Number(value=0)
    for _ in range(STEPS):
        result = yield from ctx.call(ONE_STEP, work)
    return result


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
    await get_dependency(request.app, LocalWorkflows).start(BY_ACTIVITIES.name, name, {"id": name})
    await get_dependency(request.app, DaprWorkflowClient).wait_for_workflow_completion(
        name, fetch_payloads=False, timeout_in_seconds=60
    )
    return {"id": name}
