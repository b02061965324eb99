"""Client of actors: typed calls, direct to actors of this process, else through the sidecar."""

import asyncio
from typing import Any, TypeVar, get_type_hints

import structlog
from pydantic import BaseModel, TypeAdapter

from services.kit.background import TaskSet
from services.kit.dapr.domain_actor import ActorInterface, DomainActor, Method, Reply, active_actors
from services.kit.dapr.placement_watch import placement_watch
from services.kit.dapr.sidecar import CALL_TIMEOUT_SECONDS, Sidecar, SidecarError
from services.kit.errors import RpcError, unavailable
from services.kit.telemetry.tracing import span

I = TypeVar("I", bound=ActorInterface)  # noqa: E741 - interface

log = structlog.get_logger()


class _Call:
    """One method of an actor type."""

    def __init__(self, sidecar: Sidecar, actor_type: str, name: str, response: Any) -> None:
        self._sidecar = sidecar
        self._actor_type = actor_type
        self._name = name
        self._response = TypeAdapter(response) if response is not type(None) else None
        self._in_flight = TaskSet()

    async def __call__(self, actor_id: str, request: BaseModel | None) -> Any:
        actor = active_actors.find(self._actor_type, actor_id)
        with span(f"{self._actor_type}.{self._name}", local=actor is not None):
            try:
                if actor is not None:
                    reply = await self._call_directly(actor, request)
                else:
                    reply = await self._call_by_sidecar(actor_id, request)
            except (SidecarError, TimeoutError) as error:
                log.warning(
                    "actor.unreachable",
                    actor=self._actor_type,
                    method=self._name,
                    error=str(error),
                )
                raise unavailable() from error
        if reply.error is not None:
            raise RpcError.from_status(reply.error)
        return self._response.validate_python(reply.ok) if self._response else None

    async def _call_by_sidecar(self, actor_id: str, request: BaseModel | None) -> Reply:
        body = (
            request.model_dump_json(by_alias=True, exclude_none=True).encode() if request else b""
        )
        with placement_watch.calling(self._actor_type):
            data = await self._sidecar.invoke_actor(self._actor_type, actor_id, self._name, body)
        return Reply.model_validate_json(data)

    async def _call_directly(self, actor: DomainActor[Any], request: BaseModel | None) -> Reply:
        """Call with copied messages, so that caller and actor share no object; cancelling the caller is ignored."""
        arguments = () if request is None else (type(request).model_validate(_plain(request)),)
        task: asyncio.Task[Reply] = self._in_flight.spawn(getattr(actor, self._name)(*arguments))
        async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
            reply = await asyncio.shield(task)
        return Reply.model_construct(ok=_plain(reply).get("ok"), error=reply.error)


def _plain(message: BaseModel) -> dict[str, Any]:
    """The message as its wire dict: a third of the cost of a deep copy."""
    return message.model_dump(by_alias=True, exclude_none=True)


class _Proxy:
    """Implements an actor interface by calls to one actor."""

    def __init__(self, calls: dict[str, _Call], actor_id: str) -> None:
        self._calls = calls
        self._actor_id = actor_id

    def __getattr__(self, name: str) -> Method:
        try:
            call = self._calls[name]
        except KeyError:
            raise AttributeError(name) from None

        async def invoke(request: BaseModel | None = None) -> Any:
            return await call(self._actor_id, request)

        return invoke


class Actors:
    """Returns typed proxies of actors; their errors are raised as `RpcError`."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._calls: dict[type[ActorInterface], dict[str, _Call]] = {}

    def get(self, interface: type[I], actor_id: str) -> I:
        """A proxy of the actor with this id."""
        if interface not in self._calls:
            self._calls[interface] = self._methods_of(interface)
        proxy: Any = _Proxy(self._calls[interface], actor_id)
        return proxy

    def _methods_of(self, interface: type[ActorInterface]) -> dict[str, _Call]:
        actor_type = interface.__name__.removesuffix("Interface")
        calls: dict[str, _Call] = {}
        for name, function in vars(interface).items():
            if name.startswith("_") or not callable(function):
                continue
            response = get_type_hints(function).get("return", type(None))
            calls[name] = _Call(self._sidecar, actor_type, name, response)
        return calls
