"""Hosts `LedgerActor`, and calls it for whoever asks by HTTP, as a service calls its own actors."""

from contextlib import AsyncExitStack

from dapr.actor import ActorRuntime
from fastapi import FastAPI, Request
from pydantic import BaseModel

from services.kit.dapr import actors as kit_actors
from services.kit.dapr.actors import (
    ActorId,
    ActorInterface,
    ActorRuntimeContext,
    Actors,
    DomainActor,
    actormethod,
    host_actors,
    register_actor,
)
from services.kit.dapr.sidecar import Sidecar
from services.kit.dapr.state import DurableState
from services.kit.dapr.state_component import ComponentStateStore
from services.kit.dapr.state_rows import StateStore
from services.kit.errors import ErrorCode, RpcError
from services.kit.http.app import create_service
from services.kit.settings import PlatformSettings, load_settings


class Entry(BaseModel):
    """One line of a ledger."""

    text: str


class Ledger(BaseModel):
    """The head: how many entries there are."""

    count: int = 0


class LedgerActorInterface(ActorInterface):
    """Entries in order."""

    @actormethod(name="Append")
    async def append(self, entry: Entry) -> Ledger:
        """Append one."""
        ...

    @actormethod(name="Entries")
    async def entries(self) -> list[str]:
        """All of them."""
        ...


class LedgerActor(DomainActor, LedgerActorInterface):
    """State: the head, `entry/<number>`."""

    def __init__(self, ctx: ActorRuntimeContext, actor_id: ActorId, store: StateStore) -> None:
        super().__init__(ctx, actor_id)
        self._state = DurableState(store, f"LedgerActor/{self.entity_id}", Ledger)

    def forget(self) -> None:
        """Discard what was read."""
        self._state.forget()

    async def append(self, entry: Entry) -> Ledger:
        """Append one; `no` is refused."""
        if entry.text == "no":
            raise RpcError(ErrorCode.FAILED_PRECONDITION, "no")
        ledger = await self._state.load() or Ledger()
        after = Ledger(count=ledger.count + 1)
        await self._state.commit(after, add={f"entry/{after.count}": entry})
        return after

    async def entries(self) -> list[str]:
        """All of them."""
        ledger = await self._state.load() or Ledger()
        names = [f"entry/{number + 1}" for number in range(ledger.count)]
        return [row.text for row in await self._state.rows(names, Entry) if row]


def create_app() -> FastAPI:
    """The app."""
    settings = load_settings(PlatformSettings)

    async def lifespan(app: FastAPI, stack: AsyncExitStack) -> None:
        sidecar = Sidecar()
        stack.push_async_callback(sidecar.close)
        app.state.actors = Actors(sidecar)
        store = ComponentStateStore(sidecar)
        await register_actor(
            LedgerActor, sidecar, lambda ctx, actor_id: LedgerActor(ctx, actor_id, store)
        )

    app = create_service("workflows", settings, routers=[], lifespan=lifespan, document=dict)
    host_actors(app)
    app.add_api_route("/append/{ledger}", _append, methods=["POST"])
    app.add_api_route("/entries/{ledger}", _entries, methods=["POST"])
    app.add_api_route("/host/{ledger}", _host, methods=["POST"])
    app.add_api_route("/believe/{ledger}", _believe, methods=["POST"])
    return app


def _ledger(request: Request) -> LedgerActorInterface:
    return request.app.state.actors.get(LedgerActorInterface, request.path_params["ledger"])


async def _append(request: Request) -> dict[str, int]:
    entry = Entry.model_validate_json(await request.body())
    return {"count": (await _ledger(request).append(entry)).count}


async def _entries(request: Request) -> list[str]:
    return await _ledger(request).entries()


async def _host(request: Request) -> dict[str, bool]:
    """Whether a call from here goes to an actor in this process."""
    found = kit_actors._active.find("LedgerActor", request.path_params["ledger"])
    return {"active": found is not None}


async def _believe(request: Request) -> dict[str, bool]:
    """Own the actor without Dapr's word, as a host does that Dapr has given up."""
    await ActorRuntime._actor_managers["LedgerActor"].activate_actor(
        ActorId(request.path_params["ledger"])
    )
    return {"believed": True}
