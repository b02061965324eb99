"""Direct calls of actors that are active in this process."""

import asyncio
from typing import Any

import pytest
from dapr.actor import ActorRuntime
from pydantic import BaseModel

from services.kit.dapr import actor_host, actors, domain_actor
from services.kit.dapr.active_actors import CONFIRMATION_TTL, ActiveActors
from services.kit.dapr.actor_host import PydanticSerializer, register_actor
from services.kit.dapr.actors import Actors
from services.kit.dapr.domain_actor import ActorContext, ActorInterface, DomainActor
from services.kit.dapr.sidecar import SidecarError
from services.kit.errors import ErrorCode, RpcError
from tests.requirements import requirement
from tests.support.wait import wait_until


class Words(BaseModel):
    said: list[str]


class EchoActorInterface(ActorInterface):
    async def say(self, words: Words) -> Words: ...

    async def hush(self) -> None: ...


class EchoActor(DomainActor[Words], EchoActorInterface):
    """Stores texts, and waits on request."""

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.failure: Exception | None = None
        self.inside = self.most_inside = self.forgotten = 0
        self.kept: list[Words] = []

    def forget(self) -> None:
        self.forgotten += 1

    async def say(self, words: Words) -> Words:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await self.go_on.wait()
            if self.failure:
                raise self.failure
            self.kept.append(words)
            return words
        finally:
            self.inside -= 1

    async def hush(self) -> None:
        self.kept.clear()


class Transport:
    """A fake sidecar that calls actors of this process and counts the calls."""

    def __init__(self) -> None:
        self.delivered = 0
        self.channel = None

    async def invoke_actor(self, actor_type: str, actor_id: str, method: str, data: bytes) -> bytes:
        self.delivered += 1
        return await ActorRuntime.dispatch(actor_type, actor_id, method, data)


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A settable clock of the registry of active actors."""
    time = [0.0]
    registry: ActiveActors[Any] = ActiveActors(lambda: time[0])
    for module in (actors, actor_host, domain_actor):
        monkeypatch.setattr(module, "active_actors", registry)
    return time


@pytest.fixture
async def echo(transport: Transport, now: list[float]) -> EchoActorInterface:
    """A proxy of an actor that one call by the sidecar has activated."""
    del now
    await register_actor(EchoActor, transport, None, EchoActor)  # type: ignore[arg-type]
    proxy = Actors(transport).get(EchoActorInterface, "one")  # type: ignore[arg-type]
    assert await proxy.say(Words(said=["first"])) == Words(said=["first"])
    assert transport.delivered == 1
    return proxy


def active() -> EchoActor:
    found = domain_actor.active_actors.find("EchoActor", "one")
    assert isinstance(found, EchoActor)
    return found


@requirement("kit:actor-in-place")
async def test_an_active_actor_is_called_without_the_sidecar(
    echo: EchoActorInterface, transport: Transport
) -> None:
    assert await echo.say(Words(said=["in place"])) == Words(said=["in place"])
    await echo.hush()
    assert transport.delivered == 1
    assert active().kept == []


@requirement("kit:actor-in-place")
async def test_caller_and_actor_share_no_object(echo: EchoActorInterface) -> None:
    sent = Words(said=["a"])
    received = await echo.say(sent)
    sent.said.append("the caller's")
    received.said.append("the caller's, too")
    assert active().kept[-1] == Words(said=["a"])


@requirement("kit:actor-in-place", "kit:actor-errors")
async def test_an_error_is_returned_by_value_and_the_cache_discarded(
    echo: EchoActorInterface,
) -> None:
    for failure, code in (
        (RpcError(ErrorCode.ABORTED, "no"), ErrorCode.ABORTED),
        (SidecarError("10.0.0.1"), ErrorCode.UNAVAILABLE),
        (RuntimeError("a bug"), ErrorCode.INTERNAL),
    ):
        active().failure = failure
        with pytest.raises(RpcError) as raised:
            await echo.say(Words(said=[]))
        assert raised.value.code is code
        assert raised.value is not failure
    assert active().forgotten == 3


@requirement("kit:actor-in-place")
async def test_a_cancelled_caller_does_not_interrupt_the_method(echo: EchoActorInterface) -> None:
    actor = active()
    actor.go_on.clear()
    leaving = asyncio.ensure_future(echo.say(Words(said=["whole"])))
    await wait_until(lambda: actor.inside == 1)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert leaving.cancelled()
    assert actor.inside == 1
    actor.go_on.set()
    await wait_until(lambda: actor.kept[-1] == Words(said=["whole"]))
    assert actor.forgotten == 0


@requirement("kit:actor-in-place")
async def test_direct_calls_and_calls_by_the_sidecar_are_serialized(
    echo: EchoActorInterface, transport: Transport
) -> None:
    data = PydanticSerializer().serialize(Words(said=["remote"]))
    calls = [echo.say(Words(said=["local"])) for _ in range(5)]
    calls += [transport.invoke_actor("EchoActor", "one", "say", data) for _ in range(5)]
    await asyncio.gather(*calls)
    assert active().most_inside == 1
    assert len(active().kept) == 11


@requirement("kit:actor-in-place")
async def test_a_deactivation_waits_for_calls_in_flight_and_later_calls_use_the_sidecar(
    echo: EchoActorInterface, transport: Transport
) -> None:
    actor = active()
    actor.go_on.clear()
    under_way = asyncio.ensure_future(echo.say(Words(said=["under way"])))
    await wait_until(lambda: actor.inside == 1)
    deactivation = asyncio.ensure_future(ActorRuntime.deactivate("EchoActor", "one"))
    await wait_until(lambda: domain_actor.active_actors.find("EchoActor", "one") is None)
    assert not deactivation.done()
    actor.go_on.set()
    assert await under_way == Words(said=["under way"])
    await deactivation
    assert await echo.say(Words(said=["later"])) == Words(said=["later"])
    assert transport.delivered == 2
    assert active() is not actor


@requirement("kit:actor-in-place")
async def test_an_unconfirmed_actor_is_called_by_the_sidecar(
    echo: EchoActorInterface, transport: Transport, now: list[float]
) -> None:
    now[0] = CONFIRMATION_TTL.total_seconds()
    await echo.hush()
    assert transport.delivered == 1
    now[0] += 1
    await echo.hush()
    assert transport.delivered == 2


def test_a_confirmation_does_not_activate_an_actor() -> None:
    registry: ActiveActors[str] = ActiveActors()
    registry.confirm("EchoActor", "one")
    assert registry.find("EchoActor", "one") is None
    registry.add("EchoActor", "one", "it")
    registry.confirm("EchoActor", "one")
    assert registry.find("EchoActor", "one") == "it"
    registry.remove("EchoActor", "one")
    registry.remove("EchoActor", "one")
    assert registry.find("EchoActor", "one") is None
