"""The base of every actor: one call at a time, errors as values, its own durable state."""

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

from services.kit.dapr.active_actors import ActiveActors
from services.kit.dapr.sidecar import SidecarError, unavailable
from services.kit.dapr.state import DurableState, StateConflict, first_head, read_heads
from services.kit.dapr.state_rows import StateStore, StateStoreError, StateWrite
from services.kit.errors import ErrorStatus, RpcError, internal_error

__all__ = [
    "ActorContext",
    "ActorInterface",
    "DomainActor",
    "Remindable",
    "Reply",
    "active_actors",
    "takes_no_turn",
]

S = TypeVar("S", bound=BaseModel)
A = TypeVar("A", bound="DomainActor[Any]")
Method = Callable[..., Awaitable[Any]]
M = TypeVar("M", bound=Method)

NO_TURN: Final = "_takes_no_turn"
MAX_DECISIONS: Final = 5
"""How often one call decides again after another owner of the same actor wrote first."""
DRAIN: Final = timedelta(seconds=5)
"""How long a deactivation waits for calls that are under way, whether they came by the sidecar or in place."""

log = structlog.get_logger()


class Reply(BaseModel):
    """What travels back from an actor: a value or an error. Dapr turns exceptions into untyped 500s."""

    ok: Any = None
    error: ErrorStatus | None = None


@dataclass(frozen=True, slots=True)
class ActorContext:
    """What Dapr and the app hand to an actor that is activated."""

    runtime: ActorRuntimeContext
    actor_id: ActorId
    store: StateStore


class DomainActor(Actor, Generic[S]):
    """Base of every actor, with its durable state `S`. It owns four promises.

    An `RpcError` travels back as a value; any exception discards what was cached; calls of one actor run one at
    a time in this process, whatever Dapr's lock did; and a method that lost a race to another owner decides
    again from what that owner wrote.
    """

    _state_type: ClassVar[type[BaseModel]]

    _locks: ClassVar[WeakValueDictionary[str, asyncio.Lock]] = WeakValueDictionary()
    _tasks: ClassVar[set[asyncio.Task[None]]] = set()

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
                pass  # whoever called in place has its turn before another host gets the actor
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
        """The id of the thing that this actor is."""
        return str(self.id.id)

    @classmethod
    async def read_states(cls, store: StateStore, ids: Sequence[str]) -> list[S | None]:
        """The committed states of several actors, read without waking them."""
        state_type: type[S] = cls._state_type  # type: ignore[assignment]
        return await read_heads(store, [cls._prefix(each) for each in ids], state_type)

    @classmethod
    def creation(cls, entity_id: str, state: S) -> StateWrite:
        """What makes an actor exist that never did, in the transaction of another; refused where it exists."""
        return first_head(cls._prefix(entity_id), state)

    def forget(self) -> None:
        """Discard everything that was read; an actor that keeps more than its state adds to this."""
        self.state.forget()

    async def on_reminder(self, name: str) -> None:
        """A reminder of this name is due; it comes again until `unremind`."""
        raise NotImplementedError

    async def receive_reminder(
        self,
        name: str,
        state: bytes,
        due_time: timedelta,
        period: timedelta | None = None,
        ttl: timedelta | None = None,
    ) -> None:
        """Dapr's form of `on_reminder`."""
        del state, due_time, period, ttl
        await self.on_reminder(name)

    async def remind(self, name: str, due: timedelta, period: timedelta) -> None:
        """Have `on_reminder` called until `unremind`; one of this name is replaced.

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

    @classmethod
    def _prefix(cls, entity_id: str) -> str:
        return f"{cls.__name__}/{entity_id}"

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


active_actors: Final[ActiveActors[DomainActor[Any]]] = ActiveActors()
"""Those of this process."""


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
    async def guarded(self: DomainActor[Any], *args: Any) -> Reply:
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
