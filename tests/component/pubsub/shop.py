"""Publishes orders: from a table, and from an actor."""

import json
from typing import Final

from fastapi import FastAPI, Request
from pydantic import BaseModel
from sqlalchemy import text

from services.kit.dapr.actors import Actors
from services.kit.dapr.domain_actor import ActorInterface, DomainActor
from services.kit.dapr.pubsub.outbox import Outbox, outbox_event
from services.kit.errors import ErrorCode, RpcError
from services.kit.http.dependencies import get_dependency
from services.kit.settings import PlatformSettings, load_settings
from services.kit.storage.db import Database
from services.platform import Platform, platform_app
from tests.component.pubsub.topics import MOVED, PLACED, SHOP, OrderMoved, OrderPlaced

TABLES: Final = (
    "CREATE SCHEMA IF NOT EXISTS shop",
    "CREATE TABLE IF NOT EXISTS shop.orders"
    " (number int PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())",
)


class Sale(BaseModel):
    """One sale at a till."""

    number: int
    fail: bool = False


class Till(BaseModel):
    """The number of sales."""

    sales: int = 0


class TillActorInterface(ActorInterface):
    """Sells."""

    async def sell(self, sale: Sale) -> Till: ...


class TillActor(DomainActor[Till], TillActorInterface):
    """A till. Each sale is published, and moves the order that has the till's name."""

    async def sell(self, sale: Sale) -> Till:
        """Count the sale; with `fail`, the commit is refused, and nothing is published."""
        till = await self.state.load() or Till()
        after = Till(sales=till.sales + 1)
        events = [
            outbox_event(PLACED, OrderPlaced(number=sale.number)),
            outbox_event(MOVED, OrderMoved(step=after.sales), key=self.entity_id),
        ]
        if sale.fail:
            raise RpcError(ErrorCode.FAILED_PRECONDITION, "no")
        await self.state.commit(after, put={"last": sale}, events=events)
        return after


def create_app() -> FastAPI:
    app = platform_app(SHOP, load_settings(PlatformSettings), routers=[], compose=_compose)
    app.add_api_route("/place", _place, methods=["POST"])
    app.add_api_route("/sell/{till}", _sell, methods=["POST"])
    return app


async def _compose(platform: Platform) -> None:
    for table in TABLES:
        await platform.database.fetch(table)
    platform.provide(await platform.open_actors(), platform.database, platform.outbox)
    await platform.host_actor(TillActor, TillActor)


async def _place(request: Request) -> dict[str, int]:
    """Place each order with its event in one transaction; `fail` rolls back, `again` orders are known."""
    body = json.loads(await request.body())
    database = get_dependency(request.app, Database)
    outbox = get_dependency(request.app, Outbox)
    placed = 0
    for number in body["numbers"]:
        async with database.transaction() as transaction:
            added = await transaction.execute(
                text("INSERT INTO shop.orders VALUES (:number) ON CONFLICT DO NOTHING RETURNING 1"),
                {"number": number},
            )
            if added.first() is None:
                continue
            event = OrderPlaced(number=number, text=body.get("text", ""))
            await outbox.publish(transaction, PLACED, event)
            if body.get("fail"):
                raise RpcError(ErrorCode.ABORTED, "rolled back")
        placed += 1
    return {"placed": placed}


async def _sell(request: Request) -> dict[str, int]:
    sale = Sale.model_validate_json(await request.body())
    actors = get_dependency(request.app, Actors)
    till = await actors.get(TillActorInterface, request.path_params["till"]).sell(sale)
    return {"sales": till.sales}
