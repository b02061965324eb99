"""Hosts actor types: registers them with the SDK, and adds the routes that the sidecar calls."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from dapr.actor import ActorRuntime
from dapr.actor.id import ActorId
from dapr.actor.runtime.config import ActorRuntimeConfig
from dapr.actor.runtime.context import ActorRuntimeContext
from dapr.clients.grpc.dapr_actor_grpc_client import DaprActorGrpcClient
from dapr.ext.fastapi import DaprActor
from dapr.serializers import Serializer
from dapr.serializers.util import convert_to_dapr_duration
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from services.kit.dapr.domain_actor import DRAIN, ActorContext, DomainActor, active_actors
from services.kit.dapr.placement_watch import placement_watch
from services.kit.dapr.sidecar import Sidecar
from services.kit.dapr.state_rows import StateStore

METHOD_PATH: Final = "/actors/{type}/{id}/method/{method}"

ActorFactory = Callable[[ActorContext], DomainActor[Any]]


class PydanticSerializer(Serializer):
    """Serializes by Pydantic; the SDK's default serializer rewrites text that looks like a date."""

    @override
    def serialize(self, obj: object, custom_hook: Any = None) -> bytes:
        """Bytes unchanged, Pydantic objects by Pydantic, other values as JSON with durations in Dapr's format."""
        if isinstance(obj, bytes):
            return obj
        if isinstance(obj, BaseModel):
            return obj.model_dump_json(by_alias=True, exclude_none=True).encode()
        return json.dumps(obj, default=_duration).encode()

    @override
    def deserialize(self, data: bytes, data_type: Any = object, custom_hook: Any = None) -> Any:
        """An object of the Pydantic class that the method declares, else plain JSON."""
        if isinstance(data_type, type) and issubclass(data_type, BaseModel):
            return data_type.model_validate_json(data)
        return json.loads(data) if data else None


def _duration(value: object) -> str:
    if isinstance(value, timedelta):
        return convert_to_dapr_duration(value)
    raise TypeError(type(value).__name__)


async def register_actor(
    actor: type[DomainActor[Any]], sidecar: Sidecar, store: StateStore, factory: ActorFactory
) -> None:
    """Host an actor type in this process; its calls to the sidecar use the pooled channel."""

    def activate(runtime: ActorRuntimeContext, actor_id: ActorId) -> DomainActor[Any]:
        return factory(ActorContext(runtime, actor_id, store))

    serializer = PydanticSerializer()
    client = DaprActorGrpcClient(
        channel=sidecar.channel, message_serializer=serializer, state_serializer=serializer
    )
    await ActorRuntime.register_actor(
        actor, serializer, serializer, actor_factory=activate, actor_client=client
    )


def host_actors(app: FastAPI) -> None:
    """Add the routes by which the sidecar calls actors. Reentrancy stays off: it loses writes (dapr/dapr#10532)."""
    ActorRuntime.set_actor_config(
        ActorRuntimeConfig(
            actor_idle_timeout=timedelta(minutes=10),
            actor_scan_interval=timedelta(seconds=30),
            drain_ongoing_call_timeout=DRAIN,
            drain_rebalanced_actors=True,
        )
    )
    app.router.routes.append(_MethodRoute(METHOD_PATH, _ActorMethods(), methods=["PUT"]))
    DaprActor(app)


class _MethodRoute(Route):
    """A route that adds itself to the scope, as FastAPI's do; telemetry names spans by it."""

    @override
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As Starlette's, with the route in the scope."""
        match, found = super().matches(scope)
        return match, {**found, "route": self}


class _ActorMethods:
    """Replaces the SDK's route of actor methods, whose FastAPI handler doubles the cost of a call."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatch a method call; the response is the actor's `Reply`."""
        params: dict[str, str] = scope["path_params"]
        body = await Request(scope, receive).body()
        active_actors.confirm(params["type"], params["id"])
        placement_watch.delivered(params["type"])
        reply = await ActorRuntime.dispatch(params["type"], params["id"], params["method"], body)
        await Response(reply, media_type="application/json")(scope, receive, send)
