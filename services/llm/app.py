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
from services.contracts.turns import RUN_TURN
from services.kit.actors import ActorId, ActorRuntimeContext, Actors, host_actors, register_actor
from services.kit.app import background, create_service, every
from services.kit.authorization import Decisions
from services.kit.clock import utc_now
from services.kit.db import Database
from services.kit.eventlog import EventLog, migrate_event_log
from services.kit.guard import open_guard
from services.kit.idempotency import IdempotencyRecords
from services.kit.limits import SlidingWindows
from services.kit.rpc import RECORDS_STATE
from services.kit.rpc_client import RpcClient
from services.kit.settings import load_settings
from services.kit.sidecar import Sidecar
from services.kit.signals import Signals
from services.kit.workflows import WorkflowHost
from services.llm.activities import TurnRunner, TurnSweep, UserErasure
from services.llm.actors import ConversationActor, ConversationManagerActor, read_conversations
from services.llm.adapters.dapr import LoggedTurnStreams, WorkflowTurns
from services.llm.adapters.openrouter import open_language_model
from services.llm.rpc import Resources, provide, rpc
from services.llm.settings import LlmSettings

PURGE_SECONDS: Final = 3600.0


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
    sidecar = Sidecar()
    stack.push_async_callback(sidecar.close)
    model = await stack.enter_async_context(open_language_model(settings))
    client = RpcClient()
    stack.push_async_callback(client.close)
    access = Access(client)
    actors, events, workflows = Actors(sidecar), EventLog(database, signals), WorkflowTurns(client)
    decisions = await _open_guard(app, stack, settings, signals, access)
    runner = TurnRunner(
        actors=actors,
        events=events,
        signals=signals,
        model=model,
        workflows=workflows,
        charges=access,
        clock=utc_now,
        max_output_tokens=settings.max_output_tokens,
    )
    sweep = TurnSweep(
        actors=actors,
        events=events,
        workflows=workflows,
        charges=access,
        idle=timedelta(seconds=settings.idle_seconds),
    )
    records = IdempotencyRecords(database)
    setattr(app.state, RECORDS_STATE, records)
    resources = Resources(
        actors=actors,
        events=events,
        model=model,
        default_model=settings.default_model,
        workflows=workflows,
        work=runner,
        ownership=access,
        decisions=decisions,
        read_conversations=functools.partial(read_conversations, sidecar),
        is_draining=lambda: app.state.draining,
    )
    provide(app, resources)
    kept = timedelta(seconds=settings.kept_seconds)
    await _host_actors(sidecar, actors, events, workflows, access, kept)
    erasure = UserErasure(actors, events, workflows, records)
    await _host_activities(stack, runner, erasure, timedelta(seconds=settings.drain_seconds))
    await stack.enter_async_context(
        background(every(settings.sweep_seconds, sweep.run, "turn sweep"))
    )
    await stack.enter_async_context(
        background(every(PURGE_SECONDS, records.purge, "purge idempotency"))
    )


async def _open_guard(
    app: FastAPI, stack: AsyncExitStack, settings: LlmSettings, signals: Signals, access: Access
) -> Decisions:
    windows = SlidingWindows(settings.valkey_url.get_secret_value())
    stack.push_async_callback(windows.close)
    return await open_guard(
        app,
        stack,
        settings,
        name="llm",
        judge=access,
        denials=access,
        signals=signals,
        windows=windows,
    )


async def _host_actors(
    sidecar: Sidecar,
    actors: Actors,
    events: EventLog,
    workflows: WorkflowTurns,
    access: Access,
    kept: timedelta,
) -> None:
    streams = LoggedTurnStreams(events, workflows, kept)

    def conversation(ctx: ActorRuntimeContext, actor_id: ActorId) -> ConversationActor:
        return ConversationActor(ctx, actor_id, sidecar, actors, streams, access, utc_now)

    def manager(ctx: ActorRuntimeContext, actor_id: ActorId) -> ConversationManagerActor:
        return ConversationManagerActor(ctx, actor_id, sidecar, actors, access, utc_now)

    await register_actor(ConversationActor, sidecar, conversation)
    await register_actor(ConversationManagerActor, sidecar, manager)


async def _host_activities(
    stack: AsyncExitStack, runner: TurnRunner, erasure: UserErasure, drain: timedelta
) -> None:
    host = WorkflowHost()
    host.add_activity(RUN_TURN, runner.run)
    host.add_activity(eraser_of("llm"), erasure.run)
    await host.start()
    stack.push_async_callback(_drain, host, runner, drain)


async def _drain(host: WorkflowHost, runner: TurnRunner, drain: timedelta) -> None:
    """Both at once: one after the other they take twice as long, and the second takes over what the first gave up."""
    await asyncio.gather(host.stop(drain), runner.drain(drain))
