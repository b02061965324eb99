"""An app for `access`: methods that do nothing, so that what is measured is who may call them."""

from contextlib import AsyncExitStack
from typing import Annotated, Final

from fastapi import Depends, FastAPI

from services.contracts.access import Access
from services.contracts.scopes import CONVERSATIONS_READ
from services.kit.access.authorization import Caller, Permitted
from services.kit.access.control import open_guard
from services.kit.access.identity import CallerIdentity
from services.kit.access.limits import SlidingWindows
from services.kit.contract import Empty, Message, RpcMethod, RpcService
from services.kit.dapr.client import RpcClient
from services.kit.http.app import create_service
from services.kit.http.rpc import RpcRouter
from services.kit.settings import PlatformSettings, load_settings
from services.kit.storage.wake_ups import Signals


class Named(Message):
    """Names a conversation."""

    conversation_id: str


BENCH_SERVICE: Final = RpcService(
    "yocaso.bench.v1.NothingService",
    app_id="bench",
    summary="Does nothing.",
    methods=(
        RpcMethod("Open", Named, Empty, "For anybody", public=True),
        RpcMethod("Scoped", Named, Empty, "For a scope", scope=CONVERSATIONS_READ),
        RpcMethod("Owned", Named, Empty, "For a relation", scope=CONVERSATIONS_READ),
    ),
)
CanView = Annotated[
    CallerIdentity, Depends(Permitted("viewer", "conversation_id", kind="conversation"))
]

rpc = RpcRouter(BENCH_SERVICE)


@rpc.method
async def open(request: Named) -> Empty:  # the baseline: nobody is asked who calls
    return Empty()


@rpc.method
async def scoped(request: Named, _: Caller) -> Empty:
    return Empty()


@rpc.method
async def owned(request: Named, _: CanView) -> Empty:
    return Empty()


def create_app() -> FastAPI:
    """The app; called without a sidecar of its own, it asks through another's."""
    settings = load_settings(PlatformSettings)

    async def lifespan(app: FastAPI, stack: AsyncExitStack) -> None:
        url = settings.valkey_url.get_secret_value()
        signals = Signals(url)
        await signals.start()
        stack.push_async_callback(signals.close)
        client = RpcClient()
        stack.push_async_callback(client.close)
        access = Access(client)
        windows = SlidingWindows(url)
        stack.push_async_callback(windows.close)
        await open_guard(
            app,
            stack,
            settings,
            name="bench",
            source=access,
            denials=access,
            signals=signals,
            windows=windows,
        )

    return create_service(
        "bench",
        settings,
        routers=[rpc],
        lifespan=lifespan,
        document=dict,
        identity_callers=("",),  # the edge calls it without a sidecar, which would name the caller
    )
