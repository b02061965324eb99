"""An app for W2: three trivial durable steps, as one segment and as three activities."""

import asyncio
import uuid
from collections.abc import Generator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

from dapr.ext.workflow.aio import DaprWorkflowClient
from fastapi import FastAPI, Request
from pydantic import BaseModel

from services.kit.app import create_service
from services.kit.db import Database
from services.kit.eventlog import EventLog, NewEvent, Segment, migrate_event_log, run_segment
from services.kit.settings import PlatformSettings, load_settings
from services.kit.signals import Signals
from services.kit.workflows import (
    ActivityRef,
    LocalWorkflows,
    WorkflowContext,
    WorkflowHost,
    WorkflowRef,
)


class Work(BaseModel):
    """Names an execution."""

    id: str


class Step(BaseModel):
    """A trivial result."""

    value: int


SEGMENT = ActivityRef("BenchSegment", "workflows", Work, Step)
ONE_STEP = ActivityRef("BenchStep", "workflows", Work, Step)
BY_SEGMENT = WorkflowRef("BenchBySegment", "workflows", Work)
BY_ACTIVITIES = WorkflowRef("BenchByActivities", "workflows", Work)
DONE = "done"


def by_segment(ctx: WorkflowContext, work: Work) -> Generator[Any, Any, Step]:
    """Three steps in one activity."""
    return (yield from ctx.call(SEGMENT, work))


def by_activities(ctx: WorkflowContext, work: Work) -> Generator[Any, Any, Step]:
    """Three steps in three activities."""
    result = Step(value=0)
    for _ in range(3):
        result = yield from ctx.call(ONE_STEP, work)
    return result


def create_app() -> FastAPI:
    """The app."""
    settings = load_settings(PlatformSettings)

    async def lifespan(app: FastAPI, stack: AsyncExitStack) -> None:
        database = Database(settings.database_url.get_secret_value())
        stack.push_async_callback(database.close)
        await migrate_event_log(database)
        signals = Signals(settings.valkey_url.get_secret_value())
        await signals.start()
        stack.push_async_callback(signals.close)
        await _host(app, stack, EventLog(database, signals), signals)

    app = create_service("workflows", settings, routers=[], lifespan=lifespan, document=dict)
    app.add_api_route("/segment", _run_segment, methods=["POST"])
    app.add_api_route("/activities", _run_activities, methods=["POST"])
    return app


async def _host(app: FastAPI, stack: AsyncExitStack, events: EventLog, signals: Signals) -> None:
    ended: dict[str, asyncio.Event] = {}

    async def segment(work: Work) -> Step:
        async def steps(segment: Segment) -> Step:
            result = Step(value=0)
            for number in range(3):
                result = await segment.step(f"step-{number}", Step, lambda n=number: _trivial(n))
            await segment.finish(DONE, {})
            return result

        result = await run_segment(events, signals, work.id, steps)
        ended[work.id].set()
        return result or Step(value=0)

    async def one_step(_: Work) -> Step:
        return Step(value=1)

    host = WorkflowHost()
    host.add_workflow(BY_SEGMENT, by_segment)
    host.add_workflow(BY_ACTIVITIES, by_activities)
    host.add_activity(SEGMENT, segment)
    host.add_activity(ONE_STEP, one_step)
    await host.start()
    stack.push_async_callback(host.stop, timedelta(seconds=5))
    app.state.events, app.state.ended, app.state.workflows = events, ended, LocalWorkflows()
    app.state.client = DaprWorkflowClient()


async def _trivial(number: int) -> tuple[Step, list[NewEvent]]:
    return Step(value=number), []


async def _run_segment(request: Request) -> dict[str, str]:
    """Returns when the third step is durable and the execution's stream is closed."""
    state, name = request.app.state, uuid.uuid4().hex
    state.ended[name] = asyncio.Event()
    await state.events.open(name, kind="bench", owner="bench", subject=name)
    await state.workflows.start(BY_SEGMENT.name, name, {"id": name})
    await state.ended[name].wait()
    del state.ended[name]
    return {"id": name}


async def _run_activities(request: Request) -> dict[str, str]:
    """Returns when the engine says that the workflow is complete."""
    name = uuid.uuid4().hex
    await request.app.state.workflows.start(BY_ACTIVITIES.name, name, {"id": name})
    await request.app.state.client.wait_for_workflow_completion(
        name, fetch_payloads=False, timeout_in_seconds=60
    )
    return {"id": name}
