"""The platform object of an app: opens its stores and clients at startup, closes them in reverse at shutdown."""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from fastapi import FastAPI

from services.kit.background import background, every
from services.kit.clock import utc_now
from services.kit.dapr.client import RpcClient
from services.kit.dapr.workflows import WorkflowHost
from services.kit.http.dependencies import get_dependency, provide
from services.kit.http.draining import Draining
from services.kit.manifest import App
from services.kit.settings import PlatformSettings, load_settings
from services.platform.auth_client import AuthClient
from services.platform.workflow_client import WorkflowClient

if TYPE_CHECKING:  # imported when first used: together they take 40 MB
    from services.kit.access.authorization import AccessControl, DenialAudit
    from services.kit.access.cache import AccessSource
    from services.kit.access.limits import SlidingWindows
    from services.kit.dapr.actor_host import ActorFactory
    from services.kit.dapr.actors import Actors
    from services.kit.dapr.bindings import Bindings
    from services.kit.dapr.domain_actor import DomainActor
    from services.kit.dapr.jobs.jobs import Jobs
    from services.kit.dapr.pubsub.inbox import Inbox
    from services.kit.dapr.pubsub.outbox import Outbox
    from services.kit.dapr.pubsub.subscriptions import Subscriptions
    from services.kit.dapr.sidecar import Sidecar
    from services.kit.dapr.state_rows import StateStore
    from services.kit.eventlog import Engine
    from services.kit.storage.db import Database
    from services.kit.storage.objects import ObjectStore
    from services.kit.storage.wake_ups import WakeUps

T = TypeVar("T")

UNDELIVERED_CHECK_SECONDS: Final = 10.0


class Platform:
    """The building blocks of one app, configured by its manifest and settings; each is opened on first use."""

    def __init__(
        self, manifest: App, settings: PlatformSettings, app: FastAPI, stack: AsyncExitStack
    ) -> None:
        self._manifest = manifest
        self._settings = settings
        self._app = app
        self._stack = stack
        self._grace = timedelta(seconds=settings.drain_seconds)
        self._engine: Engine | None = None
        self._has_migrated = False
        self._sidecar: Sidecar | None = None
        self._jobs: Jobs | None = None
        self._bindings: Bindings | None = None
        self._subscriptions: Subscriptions | None = None
        self.inbox: Inbox | None = None
        """Of an app that subscribes to topics."""
        self.workflow_host = WorkflowHost()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, manifest: App, settings: PlatformSettings, app: FastAPI
    ) -> AsyncIterator[Self]:
        """Open the platform for the app's lifespan."""
        async with AsyncExitStack() as stack:
            yield cls(manifest, settings, app, stack)

    async def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enter a context that is exited when the platform closes."""
        return await self._stack.enter_async_context(context)

    def on_close(self, close: Callable[[], Awaitable[Any]]) -> None:
        """Register a callback for shutdown; callbacks run in reverse order."""
        self._stack.push_async_callback(close)

    async def every(self, seconds: float, work: Callable[[], Awaitable[Any]], name: str) -> None:
        """Run `work` periodically in the background; failures are logged."""
        await self.enter(background(every(seconds, work, name)))

    @property
    def draining(self) -> Draining:
        """The flag that the process is shutting down."""
        return get_dependency(self._app, Draining)

    def provide(self, *values: object) -> None:
        """Register dependencies of the routes, each under its own type."""
        provide(self._app, *values)

    async def begin(self) -> None:
        """Begin to accept workflow activities and durable work; call after everything is hosted."""
        await self.workflow_host.start()
        if self._manifest.publishes:
            await self._start_relay()
        if self._subscriptions is not None:
            take = functools.partial(self._subscriptions.take_undelivered, self._app)
            await self.every(UNDELIVERED_CHECK_SECONDS, take, "take undelivered events")
        if self._engine is not None:
            await self._engine.start()
        await self._begin_jobs()
        self.on_close(self._drain)

    @functools.cached_property
    def database(self) -> "Database":
        from services.kit.storage.db import Database

        database = Database(self._settings.database_url.get_secret_value())
        self.on_close(database.close)
        return database

    @functools.cached_property
    def objects(self) -> "ObjectStore":
        """The object store, for an app with `objects` among its components."""
        from services.kit.storage.objects import ObjectStore, ObjectStoreSettings

        objects = ObjectStore(load_settings(ObjectStoreSettings))
        self.on_close(objects.close)
        return objects

    @functools.cached_property
    def wake_ups(self) -> "WakeUps":
        """Wake-ups across processes, over Valkey."""
        from services.kit.storage.wake_ups import WakeUps

        wake_ups = WakeUps(self._settings.valkey_url.get_secret_value())
        wake_ups.start()
        self.on_close(wake_ups.close)
        return wake_ups

    @functools.cached_property
    def windows(self) -> "SlidingWindows":
        """Rate-limit counters shared by all replicas."""
        from services.kit.access.limits import SlidingWindows

        windows = SlidingWindows(self._settings.valkey_url.get_secret_value())
        self.on_close(windows.close)
        return windows

    async def open_engine(self) -> "Engine":
        """Open the engine of durable work on the event log."""
        from services.kit.eventlog import Engine, EventLog, HostLease

        await self.migrate_events()
        lease = HostLease(self._settings.database_url.get_secret_value())
        await lease.start()
        self.on_close(lease.close)
        events = EventLog(self.database, self.wake_ups, lease.host_id)
        self._engine = Engine(self.database, events, self.wake_ups, lease)
        return self._engine

    @functools.cached_property
    def client(self) -> RpcClient:
        """Client of other apps' RPCs."""
        client = RpcClient()
        self.on_close(client.close)
        return client

    @functools.cached_property
    def auth(self) -> AuthClient:
        """Client of auth: access checks, audit, charges."""
        return AuthClient(self.client)

    @functools.cached_property
    def workflows(self) -> WorkflowClient:
        """Client that starts workflows."""
        return WorkflowClient(self.client)

    async def control_access(
        self, source: "AccessSource | None" = None, denials: "DenialAudit | None" = None
    ) -> "AccessControl":
        """Provide access control to the routes; by default auth answers checks and records denials."""
        from services.kit.access.authorization import AccessControl
        from services.kit.access.cache import AccessCache
        from services.kit.access.limits import RateLimiter

        denials = denials or self.auth
        self.on_close(denials.close)
        cache = AccessCache(source or self.auth)
        limiter = RateLimiter(
            self.windows,
            name=self._manifest.id,
            limit=self._settings.user_rate,
            window=timedelta(minutes=1),
        )
        control = AccessControl(cache, limiter, denials)
        self.provide(control)
        following = asyncio.create_task(cache.follow_feed(self.wake_ups), name="access feed")
        await self.enter(background(following))
        return control

    async def migrate_events(self) -> None:
        """Bring kit's schema to its newest revision, once: event log, outbox, inbox, jobs."""
        from services.kit.eventlog import migrate_event_log

        if not self._has_migrated:
            await migrate_event_log(self.database)
            self._has_migrated = True

    @functools.cached_property
    def outbox(self) -> "Outbox":
        """The outbox of the topics that the manifest publishes."""
        from services.kit.dapr.pubsub.outbox import Outbox

        return Outbox(self._manifest.publishes)

    async def open_subscriptions(self, subscriptions: "Subscriptions") -> None:
        """Provide the inbox and the dead letters to the routes of subscriptions."""
        from services.kit.dapr.pubsub.dead_letters import DeadLetters
        from services.kit.dapr.pubsub.inbox import Inbox

        await self.migrate_events()
        self.inbox = Inbox(self._manifest.id, self.database, utc_now)
        await self.inbox.subscribe(self._manifest.subscribes)
        self.provide(self.inbox, DeadLetters(self._manifest.id, self.database, subscriptions))
        self._subscriptions = subscriptions

    async def open_jobs(self) -> "Jobs":
        """Open the jobs of the manifest, to add their handlers and to schedule those of one time."""
        from services.kit.dapr.jobs.jobs import Jobs
        from services.kit.dapr.jobs.scheduler import Scheduler

        if self._jobs is None:
            await self.migrate_events()
            scheduler = Scheduler(await self.open_sidecar())
            self._jobs = Jobs(self._manifest.id, self._manifest.jobs, self.database, scheduler)
            self.provide(self._jobs)
        return self._jobs

    async def open_bindings(self) -> "Bindings":
        """Open the bindings of the manifest, to call them and to add the handlers of their messages."""
        from services.kit.dapr.bindings import Bindings

        if self._bindings is None:
            await self.migrate_events()
            sidecar = await self.open_sidecar()
            bindings = self._manifest.bindings
            self._bindings = Bindings(self._manifest.id, bindings, self.database, sidecar)
            self.provide(self._bindings)
        return self._bindings

    async def open_sidecar(self) -> "Sidecar":
        """Open the connection to the sidecar, and watch it for stuck actor types."""
        from services.kit.dapr.placement_watch import open_sidecar

        if self._sidecar is None:
            self._sidecar = await self.enter(open_sidecar())
        return self._sidecar

    async def open_actors(self) -> "Actors":
        """Open the client of actors."""
        from services.kit.dapr.actors import Actors

        return Actors(await self.open_sidecar())

    @functools.cached_property
    def state(self) -> "StateStore":
        """The state store of this app's actors; requires `open_actors`."""
        from services.kit.dapr.state_store import state_store

        assert self._sidecar is not None
        outbox = self.outbox if self._manifest.publishes else None
        return state_store(self._settings, self._manifest.id, self._sidecar, self.database, outbox)

    async def host_actor(self, actor: "type[DomainActor[Any]]", factory: "ActorFactory") -> None:
        """Host an actor type; requires `open_actors`."""
        from services.kit.dapr.actor_host import register_actor

        await register_actor(actor, await self.open_sidecar(), self.state, factory)

    async def _start_relay(self) -> None:
        from services.kit.dapr.pubsub.relay import Relay

        await self.migrate_events()
        sidecar = await self.open_sidecar()
        state = self.state if self._manifest.actors else None
        topics, database = self._manifest.publishes, self.database
        relay = Relay(self._manifest.id, topics, self.outbox, database, sidecar, state)
        self.on_close(relay.close)
        await self.enter(relay.running())

    async def _begin_jobs(self) -> None:
        """Require that every job and input binding has a handler, and register the jobs."""
        if self._manifest.bindings:
            (await self.open_bindings()).require_handlers()
        if self._manifest.jobs:
            jobs = await self.open_jobs()
            jobs.require_handlers()
            registering = asyncio.create_task(jobs.keep_registered(), name="jobs registration")
            await self.enter(background(registering))

    async def _drain(self) -> None:
        """Stop both concurrently: one after the other, the engine would recover work that the workflow host released."""
        engine = self._engine
        closing = [engine.close(self._grace)] if engine else []
        await asyncio.gather(self.workflow_host.stop(self._grace), *closing)
