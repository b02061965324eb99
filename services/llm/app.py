"""Composition root of the llm app."""

import asyncio
import functools
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Final

from fastapi import FastAPI

from services.contracts.access import Access
from services.contracts.accounts import eraser_of
from services.contracts.openapi import app_document
from services.contracts.turns import RUN_TURN, TURN_STREAM
from services.kit.access.cache import AccessCache
from services.kit.access.control import open_guard
from services.kit.access.limits import SlidingWindows
from services.kit.background import background, every
from services.kit.clock import utc_now
from services.kit.dapr.actors import (
    ActorId,
    ActorRuntimeContext,
    Actors,
    host_actors,
    register_actor,
)
from services.kit.dapr.client import RpcClient
from services.kit.dapr.placement_watch import open_sidecar
from services.kit.dapr.sidecar import Sidecar
from services.kit.dapr.state_rows import StateStore
from services.kit.dapr.state_store import state_store
from services.kit.dapr.workflows import WorkflowHost
from services.kit.eventlog import (
    ROWS_PER_BATCH,
    Engine,
    EventLog,
    HostLease,
    Purge,
    Retention,
    migrate_event_log,
)
from services.kit.http.app import create_service
from services.kit.http.idempotency import IdempotencyRecords
from services.kit.http.rpc import RECORDS_STATE
from services.kit.settings import load_settings
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import Signals
from services.llm.activities import UserErasure
from services.llm.actors import ConversationActor, ConversationManagerActor, read_conversations
from services.llm.adapters.dapr import LoggedTurnStreams, WorkflowTurns
from services.llm.adapters.openrouter import open_language_model
from services.llm.adapters.tokenizer import BpeTokenCounter
from services.llm.rpc import Resources, provide, rpc
from services.llm.settings import LlmSettings
from services.llm.turns import TurnRunner, TurnService, UsageMeter

PURGE_SECONDS: Final = 60.0


def create_app() -> FastAPI:
    """The llm app, configured by the environment."""
    settings = load_settings(LlmSettings)

    async def lifespan(app: FastAPI, stack: AsyncExitStack) -> None:
        await _open(app, stack, settings)

    app = create_service(
        "llm",
        settings,
        routers=[rpc],
        lifespan=lifespan,
        document=lambda: app_document("llm"),
    )
    host_actors(app)
    return app


async def _open(app: FastAPI, stack: AsyncExitStack, settings: LlmSettings) -> None:
    database = Database(settings.database_url.get_secret_value())
    stack.push_async_callback(database.close)
    await migrate_event_log(database)
    signals = Signals(settings.valkey_url.get_secret_value())
    await signals.start()
    stack.push_async_callback(signals.close)
    sidecar = await stack.enter_async_context(open_sidecar())
    store = state_store(settings, "llm", sidecar, database)
    model = await stack.enter_async_context(open_language_model(settings))
    client = RpcClient()
    stack.push_async_callback(client.close)
    access = Access(client)
    actors, workflows = Actors(sidecar), WorkflowTurns(client)
    lease = HostLease(settings.database_url.get_secret_value())
    await lease.start()
    stack.push_async_callback(lease.close)
    events = EventLog(database, signals, lease.host_id)
    engine = Engine(database, events, signals, lease)
    cache = await _open_guard(app, stack, settings, signals, access)
    runner = TurnRunner(
        engine=engine,
        actors=actors,
        model=model,
        workflows=workflows,
        charges=access,
        usage=UsageMeter(events, BpeTokenCounter()),
        clock=utc_now,
        max_output_tokens=settings.max_output_tokens,
    )
    engine.host(runner)
    turns = TurnService(
        actors=actors,
        events=events,
        runner=runner,
        model=model,
        default_model=settings.default_model,
    )
    records = IdempotencyRecords(database)
    setattr(app.state, RECORDS_STATE, records)
    resources = Resources(
        actors=actors,
        events=events,
        turns=turns,
        model=model,
        ownership=access,
        access=cache,
        read_conversations=functools.partial(read_conversations, store),
        draining=app.state.draining,
    )
    provide(app, resources)
    kept = timedelta(seconds=settings.kept_seconds)
    await _host_actors(sidecar, store, actors, events, workflows, access, kept)
    erasure = UserErasure(actors, events, workflows, records)
    await _host_activities(
        stack, engine, runner, erasure, timedelta(seconds=settings.drain_seconds)
    )
    await stack.enter_async_context(
        background(every(PURGE_SECONDS, _purge(database, records, settings).run, "purge"))
    )


def _purge(database: Database, records: IdempotencyRecords, settings: LlmSettings) -> Purge:
    turns = Retention(
        TURN_STREAM,
        events=timedelta(hours=settings.events_hours),
        ending=timedelta(hours=settings.ending_hours),
    )
    return Purge(database, [turns], [functools.partial(records.purge, ROWS_PER_BATCH)])


async def _open_guard(
    app: FastAPI, stack: AsyncExitStack, settings: LlmSettings, signals: Signals, access: Access
) -> AccessCache:
    windows = SlidingWindows(settings.valkey_url.get_secret_value())
    stack.push_async_callback(windows.close)
    return await open_guard(
        app,
        stack,
        settings,
        name="llm",
        source=access,
        denials=access,
        signals=signals,
        windows=windows,
    )


async def _host_actors(
    sidecar: Sidecar,
    store: StateStore,
    actors: Actors,
    events: EventLog,
    workflows: WorkflowTurns,
    access: Access,
    kept: timedelta,
) -> None:
    streams = LoggedTurnStreams(events, workflows, kept)

    def conversation(ctx: ActorRuntimeContext, actor_id: ActorId) -> ConversationActor:
        return ConversationActor(ctx, actor_id, store, actors, streams, access, utc_now)

    def manager(ctx: ActorRuntimeContext, actor_id: ActorId) -> ConversationManagerActor:
        return ConversationManagerActor(ctx, actor_id, store, actors, access, utc_now)

    await register_actor(ConversationActor, sidecar, conversation)
    await register_actor(ConversationManagerActor, sidecar, manager)


async def _host_activities(
    stack: AsyncExitStack,
    engine: Engine,
    runner: TurnRunner,
    erasure: UserErasure,
    drain: timedelta,
) -> None:
    host = WorkflowHost()
    host.add_activity(RUN_TURN, runner.run_turn)
    host.add_activity(eraser_of("llm"), erasure.run)
    await host.start()
    await engine.start()
    stack.push_async_callback(_drain, host, engine, drain)


async def _drain(host: WorkflowHost, engine: Engine, drain: timedelta) -> None:
    """Both at once: one after the other they take twice as long, and the second takes over what the first gave up."""
    await asyncio.gather(host.stop(drain), engine.close(drain))
