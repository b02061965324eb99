"""The base class of actors."""

import asyncio
from datetime import timedelta

import pytest
from dapr.actor.id import ActorId
from dapr.actor.runtime._type_information import ActorTypeInformation
from dapr.actor.runtime.context import ActorRuntimeContext
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata
from pydantic import BaseModel

from services.kit.dapr.actor_host import PydanticSerializer
from services.kit.dapr.domain_actor import (
    ActorContext,
    ActorInterface,
    DomainActor,
    Reply,
    _guarded,
)
from services.kit.dapr.sidecar import SidecarError
from services.kit.dapr.state import StateConflict
from services.kit.errors import ErrorCode, FieldViolation, RpcError
from tests.requirements import requirement
from tests.support.wait import wait_until


class Ask(BaseModel):
    text: str


class ProbeActorInterface(ActorInterface):
    async def ask(self, ask: Ask) -> Ask: ...


class ProbeActor(DomainActor[Ask], ProbeActorInterface):
    """Runs the function that the test gives it."""

    def __init__(self, actor_id: str = "one") -> None:
        information = ActorTypeInformation.create(ProbeActor)
        serializer = PydanticSerializer()
        runtime = ActorRuntimeContext(information, serializer, serializer, None)  # type: ignore[arg-type]
        super().__init__(ActorContext(runtime, ActorId(actor_id), None))  # type: ignore[arg-type]
        self.failures: list[BaseException] = []
        self.forgotten = 0
        self.inside = self.most_inside = 0

    def forget(self) -> None:
        self.forgotten += 1

    async def ask(self, ask: Ask) -> Ask:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        await asyncio.sleep(0)
        self.inside -= 1
        if self.failures:
            raise self.failures.pop(0)
        return ask


async def asked(actor: ProbeActor, text: str = "hi") -> Reply:
    return await actor.ask(Ask(text=text))  # type: ignore[return-value]


@requirement("kit:actor-errors")
async def test_an_error_is_returned_as_a_value_with_its_details() -> None:
    actor = ProbeActor()
    violation = FieldViolation(field="text", description="is wrong")
    actor.failures = [RpcError(ErrorCode.INVALID_ARGUMENT, "no", violations=[violation])]
    reply = Reply.model_validate_json(PydanticSerializer().serialize(await asked(actor)))
    assert reply.error is not None
    back = RpcError.from_status(reply.error)
    assert (back.code, back.message, back.violations) == (
        ErrorCode.INVALID_ARGUMENT,
        "no",
        (violation,),
    )
    assert actor.forgotten == 1


@requirement("kit:actor-errors")
@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (RuntimeError("a secret"), ErrorCode.INTERNAL),
        (SidecarError("10.0.0.1 is away"), ErrorCode.UNAVAILABLE),
    ],
)
async def test_an_internal_error_shows_no_details(failure: Exception, code: ErrorCode) -> None:
    actor = ProbeActor()
    actor.failures = [failure]
    reply = await asked(actor)
    assert reply.error is not None
    assert reply.error.code is code
    assert str(failure) not in reply.error.message
    assert actor.forgotten == 1


@requirement("kit:actor-errors")
async def test_an_unreachable_scheduler_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away = AioRpcError(StatusCode.INTERNAL, Metadata(), Metadata(), "code = Unavailable")

    async def refuse(*_: object) -> None:
        raise away

    async def set_reminder(_: Ask) -> Ask:
        await actor.set_reminder("later", timedelta(seconds=1), timedelta(seconds=1))
        raise AssertionError

    actor = ProbeActor()
    monkeypatch.setattr(actor, "register_reminder", refuse)
    monkeypatch.setattr(actor, "unregister_reminder", refuse)
    reply = await _guarded(lambda _, ask: set_reminder(ask))(actor, Ask(text="hi"))
    assert reply.error is not None
    assert reply.error.code is ErrorCode.UNAVAILABLE
    with pytest.raises(SidecarError):
        await actor.clear_reminder("later")


async def test_a_state_conflict_repeats_the_method_on_the_new_state() -> None:
    actor = ProbeActor()
    actor.failures = [StateConflict(), StateConflict()]
    assert (await asked(actor)).ok == Ask(text="hi")
    assert actor.forgotten == 2


async def test_repeated_state_conflicts_fail_the_call() -> None:
    actor = ProbeActor()
    actor.failures = [StateConflict() for _ in range(10)]
    reply = await asked(actor)
    assert reply.error is not None
    assert reply.error.code is ErrorCode.UNAVAILABLE


async def test_calls_of_one_actor_are_serialized() -> None:
    first, second = ProbeActor("same"), ProbeActor("same")
    await asyncio.gather(*(asked(actor) for actor in (first, second) * 5))
    assert first.most_inside == second.most_inside == 1
    assert first._lock is second._lock
    assert ProbeActor("other")._lock is not first._lock


async def test_background_work_runs_without_the_lock_and_one_at_a_time() -> None:
    actor, go_on, runs = ProbeActor(), asyncio.Event(), list[str]()

    async def work() -> None:
        assert (await asked(actor)).ok == Ask(text="hi")  # it does not hold the lock
        runs.append("begun")
        await go_on.wait()
        raise SidecarError("away")

    async with actor._lock:
        actor.in_background(work)
    await wait_until(lambda: runs == ["begun"])
    actor.in_background(work)
    first = actor._background
    assert first is not None
    go_on.set()
    await first
    actor.in_background(work)
    assert actor._background is not first
    await wait_until(lambda: runs == ["begun"] * 2)


@pytest.mark.parametrize("text", ["2024-01-02", "1h", "2024-01-02 hello there", "1h30m", "é🙂"])
def test_text_that_looks_like_a_date_or_a_duration_is_unchanged(text: str) -> None:
    serializer = PydanticSerializer()
    assert serializer.deserialize(serializer.serialize(Ask(text=text)), Ask) == Ask(text=text)
    assert serializer.deserialize(serializer.serialize({"text": text})) == {"text": text}
