"""The app of the access bench: methods that do nothing, with each kind of authorization."""

from typing import Annotated, Final

from fastapi import Depends, FastAPI

from services.contracts.llm.conversations import CONVERSATIONS_READ
from services.kit.access.authorization import Caller, Permitted
from services.kit.access.identity import CallerIdentity, TrustedApps
from services.kit.contract import Empty, Message, RpcService
from services.kit.http.dependencies import provide
from services.kit.http.rpc import RpcRouter
from services.kit.manifest import App
from services.kit.settings import PlatformSettings, load_settings
from services.platform import Platform, platform_app


class Named(Message):
    """Names a conversation."""

    conversation_id: str


BENCH_SERVICE: Final = RpcService("yocaso.bench.v1.NothingService", "Does nothing.")
OPEN: Final = BENCH_SERVICE.unary("Open", Named, Empty, "Public", public=True)
SCOPED: Final = BENCH_SERVICE.unary("Scoped", Named, Empty, "For a scope", scope=CONVERSATIONS_READ)
OWNED: Final = BENCH_SERVICE.unary(
    "Owned", Named, Empty, "For a relation", scope=CONVERSATIONS_READ
)
APP: Final = App(id="bench", purpose="does nothing", number=99, services=(BENCH_SERVICE,))
CanView = Annotated[
    CallerIdentity, Depends(Permitted("viewer", "conversation_id", kind="conversation"))
]

rpc = RpcRouter(BENCH_SERVICE)


@rpc.method
async def open(request: Named) -> Empty:  # the baseline: public
    return Empty()


@rpc.method
async def scoped(request: Named, _: Caller) -> Empty:
    return Empty()


@rpc.method
async def owned(request: Named, _: CanView) -> Empty:
    return Empty()


async def _compose(platform: Platform) -> None:
    await platform.control_access()


def create_app() -> FastAPI:
    """The app, which has no sidecar and uses that of llm."""
    app = platform_app(APP, load_settings(PlatformSettings), routers=[rpc], compose=_compose)
    provide(app, TrustedApps(edge="", callers={}))  # without a sidecar no caller is named
    return app
