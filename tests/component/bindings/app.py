"""An app with bindings: those of kit's README, and a clock."""

from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request
from sqlalchemy import text

from services.kit.bindings import InputBinding, OutputBinding
from services.kit.dapr.bindings import BindingMessage, Bindings
from services.kit.errors import unavailable
from services.kit.http.dependencies import get_dependency
from services.kit.manifest import App
from services.kit.settings import PlatformSettings, load_settings
from services.kit.storage.db import Transaction
from services.platform import Platform, platform_app
from tests.support.readme import example_of

README: Final = Path(__file__).parents[3] / "services" / "kit" / "README.md"
EXAMPLE: Final = example_of(README, "Bindings")
MAIL: Final[OutputBinding] = EXAMPLE["MAIL"]
TIMED: Final = OutputBinding(
    "timed-mail", "Mail within a second.", metadata=("emailTo", "subject"), seconds=1
)
CLOCK: Final = InputBinding("clock", "Ticks every second.")
APP: Final = App(
    id="llm",  # the local stack knows apps by this id
    purpose="writes mail",
    number=12,
    bindings=(MAIL, TIMED, EXAMPLE["ORDERS"], CLOCK),
    components=("secrets",),
)
TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS orders (id text)",
    "CREATE TABLE IF NOT EXISTS ticks (at timestamptz DEFAULT now(), read_at text)",
    "CREATE TABLE IF NOT EXISTS broken (number int)",
)
TICK: Final = text("INSERT INTO ticks (read_at) VALUES (:read_at)")
BROKEN: Final = text("SELECT 1 FROM broken")


def create_app() -> FastAPI:
    app = platform_app(APP, load_settings(PlatformSettings), routers=[], compose=_compose)
    for path, route in (("/welcome", _welcome), ("/send", _send)):
        app.add_api_route(path, route, methods=["POST"])
    return app


async def _compose(platform: Platform) -> None:
    for table in TABLES:
        await platform.database.fetch(table)
    bindings = await platform.open_bindings()
    EXAMPLE["add_handlers"](bindings)
    bindings.add(CLOCK, _tick)


async def _tick(message: BindingMessage, transaction: Transaction) -> None:
    assert "dapr-api-token" not in message.metadata
    await transaction.execute(TICK, {"read_at": message.metadata["readtimeutc"]})
    if (await transaction.execute(BROKEN)).first():
        raise unavailable()


async def _welcome(request: Request) -> dict[str, str]:
    body = await request.json()
    await EXAMPLE["welcome"](get_dependency(request.app, Bindings), body["address"])
    return {}


async def _send(request: Request) -> dict[str, str]:
    """Send mail by one of the two components, `size` bytes."""
    body = await request.json()
    binding = TIMED if body.get("timed") else MAIL
    bindings = get_dependency(request.app, Bindings)
    await bindings.invoke(binding, b"x" * body.get("size", 1), body["metadata"])
    return {}
