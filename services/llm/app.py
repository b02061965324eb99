"""Composition root of the llm app."""

import functools
from datetime import timedelta

from fastapi import FastAPI

from services.contracts.erasure import eraser_of
from services.contracts.llm.app import APP
from services.contracts.llm.jobs import PURGE
from services.contracts.llm.turns import RUN_TURN, TURN_STREAM
from services.kit.clock import utc_now
from services.kit.eventlog import ROWS_PER_BATCH, Purge, Retention
from services.kit.http.idempotency import IdempotencyRecords
from services.kit.settings import load_settings
from services.llm.actors import ConversationActor, ConversationManagerActor
from services.llm.adapters.eventlog import EventLogTurnStreams
from services.llm.adapters.openrouter import open_language_model
from services.llm.adapters.tokenizer import BpeTokenCounter
from services.llm.rpc import rpc
from services.llm.service import ConversationService, UserErasure
from services.llm.settings import LlmSettings
from services.llm.turns import TurnEvents, TurnRecovery, TurnRunner, TurnService, UsageMeter
from services.platform import Platform, platform_app


def create_app() -> FastAPI:
    settings = load_settings(LlmSettings)
    compose = functools.partial(_compose, settings)
    return platform_app(APP, settings, routers=[rpc], compose=compose)


async def _compose(settings: LlmSettings, platform: Platform) -> None:
    auth, workflows = platform.auth, platform.workflows
    actors = await platform.open_actors()
    engine = await platform.open_engine()
    records = IdempotencyRecords(platform.database)
    access = await platform.control_access()
    model = await platform.enter(open_language_model(settings))
    runner = TurnRunner(
        engine=engine,
        actors=actors,
        model=model,
        workflows=workflows,
        usage=UsageMeter(engine.log, BpeTokenCounter()),
        clock=utc_now,
        max_output_tokens=settings.max_output_tokens,
    )
    recovery = TurnRecovery(
        engine=engine, actors=actors, runner=runner, charges=auth, clock=utc_now
    )
    events = TurnEvents(
        actors=actors, log=engine.log, access=access.cache, draining=platform.draining
    )
    turns = TurnService(
        actors=actors,
        engine=engine,
        runner=runner,
        recovery=recovery,
        events=events,
        model=model,
        default_model=settings.default_model,
        clock=utc_now,
    )
    conversations = ConversationService(
        actors=actors, state=platform.state, events=engine.log, model=model, ownership=auth
    )
    platform.provide(records, conversations, turns, events)

    kept = timedelta(seconds=settings.kept_seconds)
    streams = EventLogTurnStreams(engine.log, workflows, kept)
    await platform.host_actor(
        ConversationActor,
        lambda context: ConversationActor(context, actors, streams, auth, utc_now),
    )
    await platform.host_actor(
        ConversationManagerActor,
        lambda context: ConversationManagerActor(context, actors, auth, utc_now),
    )
    engine.host(recovery)
    erasure = UserErasure(actors, engine.log, workflows, records)
    platform.workflow_host.add_activity(RUN_TURN, recovery.run_turn)
    platform.workflow_host.add_activity(eraser_of(APP.id), erasure.erase)
    purge = _purge(platform, records, settings)
    (await platform.open_jobs()).add(PURGE, lambda _: purge.run())


def _purge(platform: Platform, records: IdempotencyRecords, settings: LlmSettings) -> Purge:
    turns = Retention(
        TURN_STREAM,
        events=timedelta(hours=settings.events_hours),
        ending=timedelta(hours=settings.ending_hours),
    )
    return Purge(platform.database, [turns], [functools.partial(records.purge, ROWS_PER_BATCH)])
