"""Hosts `LedgerActor`, and forwards HTTP calls to it."""

from typing import Final

from dapr.actor import ActorRuntime
from dapr.actor.id import ActorId
from fastapi import FastAPI, Request
from pydantic import BaseModel

from services.kit.dapr.actors import Actors
from services.kit.dapr.domain_actor import ActorInterface, DomainActor, active_actors
from services.kit.errors import ErrorCode, RpcError
from services.kit.http.dependencies import get_dependency
from services.kit.manifest import App
from services.kit.settings import PlatformSettings, load_settings
from services.platform import Platform, platform_app

APP: Final = App(id="workflows", purpose="keeps a ledger", number=13, actors=("LedgerActor",))


class Entry(BaseModel):
    """One line of a ledger."""

    text: str


class Ledger(BaseModel):
    """The head: the number of entries."""

    count: int = 0


class LedgerActorInterface(ActorInterface):
    """Entries in order."""

    async def append(self, entry: Entry) -> Ledger: ...

    async def entries(self) -> list[str]: ...


class LedgerActor(DomainActor[Ledger], LedgerActorInterface):
    """State: the head, `entry/<number>`."""

    async def append(self, entry: Entry) -> Ledger:
        """Append one; `no` is refused."""
        if entry.text == "no":
            raise RpcError(ErrorCode.FAILED_PRECONDITION, "no")
        ledger = await self.state.load() or Ledger()
        after = Ledger(count=ledger.count + 1)
        await self.state.commit(after, add={f"entry/{after.count}": entry})
        return after

    async def entries(self) -> list[str]:
        ledger = await self.state.load() or Ledger()
        names = [f"entry/{number + 1}" for number in range(ledger.count)]
        return [row.text for row in await self.state.rows(names, Entry) if row]


def create_app() -> FastAPI:
    app = platform_app(APP, load_settings(PlatformSettings), routers=[], compose=_compose)
    app.add_api_route("/append/{ledger}", _append, methods=["POST"])
    app.add_api_route("/entries/{ledger}", _entries, methods=["POST"])
    app.add_api_route("/host/{ledger}", _host, methods=["POST"])
    app.add_api_route("/believe/{ledger}", _believe, methods=["POST"])
    return app


async def _compose(platform: Platform) -> None:
    platform.provide(await platform.open_actors())
    await platform.host_actor(LedgerActor, LedgerActor)


def _ledger(request: Request) -> LedgerActorInterface:
    return get_dependency(request.app, Actors).get(
        LedgerActorInterface, request.path_params["ledger"]
    )


async def _append(request: Request) -> dict[str, int]:
    entry = Entry.model_validate_json(await request.body())
    return {"count": (await _ledger(request).append(entry)).count}


async def _entries(request: Request) -> list[str]:
    return await _ledger(request).entries()


async def _host(request: Request) -> dict[str, bool]:
    """Whether a call from here goes to an actor in this process."""
    found = active_actors.find("LedgerActor", request.path_params["ledger"])
    return {"active": found is not None}


async def _believe(request: Request) -> dict[str, bool]:
    """Register the actor as active without Dapr, like a host that Dapr has given up."""
    await ActorRuntime._actor_managers["LedgerActor"].activate_actor(
        ActorId(request.path_params["ledger"])
    )
    return {"believed": True}
