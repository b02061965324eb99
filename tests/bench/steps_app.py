"""An app for W2: three trivial durable steps, as one call of `DurableWork` and as three activities of a workflow."""

import uuid
from collections.abc import Generator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

from dapr.ext.workflow.aio import DaprWorkflowClient
from fastapi import FastAPI, Request
from pydantic import BaseModel

from services.contracts.events import EventType
from services.kit.dapr.workflows import (
    ActivityRef,
    LocalWorkflows,
    WorkflowContext,
    WorkflowHost,
    WorkflowRef,
)
from services.kit.eventlog import (
    DurableWork,
    Endings,
    Engine,
    EventLog,
    HostLease,
    NewEvent,
    Segment,
    migrate_event_log,
)
from services.kit.http.app import create_service
from services.kit.settings import PlatformSettings, load_settings
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import Signals

STEPS = 3


class Work(BaseModel):
    """Names an execution."""

    id: str


class Number(BaseModel):
    """The input, and each step's result: one more than the last."""

    value: int


ONE_STEP = ActivityRef("BenchStep", "workflows", Work, Number)
BY_ACTIVITIES = WorkflowRef("BenchByActivities", "workflows", Work)


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
    """The app."""
    settings = load_settings(PlatformSettings)

    async def lifespan(app: FastAPI, stack: AsyncExitStack) -> None:
        url = settings.database_url.get_secret_value()
        database, lease = Database(url), HostLease(url)
        stack.push_async_callback(database.close)
        await migrate_event_log(database)
        signals = Signals(settings.valkey_url.get_secret_value())
        await signals.start()
        stack.push_async_callback(signals.close)
        await lease.start()
        stack.push_async_callback(lease.close)
        log = EventLog(database, signals, lease.host_id)
        engine = Engine(database, log, signals, lease)
        endings = Endings(EventType.RUN_COMPLETED, EventType.RUN_FAILED)
        app.state.three = DurableWork(engine, "bench", (Number, Number), three_steps, endings)
        await engine.start()
        stack.push_async_callback(engine.close, timedelta(seconds=2))
        await _host_workflow(app, stack)

    app = create_service("workflows", settings, routers=[], lifespan=lifespan, document=dict)
    app.add_api_route("/three", _run_three, methods=["POST"])
    app.add_api_route("/activities", _run_activities, methods=["POST"])
    return app


async def _host_workflow(app: FastAPI, stack: AsyncExitStack) -> None:
    async def one_step(_: Work) -> Number:
        return Number(value=1)

    host = WorkflowHost()
    host.add_workflow(BY_ACTIVITIES, by_activities)
    host.add_activity(ONE_STEP, one_step)
    await host.start()
    stack.push_async_callback(host.stop, timedelta(seconds=5))
    app.state.workflows, app.state.client = LocalWorkflows(), DaprWorkflowClient()


async def _run_three(request: Request) -> dict[str, int]:
    """Returns when the third step is durable and the execution's stream is closed."""
    value = Number.model_validate_json(await request.body())
    result = await request.app.state.three.call(uuid.uuid4().hex, value, owner="bench")
    return {"value": result.value}


async def _run_activities(request: Request) -> dict[str, str]:
    """Returns when the engine says that the workflow is complete."""
    name = uuid.uuid4().hex
    await request.app.state.workflows.start(BY_ACTIVITIES.name, name, {"id": name})
    await request.app.state.client.wait_for_workflow_completion(
        name, fetch_payloads=False, timeout_in_seconds=60
    )
    return {"id": name}
