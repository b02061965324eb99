"""Waits, events, children, continue_as_new and cancel of workflows, on the SDK's executor with a replay at every step."""

from collections.abc import Generator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from services.kit.dapr.workflows import (
    ActivityFailed,
    ChildFailed,
    Completed,
    Failed,
    TimedOut,
    WorkflowCancelled,
    WorkflowContext,
    WorkflowHost,
)
from services.kit.references import ActivityRef, EventRef, WorkflowRef
from tests.requirements import requirement
from tests.support.workflow_engine import Engine

MINUTE = timedelta(minutes=1)


class Text(BaseModel):
    text: str


class Texts(BaseModel):
    texts: list[str] = []


ECHO = ActivityRef("Echo", "llm", Text, Text)
SLOW = ActivityRef("Slow", "llm", Text, Text)
BAD = ActivityRef("Bad", "llm", Text, Text)
NOTE = EventRef("Note", Text)
OTHER = EventRef("Other", Text)
WORK = WorkflowRef("Work", "workflows", Texts, Texts, events=(NOTE, OTHER), cancellable=True)
CHILD = WorkflowRef("Child", "workflows", Text, Text, events=(NOTE,), cancellable=True)
Body = Generator[Any, Any, Texts]


async def activity(app_id: str, name: str, value: Any) -> BaseModel:
    assert app_id == "llm"
    if name == "Bad":
        raise ValueError("no")
    return Text.model_validate(value)


def child(ctx: WorkflowContext, value: Text) -> Generator[Any, Any, Text]:
    """Fails, waits for a note, or echoes."""
    if value.text == "fail":
        yield from ctx.call(BAD, value)
    if value.text == "wait":
        note = yield from ctx.wait_for(NOTE, MINUTE)
        return Text(text="late") if note is TimedOut.TIMED_OUT else note
    return (yield from ctx.call(ECHO, value))


def engine_of(work: Any) -> Engine:
    host = WorkflowHost()
    host.add_workflow(WORK, work)
    host.add_workflow(CHILD, child)
    return Engine(host, activity)


def texts(values: Sequence[Any]) -> list[str]:
    return [each.text if isinstance(each, Text) else type(each).__name__ for each in values]


@requirement("kit:workflows:events")
async def test_a_wait_ends_with_the_event_or_at_its_time_limit() -> None:
    def work(ctx: WorkflowContext, _: Texts) -> Body:
        first = yield from ctx.wait_for(NOTE, MINUTE)
        second = yield from ctx.wait_for(NOTE, MINUTE)
        return Texts(texts=texts([first, second]))

    engine = engine_of(work)
    instance = await engine.start(WORK, "one", Texts())
    await engine.advance(MINUTE / 2)
    await engine.raise_event("one", NOTE, Text(text="a"), "1")
    await engine.advance(MINUTE - timedelta(seconds=1))
    assert instance.status == "RUNNING"
    await engine.advance(timedelta(seconds=1))
    assert (instance.status, instance.result) == ("COMPLETED", {"texts": ["a", "TimedOut"]})


@requirement("kit:workflows:events")
async def test_events_before_the_wait_and_after_its_limit_are_kept_in_order() -> None:
    def work(ctx: WorkflowContext, _: Texts) -> Body:
        found: list[Any] = []
        yield from ctx.sleep(MINUTE)
        for _number in range(3):
            found.append((yield from ctx.wait_for(NOTE, MINUTE)))
            yield from ctx.sleep(MINUTE)
        return Texts(texts=texts(found))

    engine = engine_of(work)
    instance = await engine.start(WORK, "one", Texts())
    await engine.raise_event("one", NOTE, Text(text="early"), "1")
    await engine.advance(3 * MINUTE + timedelta(seconds=1))  # the second wait has timed out
    await engine.raise_event("one", NOTE, Text(text="late"), "2")
    await engine.run(skip=True)
    assert instance.result == {"texts": ["early", "TimedOut", "late"]}


@requirement("kit:workflows:events")
async def test_a_repeated_event_id_and_an_event_of_another_shape_are_skipped() -> None:
    def work(ctx: WorkflowContext, _: Texts) -> Body:
        found: list[Any] = []
        for _number in range(3):
            found += [(yield from ctx.wait_for(NOTE, MINUTE))]
        return Texts(texts=texts(found))

    engine = engine_of(work)
    instance = await engine.start(WORK, "one", Texts())
    for event_id, text in (("1", "a"), ("1", "a"), ("2", "b"), ("1", "a"), ("2", "b")):
        await engine.raise_event("one", NOTE, Text(text=text), event_id)
    for raw in ({"id": "3"}, "text", None, {"id": "4", "value": {"text": 1}}):
        engine.put_raw("one", "Note", raw)
    await engine.run()
    assert instance.status == "RUNNING"
    await engine.raise_event("one", NOTE, Text(text="c"), "5")
    assert instance.result == {"texts": ["a", "b", "c"]}


@requirement("kit:workflows:when")
async def test_the_event_of_a_lost_race_goes_to_the_next_wait() -> None:
    def work(ctx: WorkflowContext, _: Texts) -> Body:
        found: list[str] = []
        for _number in range(3):
            note, other, expiry = ctx.event(NOTE), ctx.event(OTHER), ctx.timer(MINUTE)
            first = yield from ctx.when_any(note, other, expiry)
            found.append("expiry" if first is expiry else first.result().text)
        return Texts(texts=found)

    engine = engine_of(work)
    instance = await engine.start(WORK, "one", Texts())
    await engine.advance(MINUTE)
    engine.put("one", OTHER, Text(text="other"), "1")
    engine.put("one", NOTE, Text(text="note"), "1")  # in the same batch, after the race is decided
    await engine.run()
    assert instance.result == {"texts": ["expiry", "other", "note"]}


@requirement("kit:workflows:when")
async def test_a_loser_of_when_any_goes_on() -> None:
    def work(ctx: WorkflowContext, _: Texts) -> Body:
        slow, expiry = ctx.begin(SLOW, Text(text="slow")), ctx.timer(MINUTE)
        assert (yield from ctx.when_any(slow, expiry)) is expiry
        assert not slow.done()
        quick = ctx.begin(ECHO, Text(text="quick"))
        assert (yield from ctx.when_any(slow, quick)) is quick
        return Texts(texts=[quick.result().text, (yield from ctx.wait(slow)).text])

    engine = engine_of(work)
    engine.held.add("Slow")
    instance = await engine.start(WORK, "one", Texts())
    await engine.advance(MINUTE)
    assert instance.status == "RUNNING"
    await engine.release("Slow")
    assert instance.result == {"texts": ["quick", "slow"]}


@requirement("kit:workflows:when")
async def test_when_all_waits_for_each_and_returns_failures_as_values() -> None:
    def work(ctx: WorkflowContext, _: Texts) -> Body:
        outcomes = yield from ctx.when_all(
            [
                ctx.begin(BAD, Text(text="bad")),
                ctx.begin(SLOW, Text(text="slow")),
                ctx.begin_child(CHILD, Text(text="fail"), "f"),
                ctx.begin_child(CHILD, Text(text="child"), "c"),
            ]
        )
        assert (yield from ctx.when_all([])) == []
        errors = [type(each.error) for each in outcomes if isinstance(each, Failed)]
        assert errors == [ActivityFailed, ChildFailed]
        return Texts(texts=[each.value.text for each in outcomes if isinstance(each, Completed)])

    engine = engine_of(work)
    engine.held.add("Slow")
    instance = await engine.start(WORK, "one", Texts())
    assert instance.status == "RUNNING"
    await engine.release("Slow")
    assert instance.result == {"texts": ["slow", "child"]}


@requirement("kit:workflows:children")
async def test_a_child_has_an_id_of_its_parent_and_takes_events() -> None:
    def work(ctx: WorkflowContext, _: Texts) -> Body:
        first = yield from ctx.call_child(CHILD, Text(text="wait"), "ask")
        with pytest.raises(ChildFailed, match=r"one:bad: .*no") as failed:
            yield from ctx.call_child(CHILD, Text(text="fail"), "bad")
        assert (failed.value.instance_id, failed.value.cancelled) == ("one:bad", False)
        return Texts(texts=[first.text])

    engine = engine_of(work)
    instance = await engine.start(WORK, "one", Texts())
    await engine.raise_event("one:ask", NOTE, Text(text="yes"), "1")
    assert instance.result == {"texts": ["yes"]}
    assert sorted(engine.instances) == ["one", "one:ask", "one:bad"]


@requirement("kit:workflows:children")
@pytest.mark.parametrize(
    ("workflow", "key", "error"),
    [
        (CHILD, "a:b", "key: must have"),
        (CHILD, "twice", "already has a child twice"),
        (WorkflowRef("Far", "llm", Text, Text), "k", "hosted by llm"),
    ],
)
async def test_a_child_that_cannot_run_fails_its_parent_at_once(
    workflow: Any, key: str, error: str
) -> None:
    def work(ctx: WorkflowContext, _: Texts) -> Body:
        yield from ctx.call_child(CHILD, Text(text="child"), "twice")
        yield from ctx.call_child(workflow, Text(text="child"), key)
        return Texts()

    instance = await engine_of(work).start(WORK, "one", Texts())
    assert instance.status == "FAILED"
    assert error in instance.failure.errorMessage


@requirement("kit:workflows:continue")
async def test_continue_as_new_keeps_events_ids_and_child_ids_apart() -> None:
    def work(ctx: WorkflowContext, value: Texts) -> Body:
        note = yield from ctx.wait_for(NOTE, MINUTE)
        assert isinstance(note, Text)
        echo = yield from ctx.call_child(CHILD, note, "echo")
        found = Texts(texts=[*value.texts, echo.text])
        if len(found.texts) == 3:
            return found
        return (yield from ctx.continue_as_new(found))

    engine = engine_of(work)
    instance = await engine.start(WORK, "one", Texts())
    for event_id, text in (("1", "a"), ("1", "a"), ("2", "b"), ("1", "a"), ("3", "c")):
        engine.put("one", NOTE, Text(text=text), event_id)
    await engine.run()
    assert (instance.result, instance.runs) == ({"texts": ["a", "b", "c"]}, 3)
    assert sorted(engine.instances) == ["one", "one:1.echo", "one:2.echo", "one:echo"]


@requirement("kit:workflows:continue")
async def test_an_event_in_the_batch_that_continues_as_new_is_not_lost() -> None:
    def work(ctx: WorkflowContext, value: Texts) -> Body:
        note, other = ctx.event(NOTE), ctx.event(OTHER)
        first = yield from ctx.when_any(note, other)
        found = Texts(texts=[*value.texts, first.result().text])
        if len(found.texts) == 4:
            return found
        return (yield from ctx.continue_as_new(found))

    engine = engine_of(work)
    instance = await engine.start(WORK, "one", Texts())
    for event, text in ((NOTE, "a"), (OTHER, "b"), (NOTE, "c"), (OTHER, "d")):
        engine.put("one", event, Text(text=text), text)
    await engine.run()
    assert sorted(instance.result["texts"]) == ["a", "b", "c", "d"]


@requirement("kit:workflows:continue")
async def test_continue_as_new_waits_for_what_runs() -> None:
    def work(ctx: WorkflowContext, value: Texts) -> Body:
        if value.texts:
            return value
        ctx.begin(SLOW, Text(text="slow"))
        ctx.begin_child(CHILD, Text(text="wait"), "c")
        return (yield from ctx.continue_as_new(Texts(texts=["done"])))

    engine = engine_of(work)
    engine.held.add("Slow")
    instance = await engine.start(WORK, "one", Texts())
    await engine.release("Slow")
    assert (instance.status, instance.runs) == ("RUNNING", 1)
    await engine.raise_event("one:c", NOTE, Text(text="go"), "1")
    assert (instance.result, instance.runs) == ({"texts": ["done"]}, 2)


@requirement("kit:workflows:cancel")
@pytest.mark.parametrize("wait", ["timer", "event", "activity", "when_all", "child"])
async def test_a_cancel_ends_every_kind_of_wait(wait: str) -> None:
    def work(ctx: WorkflowContext, _: Texts) -> Body:
        slow = Text(text="slow")
        match wait:
            case "timer":
                yield from ctx.sleep(MINUTE)
            case "event":
                yield from ctx.wait_for(NOTE, MINUTE)
            case "activity":
                yield from ctx.call(SLOW, slow)
            case "when_all":
                yield from ctx.when_all([ctx.begin(SLOW, slow), ctx.begin(ECHO, slow)])
            case _:
                yield from ctx.call_child(CHILD, Text(text="wait"), "c")
        return Texts()

    engine = engine_of(work)
    engine.held.add("Slow")
    instance = await engine.start(WORK, "one", Texts())
    assert instance.status == "RUNNING"
    await engine.cancel("one")
    assert (instance.status, instance.failure.errorType) == ("FAILED", "WorkflowCancelled")
    assert instance.custom_status == "CANCELLING"
    if wait == "child":
        assert engine.instances["one:c"].failure.errorType == "WorkflowCancelled"


@requirement("kit:workflows:cancel")
async def test_a_cancel_reaches_children_also_when_it_takes_longer_than_the_grace() -> None:
    def work(ctx: WorkflowContext, _: Texts) -> Body:
        yield from ctx.call_child(CHILD, Text(text="wait"), "c")
        return Texts()

    engine = engine_of(work)
    engine.failing_cancels = 5
    instance = await engine.start(WORK, "one", Texts())
    await engine.cancel("one")
    await engine.advance(WORK.cancel_grace * 3)
    assert (instance.status, engine.instances["one:c"].status) == ("FAILED", "FAILED")
    assert engine.failing_cancels == 0


@requirement("kit:workflows:cancel")
async def test_a_cancelled_workflow_cleans_up_within_its_grace() -> None:
    def work(ctx: WorkflowContext, value: Texts) -> Body:
        try:
            yield from ctx.sleep(MINUTE)
        except WorkflowCancelled:
            yield from ctx.call(ECHO, Text(text="tidy"))
            if value.texts:
                while True:
                    try:
                        yield from ctx.call(BAD, Text(text="never"))
                    except Exception:
                        yield from ctx.sleep(timedelta(seconds=7))
        return Texts(texts=["tidied"])

    engine = engine_of(work)
    tidy = await engine.start(WORK, "one", Texts())
    endless = await engine.start(WORK, "two", Texts(texts=["for ever"]))
    await engine.cancel("one")
    await engine.cancel("two")
    assert (tidy.status, tidy.result) == ("COMPLETED", {"texts": ["tidied"]})
    await engine.advance(WORK.cancel_grace - timedelta(seconds=1))
    assert endless.status == "RUNNING"
    await engine.advance(timedelta(seconds=1))
    assert endless.failure.errorType == "WorkflowCancelled"
    assert "grace" in endless.failure.errorMessage


@requirement("kit:workflows:cancel")
async def test_a_cancel_before_the_first_wait_or_across_continue_as_new_is_seen() -> None:
    def work(ctx: WorkflowContext, value: Texts) -> Body:
        yield from ctx.sleep(MINUTE)
        return (yield from ctx.continue_as_new(Texts(texts=[*value.texts, "run"])))

    engine = engine_of(work)
    instance = await engine.start(WORK, "one", Texts())
    await engine.advance(MINUTE / 2)
    fired = MINUTE / 2
    engine.now += fired
    engine._fire()
    engine.put_raw("one", "yocaso.cancel", {"id": ""})  # after the timer, in one batch
    await engine.run()
    assert (instance.runs, instance.status) == (2, "FAILED")


async def test_a_result_of_another_type_fails_the_workflow() -> None:
    def work(ctx: WorkflowContext, _: Texts) -> Body:
        return (yield from ctx.call(ECHO, Text(text="not Texts")))  # type: ignore[return-value]

    instance = await engine_of(work).start(WORK, "one", Texts())
    assert "must be a Texts" in instance.failure.errorMessage


async def test_misuse_of_handles_is_an_error() -> None:
    def work(ctx: WorkflowContext, _: Texts) -> Body:
        old, new = ctx.event(NOTE), ctx.event(NOTE)
        with pytest.raises(RuntimeError, match="replaced"):
            yield from ctx.wait(old)
        with pytest.raises(RuntimeError, match="not done"):
            new.result()
        with pytest.raises(RuntimeError, match="not done"):
            ctx.timer(MINUTE).result()
        with pytest.raises(ValueError, match="needs a handle"):
            yield from ctx.when_any()
        with pytest.raises(ValueError, match="does not declare"):
            ctx.event(EventRef("Else", Text))
        with pytest.raises(TypeError, match="must be a Texts"):
            yield from ctx.continue_as_new(Text(text="no"))
        return Texts()

    assert (await engine_of(work).start(WORK, "one", Texts())).status == "COMPLETED"
