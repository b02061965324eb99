"""Actors: typed interfaces, the base class that hosts them, and the one way to call them."""

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar, Final, TypeVar, get_type_hints
from weakref import WeakValueDictionary

import structlog
from dapr.actor import Actor, ActorInterface, ActorRuntime, Remindable, actormethod
from dapr.actor.id import ActorId
from dapr.actor.runtime.config import ActorRuntimeConfig
from dapr.actor.runtime.context import ActorRuntimeContext
from dapr.clients.exceptions import DaprInternalError
from dapr.clients.grpc.dapr_actor_grpc_client import DaprActorGrpcClient
from dapr.ext.fastapi import DaprActor
from dapr.serializers import Serializer
from dapr.serializers.util import convert_to_dapr_duration
from fastapi import FastAPI
from grpc.aio import AioRpcError
from pydantic import BaseModel, TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from services.kit.dapr.active_actors import ActiveActors
from services.kit.dapr.placement_watch import hangs
from services.kit.dapr.sidecar import CALL_TIMEOUT_SECONDS, Sidecar, SidecarError, unavailable
from services.kit.dapr.state import StateConflict
from services.kit.dapr.state_rows import StateStoreError
from services.kit.errors import ErrorStatus, RpcError, internal_error
from services.kit.telemetry.tracing import span

__all__ = [
    "ActorId",
    "ActorInterface",
    "ActorRuntimeContext",
    "Actors",
    "DomainActor",
    "Remindable",
    "actormethod",
    "host_actors",
    "register_actor",
    "takes_no_turn",
]

I = TypeVar("I", bound=ActorInterface)  # noqa: E741 - an interface, by the language's own name
Method = Callable[..., Awaitable[Any]]
M = TypeVar("M", bound=Method)

NO_TURN: Final = "_takes_no_turn"
METHOD_PATH: Final = "/actors/{type}/{id}/method/{method}"
MAX_DECISIONS: Final = 5
"""How often one call decides again after another owner of the same actor wrote first."""
DRAIN: Final = timedelta(seconds=5)
"""How long a deactivation waits for calls that are under way, whether they came by the sidecar or in place."""

log = structlog.get_logger()


class Reply(BaseModel):
    """What travels back from an actor: a value or an error. Dapr turns exceptions into untyped 500s."""

    ok: Any = None
    error: ErrorStatus | None = None


class PydanticSerializer(Serializer):
    """Messages and state as Pydantic writes them; the SDK's default serializer rewrites text that looks like a date."""

    @override
    def serialize(self, obj: object, custom_hook: Any = None) -> bytes:
        """Bytes as they are, models by Pydantic, the rest as JSON with durations in Dapr's form."""
        if isinstance(obj, bytes):
            return obj
        if isinstance(obj, BaseModel):
            return obj.model_dump_json(by_alias=True, exclude_none=True).encode()
        return json.dumps(obj, default=_duration).encode()

    @override
    def deserialize(self, data: bytes, data_type: Any = object, custom_hook: Any = None) -> Any:
        """The model that a method declares, else plain JSON."""
        if isinstance(data_type, type) and issubclass(data_type, BaseModel):
            return data_type.model_validate_json(data)
        return json.loads(data) if data else None


def _duration(value: object) -> str:
    if isinstance(value, timedelta):
        return convert_to_dapr_duration(value)
    raise TypeError(type(value).__name__)


class DomainActor(Actor):
    """Base of every actor. It owns four promises.

    An `RpcError` travels back as a value; any exception discards what was cached; calls of one actor run one at
    a time in this process, whatever Dapr's lock did; and a method that lost a race to another owner decides
    again from what that owner wrote.
    """

    _locks: ClassVar[WeakValueDictionary[str, asyncio.Lock]] = WeakValueDictionary()
    _tasks: ClassVar[set[asyncio.Task[None]]] = set()

    def __init__(self, ctx: ActorRuntimeContext, actor_id: ActorId) -> None:
        super().__init__(ctx, actor_id)
        key = f"{type(self).__name__}/{actor_id.id}"
        self._lock = self._locks.setdefault(key, asyncio.Lock())
        self._background: asyncio.Task[None] | None = None

    @override
    async def _on_activate(self) -> None:
        _active.add(type(self).__name__, self.entity_id, self)

    @override
    async def _on_deactivate(self) -> None:
        _active.remove(type(self).__name__, self.entity_id)
        try:
            async with asyncio.timeout(DRAIN.total_seconds()), self._lock:
                pass  # whoever called in place has its turn before another host gets the actor
        except TimeoutError:
            log.warning("actor.drain_timed_out", actor=type(self).__name__)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _interface_methods(cls):
            method = cls.__dict__.get(name)
            if method is not None:
                setattr(cls, name, _guarded(method))

    @property
    def entity_id(self) -> str:
        """The id of the thing that this actor is."""
        return str(self.id.id)

    def forget(self) -> None:
        """Discard everything that was read; each actor forgets its states."""
        raise NotImplementedError

    async def remind(self, name: str, due: timedelta, period: timedelta) -> None:
        """Have `receive_reminder` called until `unremind`; one of this name is replaced.

        Raises:
            SidecarError: the scheduler, or the way to it, is away.
        """
        with _reaching_scheduler():
            await self.register_reminder(name, b"", due, period)

    async def unremind(self, name: str) -> None:
        """Have it called no more; SidecarError as for `remind`."""
        with _reaching_scheduler():
            await self.unregister_reminder(name)

    async def exclusively(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run `work` alone; after a lost race forget, and run it again."""
        async with self._lock:
            for _ in range(MAX_DECISIONS):
                try:
                    return await work()
                except StateConflict:
                    self.forget()
                except BaseException:
                    self.forget()
                    raise
        raise StateStoreError("another owner of the actor keeps writing")

    def in_background(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do what calls other actors or apps, after this turn and one at a time.

        A turn that waits for another actor keeps this one locked; if that one waits for this, both stand still.
        For the work of a reminder: it comes again where the work failed or the process died.
        """
        if self._background is None or self._background.done():
            self._background = asyncio.create_task(self._attempted(work))
            self._tasks.add(self._background)
            self._background.add_done_callback(self._tasks.discard)

    async def _attempted(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (RpcError, StateStoreError) as error:
            log.warning("actor.background_failed", actor=type(self).__name__, error=str(error))
        except Exception:
            log.exception("actor.background_failed", actor=type(self).__name__)


_active: Final[ActiveActors[DomainActor]] = ActiveActors()


@contextmanager
def _reaching_scheduler() -> Iterator[None]:
    try:
        yield
    except (AioRpcError, DaprInternalError) as error:  # daprd says INTERNAL also where it is away
        raise SidecarError(f"reminder: {type(error).__name__}") from error


def takes_no_turn(method: M) -> M:
    """Mark a method of an actor that takes its turn by itself, or needs none."""
    setattr(method, NO_TURN, True)
    return method


def _interface_methods(cls: type) -> list[str]:
    interfaces = [base for base in cls.__mro__ if ActorInterface in base.__bases__]
    return [
        n for i in interfaces for n in vars(i) if not n.startswith("_") and callable(vars(i)[n])
    ]


def _guarded(method: Method) -> Method:
    needs_turn = not hasattr(method, NO_TURN)

    @functools.wraps(method)
    async def guarded(self: DomainActor, *args: Any) -> Reply:
        try:
            if needs_turn:
                value = await self.exclusively(lambda: method(self, *args))
            else:
                value = await method(self, *args)
        except RpcError as error:
            return Reply(error=error.to_status())
        except StateStoreError as error:
            log.warning(
                "actor.unavailable",
                actor=type(self).__name__,
                method=method.__name__,
                error=str(error),
            )
            return Reply(error=unavailable(error).to_status())
        except Exception:
            log.exception("actor.failed", actor=type(self).__name__, method=method.__name__)
            return Reply(error=internal_error().to_status())
        return Reply(ok=value)

    return guarded


class _Call:
    """One method of an actor, ready to be called: in place where the actor is active here, else by the sidecar."""

    def __init__(
        self, sidecar: Sidecar, actor_type: str, name: str, wire_name: str, response: Any
    ) -> None:
        self._sidecar = sidecar
        self._actor_type = actor_type
        self._name = name
        self._wire_name = wire_name
        self._response = TypeAdapter(response) if response is not type(None) else None
        self._under_way: set[asyncio.Task[Reply]] = set()

    async def __call__(self, actor_id: str, request: BaseModel | None) -> Any:
        actor = _active.find(self._actor_type, actor_id)
        with span(f"{self._actor_type}.{self._wire_name}", local=actor is not None):
            try:
                if actor is not None:
                    reply = await self._in_place(actor, request)
                else:
                    reply = await self._by_sidecar(actor_id, request)
            except (SidecarError, TimeoutError) as error:
                log.warning(
                    "actor.unreachable",
                    actor=self._actor_type,
                    method=self._wire_name,
                    error=str(error),
                )
                raise unavailable(error) from error
        if reply.error is not None:
            raise RpcError.from_status(reply.error)
        return self._response.validate_python(reply.ok) if self._response else None

    async def _by_sidecar(self, actor_id: str, request: BaseModel | None) -> Reply:
        body = (
            request.model_dump_json(by_alias=True, exclude_none=True).encode() if request else b""
        )
        with hangs.calling(self._actor_type):
            data = await self._sidecar.invoke_actor(
                self._actor_type, actor_id, self._wire_name, body
            )
        return Reply.model_validate_json(data)

    async def _in_place(self, actor: DomainActor, request: BaseModel | None) -> Reply:
        """Caller and actor share no object, and a caller that leaves does not cut the method in half."""
        arguments = () if request is None else (type(request).model_validate(_plain(request)),)
        task: asyncio.Task[Reply] = asyncio.create_task(getattr(actor, self._name)(*arguments))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
            reply = await asyncio.shield(task)
        return Reply.model_construct(ok=_plain(reply).get("ok"), error=reply.error)


def _plain(message: BaseModel) -> dict[str, Any]:
    """What the wire would carry, without its JSON: a third of the cost of a deep copy."""
    return message.model_dump(by_alias=True, exclude_none=True)


class _Proxy:
    """Looks like the interface; each call goes to wherever the actor lives."""

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
    """Calls actors, those of this process in place, others by the sidecar; errors come back as `RpcError`."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._calls: dict[type[ActorInterface], dict[str, _Call]] = {}

    def get(self, interface: type[I], actor_id: str) -> I:
        """The actor with this id, seen by its interface."""
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
            wire_name = getattr(function, "__actormethod__", name)
            response = get_type_hints(function).get("return", type(None))
            calls[name] = _Call(self._sidecar, actor_type, name, wire_name, response)
        return calls


async def register_actor(
    actor: type[DomainActor],
    sidecar: Sidecar,
    factory: Callable[[ActorRuntimeContext, ActorId], DomainActor],
) -> None:
    """Host an actor type in this process; its own calls to the sidecar use the pooled connection."""
    serializer = PydanticSerializer()
    client = DaprActorGrpcClient(
        channel=sidecar.channel, message_serializer=serializer, state_serializer=serializer
    )
    await ActorRuntime.register_actor(
        actor, serializer, serializer, actor_factory=factory, actor_client=client
    )


def host_actors(app: FastAPI) -> None:
    """Add the routes by which the sidecar reaches this app's actors.

    Reentrancy stays off: with reminders it loses writes (dapr/dapr#10532).
    """
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
    """A route that says in the scope which it is, as FastAPI's do; telemetry names spans by it."""

    @override
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the route is meant, and what it adds to the scope."""
        match, found = super().matches(scope)
        return match, {**found, "route": self}


class _ActorMethods:
    """Calls of actor methods, in place of the SDK's route: half of all calls are these, and FastAPI doubles their cost."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the actor answer; what it refuses is in the answer."""
        named: dict[str, str] = scope["path_params"]
        body = await Request(scope, receive).body()
        _active.confirm(named["type"], named["id"])
        hangs.passed_on(named["type"])
        answer = await ActorRuntime.dispatch(named["type"], named["id"], named["method"], body)
        await Response(answer, media_type="application/json")(scope, receive, send)
