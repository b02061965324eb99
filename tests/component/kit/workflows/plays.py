"""The workflow functions."""

from collections.abc import Callable, Generator, Sequence
from datetime import timedelta
from typing import Any, Final

from services.kit.dapr.workflows import (
    Completed,
    TimedOut,
    WorkflowCancelled,
    WorkflowContext,
)
from tests.component.kit.workflows.contract import (
    ANSWER,
    BAD,
    GATE,
    MARK,
    PLAY,
    WATCH,
    Plan,
    Step,
    Text,
    Texts,
)

Body = Generator[Any, Any, Texts]


def event(ctx: WorkflowContext, plan: Plan) -> Body:
    """One event, or its time limit."""
    answer = yield from ctx.wait_for(ANSWER, timedelta(seconds=plan.seconds))
    return (yield from mark(ctx, "timed out" if isinstance(answer, TimedOut) else answer.text))


def timer(ctx: WorkflowContext, plan: Plan) -> Body:
    """A durable timer."""
    yield from ctx.sleep(timedelta(seconds=plan.seconds))
    return (yield from mark(ctx, "slept"))


def child(ctx: WorkflowContext, plan: Plan) -> Body:
    """A child that waits for an event."""
    found = yield from ctx.call_child(PLAY, plan.model_copy(update={"kind": "event"}), "ask")
    return (yield from mark(ctx, f"child said {found.texts[0]}"))


def everything(ctx: WorkflowContext, plan: Plan) -> Body:
    """Two activities, a child and a timer together; one fails."""
    asked = plan.model_copy(update={"kind": "event"})
    handles: Sequence[Any] = [
        ctx.begin(GATE, step(ctx, "gate")),
        ctx.begin(BAD, step(ctx, "bad")),
        ctx.begin_child(PLAY, asked, "ask"),
        ctx.timer(timedelta(seconds=1)),
        ctx.begin(MARK, step(ctx, "quick")),
    ]
    outcomes = yield from ctx.when_all(handles)
    return Texts(texts=[_text(each) for each in outcomes])


def race(ctx: WorkflowContext, plan: Plan) -> Body:
    """The first of an event and a timer, again and again."""
    texts: list[str] = []
    while len(texts) < plan.wanted:
        answer, expiry = ctx.event(ANSWER), ctx.timer(timedelta(seconds=plan.seconds))
        first = yield from ctx.when_any(answer, expiry)
        texts.append("expired" if first is expiry else answer.result().text)
    return Texts(texts=texts)


def collect(ctx: WorkflowContext, plan: Plan) -> Body:
    """One event per run, until enough are there; a timer is left over at each."""
    answer = yield from ctx.wait_for(ANSWER, timedelta(seconds=plan.seconds))
    assert isinstance(answer, Text), "no event was lost"
    yield from mark(ctx, answer.text)
    texts = [*plan.texts, answer.text]
    if len(texts) == plan.wanted:
        return Texts(texts=texts)
    return (yield from ctx.continue_as_new(plan.model_copy(update={"texts": texts})))


def stale_timer(ctx: WorkflowContext, plan: Plan) -> Body:
    """A first run leaves a short timer behind; the second has a longer one of the same number."""
    if plan.texts:
        yield from ctx.sleep(timedelta(seconds=plan.seconds))
        return (yield from mark(ctx, "slept"))
    ctx.timer(timedelta(seconds=1))
    return (yield from ctx.continue_as_new(plan.model_copy(update={"texts": ["again"]})))


def watched(ctx: WorkflowContext, plan: Plan) -> Body:
    """An activity that stops when the workflow is cancelled, which then waits for it."""
    watch = ctx.begin(WATCH, step(ctx, "watched"))
    try:
        yield from ctx.sleep(timedelta(seconds=plan.seconds))
    except WorkflowCancelled:
        return Texts(texts=[(yield from ctx.wait(watch)).text])
    return Texts(texts=[])


def stubborn(ctx: WorkflowContext, plan: Plan) -> Body:
    """Catches its cancel and goes on waiting."""
    while True:
        try:
            yield from ctx.call_child(PLAY, plan.model_copy(update={"kind": "event"}), "ask")
        except Exception:
            yield from ctx.sleep(timedelta(seconds=plan.seconds))


def too_large(ctx: WorkflowContext, _: Plan) -> Body:
    """The result of the activity, then its own, is too large."""
    yield from ctx.when_all([ctx.begin(BAD, step(ctx, "bad"))])
    return Texts(texts=["x" * 20_000])


PLAYS: Final[dict[str, Callable[[WorkflowContext, Plan], Body]]] = {
    "event": event,
    "timer": timer,
    "child": child,
    "all": everything,
    "race": race,
    "collect": collect,
    "stale timer": stale_timer,
    "watched": watched,
    "stubborn": stubborn,
    "too large": too_large,
}


def play(ctx: WorkflowContext, plan: Plan) -> Body:
    """The workflow of a plan's kind."""
    return (yield from PLAYS[plan.kind](ctx, plan))


def fixed(ctx: WorkflowContext, _: Plan) -> Body:
    """One step; it cannot be cancelled."""
    return (yield from mark(ctx, "fixed"))


def mark(ctx: WorkflowContext, name: str) -> Body:
    """A counted step."""
    return Texts(texts=[(yield from ctx.call(MARK, step(ctx, name))).text])


def step(ctx: WorkflowContext, name: str) -> Step:
    return Step(instance_id=ctx.instance_id, name=name)


def _text(outcome: Any) -> str:
    if not isinstance(outcome, Completed):
        return "PAYLOAD_TOO_LARGE" if "PAYLOAD_TOO_LARGE" in str(outcome.error) else "failed"
    value: Any = outcome.value
    return value.texts[0] if isinstance(value, Texts) else getattr(value, "text", "time")
