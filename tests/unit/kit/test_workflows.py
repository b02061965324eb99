"""Payloads of workflows and activities are limited."""

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
    """A fake of the SDK's context that returns the yielded values."""

    def call_activity(self, name: str, *, input: Any, app_id: str) -> Any:
        return input


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[..., Any]]:
    """A fake of the SDK's runtime that keeps registrations by name."""
    found: dict[str, Callable[..., Any]] = {}

    def register(_: WorkflowRuntime, function: Callable[..., Any], *, name: str) -> None:
        found[name] = function

    monkeypatch.setattr(WorkflowRuntime, "register_workflow", register)
    monkeypatch.setattr(WorkflowRuntime, "register_activity", register)
    return found


def too_large() -> Any:
    return pytest.raises(RpcError, match=f"{ErrorCode.PAYLOAD_TOO_LARGE}.*bytes")


def test_an_activity_input_is_limited() -> None:
    context: Any = Context()
    assert next(WorkflowContext(context).call(ECHO, SHORT)) == {"text": SHORT.text}
    with too_large():
        next(WorkflowContext(context).call(ECHO, LONG))


async def test_results_are_limited(registered: dict[str, Callable[..., Any]]) -> None:
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


async def test_a_workflow_input_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalWorkflows, "__init__", lambda _: None)
    with too_large():
        await LocalWorkflows().start(WORK.name, "id", LONG)
