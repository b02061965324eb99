"""Arguments of workflow calls are validated, and payloads are limited, before anything enters a history."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest
from dapr.ext.workflow import WorkflowRuntime
from pydantic import BaseModel

from services.kit.dapr.client import RpcClient
from services.kit.dapr.workflows import (
    MAX_PAYLOAD_BYTES,
    LocalWorkflows,
    WorkflowContext,
    WorkflowHost,
)
from services.kit.errors import ErrorCode, RpcError
from services.kit.references import ActivityRef, EventRef, WorkflowRef, Workflows
from services.platform import WorkflowClient
from tests.requirements import requirement
from tests.support.workflow_engine import Engine


class Text(BaseModel):
    text: str


class Number(BaseModel):
    number: int


SHORT, LONG = Text(text="é" * 10), Text(text="é" * (MAX_PAYLOAD_BYTES // 2))
ECHO = ActivityRef("Echo", "llm", Text, Text)
NOTE = EventRef("Note", Text)
WORK = WorkflowRef("Work", "workflows", Text, Text, events=(NOTE,))
CHILD = WorkflowRef("Child", "workflows", Text, Text)
Body = Generator[Any, Any, Text]


def call_activity(ctx: WorkflowContext, _: Text) -> Body:
    return (yield from ctx.call(ECHO, LONG))


def call_child(ctx: WorkflowContext, _: Text) -> Body:
    return (yield from ctx.call_child(CHILD, LONG, "c"))


def continue_long(ctx: WorkflowContext, _: Text) -> Body:
    return (yield from ctx.continue_as_new(LONG))


def return_long(ctx: WorkflowContext, _: Text) -> Body:
    yield from ctx.call(ECHO, SHORT)
    return LONG


@requirement("kit:workflows:payload")
@pytest.mark.parametrize(
    ("work", "what"),
    [
        (call_activity, "the input of Echo"),
        (call_child, "the input of Child"),
        (continue_long, "the input of Work"),
        (return_long, "the result of Work"),
    ],
)
async def test_what_a_workflow_hands_on_is_limited(work: Any, what: str) -> None:
    async def echo(_app_id: str, _name: str, value: Any) -> BaseModel:
        return Text.model_validate(value)

    host = WorkflowHost()
    host.add_workflow(WORK, work)
    instance = await Engine(host, echo).start(WORK, "one", SHORT)
    assert instance.status == "FAILED"
    assert f"PAYLOAD_TOO_LARGE: {what} has 16396 bytes" in instance.failure.errorMessage


@requirement("kit:workflows:payload")
async def test_an_activity_result_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Callable[..., Any]] = {}

    def register(_: WorkflowRuntime, function: Callable[..., Any], *, name: str) -> None:
        found[name] = function

    async def echo(value: Text) -> Text:
        return value

    monkeypatch.setattr(WorkflowRuntime, "register_activity", register)
    host = WorkflowHost()
    host._loop = asyncio.get_running_loop()
    host.add_activity(ECHO, echo)
    assert await found["Echo"](None, SHORT.model_dump()) == SHORT.model_dump()
    with pytest.raises(RpcError, match=r"PAYLOAD_TOO_LARGE: the result of Echo has"):
        await found["Echo"](None, LONG.model_dump())


Call = Callable[[Workflows], Awaitable[None]]
REFUSED: dict[str, tuple[ErrorCode, str, Call]] = {
    "an id with a space": (
        ErrorCode.INVALID_ARGUMENT,
        "instance_id: must have",
        lambda to: to.start(WORK, "a b", SHORT),
    ),
    "an id with a line break": (
        ErrorCode.INVALID_ARGUMENT,
        "instance_id: must have",
        lambda to: to.start(WORK, "a\n", SHORT),
    ),
    "an empty id": (
        ErrorCode.INVALID_ARGUMENT,
        "instance_id: must have",
        lambda to: to.start(WORK, "", SHORT),
    ),
    "an id of 101 characters": (
        ErrorCode.INVALID_ARGUMENT,
        "instance_id: must have",
        lambda to: to.start(WORK, "a" * 101, SHORT),
    ),
    "the id of a child": (
        ErrorCode.INVALID_ARGUMENT,
        "instance_id: must have",
        lambda to: to.start(WORK, "a:b", SHORT),
    ),
    "another input": (
        ErrorCode.INVALID_ARGUMENT,
        "input: must be a Text",
        lambda to: to.start(WORK, "a", Number(number=1)),  # type: ignore[arg-type]
    ),
    "a long input": (
        ErrorCode.PAYLOAD_TOO_LARGE,
        "the input of Work has 16396 bytes",
        lambda to: to.start(WORK, "a", LONG),
    ),
    "an event to a bad id": (
        ErrorCode.INVALID_ARGUMENT,
        "instance_id: is neither",
        lambda to: to.raise_event(WORK, "a::b", NOTE, SHORT, event_id="1"),
    ),
    "a bad event id": (
        ErrorCode.INVALID_ARGUMENT,
        "event_id: must have",
        lambda to: to.raise_event(WORK, "a:1.b", NOTE, SHORT, event_id=""),
    ),
    "an undeclared event": (
        ErrorCode.INVALID_ARGUMENT,
        "event: is not an event of Work",
        lambda to: to.raise_event(WORK, "a", EventRef("Else", Text), SHORT, event_id="1"),
    ),
    "another event": (
        ErrorCode.INVALID_ARGUMENT,
        "value: must be a Text",
        lambda to: to.raise_event(WORK, "a", NOTE, Number(number=1), event_id="1"),  # type: ignore[arg-type]
    ),
    "a long event": (
        ErrorCode.PAYLOAD_TOO_LARGE,
        "the event Note has 16396 bytes",
        lambda to: to.raise_event(WORK, "a", NOTE, LONG, event_id="1"),
    ),
    "a cancel of a bad id": (
        ErrorCode.INVALID_ARGUMENT,
        "instance_id: is neither",
        lambda to: to.cancel(WORK, "a b"),
    ),
}


@requirement("kit:workflows:start", "kit:workflows:events", "kit:workflows:payload")
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("side", ["the host", "another app"])
async def test_a_bad_argument_is_refused_before_any_call(name: str, side: str) -> None:
    nobody = RpcClient.__new__(RpcClient)  # a call of it would be an AttributeError
    workflows: Workflows = LocalWorkflows() if side == "the host" else WorkflowClient(nobody)
    code, message, call = REFUSED[name]
    with pytest.raises(RpcError) as refused:
        await call(workflows)
    assert refused.value.code is code
    assert message in refused.value.message
