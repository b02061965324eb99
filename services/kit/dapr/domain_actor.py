"""Base class of actors: serialized calls, errors as values, durable state."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Final, Generic, TypeVar, get_args
from weakref import WeakValueDictionary

import structlog
from dapr.actor import Actor, ActorInterface, Remindable
from dapr.actor.id import ActorId
from dapr.actor.runtime.context import ActorRuntimeContext
from dapr.clients.exceptions import DaprInternalError
from grpc.aio import AioRpcError
from pydantic import BaseModel
from typing_extensions import override

from services.kit.background import TaskSet
from services.kit.dapr.active_actors import ActiveActors
from services.kit.dapr.sidecar import SidecarError
from services.kit.dapr.state import DurableState, StateConflict, first_head, read_heads
from services.kit.dapr.state_rows import StateStore, StateStoreError, StateWrite
from services.kit.errors import ErrorStatus, RpcError, internal_error, unavailable

__all__ = [
    "ActorContext",
    "ActorInterface",
    "DomainActor",
    "Remindable",
    "Reply",
    "active_actors",
    "without_lock",
]

S = TypeVar("S", bound=BaseModel)
A = TypeVar("A", bound="DomainActor[Any]")
Method = Callable[..., Awaitable[Any]]
M = TypeVar("M", bound=Method)

WITHOUT_LOCK: Final = "_takes_no_turn"
MAX_ATTEMPTS: Final = 5
"""How often a call is repeated after state conflicts with another owner of the actor."""
DRAIN: Final = timedelta(seconds=5)
"""How long a deactivation waits for calls in flight."""

log = structlog.get_logger()


class Reply(BaseModel):
    """The response of an actor method: a value or an error. Dapr turns exceptions into untyped 500s."""

    ok: Any = None
    error: ErrorStatus | None = None


@dataclass(frozen=True, slots=True)
class ActorContext:
    """Constructor arguments of an actor."""

    runtime: ActorRuntimeContext
    actor_id: ActorId
    store: StateStore


class DomainActor(Actor, Generic[S]):
    """Base class of actors, with durable state `S`.

    An `RpcError` is returned as a value. Any exception discards cached state. Calls of one actor are serialized in this
    process, also after Dapr activated it twice. After a state conflict with another owner, the method runs again on
    the new state.
    """

    _state_type: ClassVar[type[BaseModel]]

    _locks: ClassVar[WeakValueDictionary[str, asyncio.Lock]] = WeakValueDictionary()
    _tasks: ClassVar[TaskSet] = TaskSet()

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context.runtime, context.actor_id)
        prefix = self._prefix(self.entity_id)
        state_type: type[S] = self._state_type  # type: ignore[assignment]
        self.state = DurableState(context.store, prefix, state_type)
        self._lock = self._locks.setdefault(prefix, asyncio.Lock())
        self._background: asyncio.Task[None] | None = None

    @override
    async def _on_activate(self) -> None:
        active_actors.add(type(self).__name__, self.entity_id, self)

    @override
    async def _on_deactivate(self) -> None:
        active_actors.remove(type(self).__name__, self.entity_id)
        try:
            async with asyncio.timeout(DRAIN.total_seconds()), self._lock:
                pass  # direct calls in flight end before another host activates the actor
        except TimeoutError:
            log.warning("actor.drain_timed_out", actor=type(self).__name__)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in getattr(cls, "__orig_bases__", ()):
            if getattr(base, "__origin__", None) is DomainActor:
                [cls._state_type] = get_args(base)
        for name in _interface_methods(cls):
            method = cls.__dict__.get(name)
            if method is None:
                raise TypeError(f"{cls.__name__} does not implement {name}")
            setattr(cls, name, _guarded(method))

    @property
    def entity_id(self) -> str:
        return str(self.id.id)

    @classmethod
    async def read_states(cls, store: StateStore, ids: Sequence[str]) -> list[S | None]:
        """The committed states of several actors, read without activating them."""
        state_type: type[S] = cls._state_type  # type: ignore[assignment]
        return await read_heads(store, [cls._prefix(each) for each in ids], state_type)

    @classmethod
    def creation_write(cls, entity_id: str, state: S) -> StateWrite:
        """The write that creates an actor's state in another actor's transaction; it fails if the state exists."""
        return first_head(cls._prefix(entity_id), state)

    def forget(self) -> None:
        """Discard cached state; subclasses with more caches extend this."""
        self.state.forget()

    async def on_reminder(self, name: str) -> None:
        """Handle a due reminder; it repeats until `clear_reminder`."""
        raise NotImplementedError

    async def receive_reminder(
        self,
        name: str,
        state: bytes,
        due_time: timedelta,
        period: timedelta | None = None,
        ttl: timedelta | None = None,
    ) -> None:
        """Dapr's callback, passed to `on_reminder`."""
        del state, due_time, period, ttl
        await self.on_reminder(name)

    async def set_reminder(self, name: str, due: timedelta, period: timedelta) -> None:
        """Call `on_reminder` periodically until `clear_reminder`; replaces a reminder of this name.

        Raises:
            SidecarError: the sidecar or the scheduler is unavailable.
        """
        with _scheduler_errors():
            await self.register_reminder(name, b"", due, period)

    async def clear_reminder(self, name: str) -> None:
        """Remove a reminder; raises as `set_reminder`."""
        with _scheduler_errors():
            await self.unregister_reminder(name)

    async def run_exclusively(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run `work` under the actor's lock; after a state conflict, discard cached state and repeat it."""
        async with self._lock:
            for _ in range(MAX_ATTEMPTS):
                try:
                    return await work()
                except StateConflict:
                    self.forget()
                except BaseException:
                    self.forget()
                    raise
        raise StateStoreError("another owner of the actor keeps writing")

    @classmethod
    def _prefix(cls, entity_id: str) -> str:
        return f"{cls.__name__}/{entity_id}"

    def in_background(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` without the actor's lock, unless an earlier one still runs.

        For calls to other actors or apps: under the lock, two actors that call each other would deadlock. A reminder
        must repeat `work`, which is lost if it fails or the process dies.
        """
        if self._background is None or self._background.done():
            self._background = self._tasks.spawn(self._run_or_log(work))

    async def _run_or_log(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (RpcError, StateStoreError) as error:
            log.warning("actor.background_failed", actor=type(self).__name__, error=str(error))
        except Exception:
            log.exception("actor.background_failed", actor=type(self).__name__)


active_actors: Final[ActiveActors[DomainActor[Any]]] = ActiveActors()
"""The active actors of this process."""


@contextmanager
def _scheduler_errors() -> Iterator[None]:
    try:
        yield
    except (
        AioRpcError,
        DaprInternalError,
    ) as error:  # daprd answers INTERNAL when the scheduler is down
        raise SidecarError(f"reminder: {type(error).__name__}") from error


def without_lock(method: M) -> M:
    """Mark an actor method that is called without the actor's lock."""
    setattr(method, WITHOUT_LOCK, True)
    return method


def _interface_methods(cls: type) -> list[str]:
    interfaces = [base for base in cls.__mro__ if ActorInterface in base.__bases__]
    return [
        n for i in interfaces for n in vars(i) if not n.startswith("_") and callable(vars(i)[n])
    ]


def _guarded(method: Method) -> Method:
    needs_lock = not hasattr(method, WITHOUT_LOCK)

    @functools.wraps(method)
    async def guarded(self: DomainActor[Any], *args: Any) -> Reply:
        try:
            if needs_lock:
                value = await self.run_exclusively(lambda: method(self, *args))
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
            return Reply(error=unavailable().to_status())
        except Exception:
            log.exception("actor.failed", actor=type(self).__name__, method=method.__name__)
            return Reply(error=internal_error().to_status())
        return Reply(ok=value)

    return guarded
