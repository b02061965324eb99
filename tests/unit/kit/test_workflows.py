"""What a workflow's history stores is bounded where it would be written."""

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import pytest
from dapr.ext.workflow import WorkflowRuntime
from pydantic import BaseModel

from services.kit.dapr.workflows import (
    MAX_PAYLOAD_BYTES,
    LocalWorkflows,
    WorkflowContext,
    WorkflowHost,
)
from services.kit.errors import ErrorCode, RpcError
from services.kit.references import ActivityRef, WorkflowRef


class Text(BaseModel):
    text: str


SHORT, LONG = Text(text="é" * 10), Text(text="é" * (MAX_PAYLOAD_BYTES // 2))
ECHO = ActivityRef("Echo", "llm", Text, Text)
WORK = WorkflowRef("Work", "workflows", Text)


class Context:
    """Stands where the SDK's context stands; what a workflow yields comes back to it."""

    def call_activity(self, name: str, *, input: Any, app_id: str) -> Any:
        return input


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[..., Any]]:
    """What the host registers with the SDK, by name."""
    found: dict[str, Callable[..., Any]] = {}

    def register(_: WorkflowRuntime, function: Callable[..., Any], *, name: str) -> None:
        found[name] = function

    monkeypatch.setattr(WorkflowRuntime, "register_workflow", register)
    monkeypatch.setattr(WorkflowRuntime, "register_activity", register)
    return found


def too_large() -> Any:
    return pytest.raises(RpcError, match=f"{ErrorCode.PAYLOAD_TOO_LARGE}.*bytes")


def test_an_activitys_input_is_bounded() -> None:
    context: Any = Context()
    assert next(WorkflowContext(context).call(ECHO, SHORT)) == {"text": SHORT.text}
    with too_large():
        next(WorkflowContext(context).call(ECHO, LONG))


async def test_results_are_bounded(registered: dict[str, Callable[..., Any]]) -> None:
    def work(_: WorkflowContext, value: Text) -> Generator[Any, Any, Text]:
        yield
        return value

    async def echo(value: Text) -> Text:
        return value

    host = WorkflowHost()
    host._loop = asyncio.get_running_loop()
    host.add_workflow(WORK, work)
    host.add_activity(ECHO, echo)
    assert await registered["Echo"](None, SHORT.model_dump()) == SHORT.model_dump()
    with too_large():
        await registered["Echo"](None, LONG.model_dump())
    running = registered["Work"](Context(), LONG.model_dump())
    next(running)
    with too_large():
        next(running)


async def test_a_workflows_input_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalWorkflows, "__init__", lambda _: None)
    with too_large():
        await LocalWorkflows().start(WORK.name, "id", LONG)
