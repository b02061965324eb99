"""Counts the orders of the shop."""

import asyncio
from typing import Annotated, Final

from fastapi import Depends, FastAPI
from sqlalchemy import text

from services.kit.dapr.pubsub.cloudevents import Event
from services.kit.dapr.pubsub.subscriptions import EventRouter
from services.kit.errors import ErrorCode, RpcError, unavailable
from services.kit.http.dependencies import provided
from services.kit.settings import PlatformSettings, load_settings
from services.kit.storage.db import Database, Transaction
from services.kit.telemetry.tracing import current_traceparent
from services.platform import Platform, platform_app
from tests.component.pubsub.topics import (
    BUG,
    LEDGER,
    MOVED,
    PLACED,
    REFUSED,
    SLOW,
    UNAVAILABLE,
    OrderMoved,
    OrderPlaced,
)

TABLES: Final = (
    "CREATE SCHEMA IF NOT EXISTS ledger",
    "CREATE TABLE IF NOT EXISTS ledger.entries"
    " (event_id text, number int, trace text, at timestamptz DEFAULT clock_timestamp())",
    "CREATE TABLE IF NOT EXISTS ledger.tries (number int)",
    "CREATE TABLE IF NOT EXISTS ledger.moves (place bigserial, key text, step int)",
    "CREATE TABLE IF NOT EXISTS ledger.mended (at timestamptz DEFAULT now())",
)
ENTER: Final = text(
    "INSERT INTO ledger.entries (event_id, number, trace) VALUES (:event, :number, :trace)"
)
MOVE: Final = text("INSERT INTO ledger.moves (key, step) VALUES (:key, :step)")

events = EventRouter()

Store = Annotated[Database, Depends(provided(Database))]


@events.subscribe(PLACED)
async def enter(event: Event[OrderPlaced], transaction: Transaction, database: Store) -> None:
    number = event.data.number
    if number < 0:
        await database.fetch("INSERT INTO ledger.tries VALUES ($1)", number)
        if await database.fetch_one("SELECT 1 FROM ledger.mended") is None:
            await _fail(number)
    values = {"event": event.id, "number": number, "trace": current_traceparent()}
    await transaction.execute(ENTER, values)


@events.subscribe(MOVED)
async def move(event: Event[OrderMoved], transaction: Transaction, database: Store) -> None:
    if event.data.step < 0 and await database.fetch_one("SELECT 1 FROM ledger.mended") is None:
        raise RpcError(ErrorCode.FAILED_PRECONDITION, "This step cannot be.")
    await transaction.execute(MOVE, {"key": event.key, "step": event.data.step})


async def _fail(number: int) -> None:
    if number == REFUSED:
        raise RpcError(ErrorCode.FAILED_PRECONDITION, "The order is refused.")
    if number == UNAVAILABLE:
        raise unavailable()
    if number == SLOW:
        await asyncio.Event().wait()
    if number <= BUG:
        raise ValueError("a bug, with a secret in its text")


def create_app() -> FastAPI:
    settings = load_settings(PlatformSettings)
    return platform_app(LEDGER, settings, routers=[], events=[events], compose=_compose)


async def _compose(platform: Platform) -> None:
    for table in TABLES:
        await platform.database.fetch(table)
    platform.provide(platform.database)
