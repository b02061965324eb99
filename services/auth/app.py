"""Composition root of the auth app."""

from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Final

from fastapi import FastAPI

from services.auth.adapters.jose import JoseKeyForge
from services.auth.adapters.postgres.signing import PostgresKeyStore
from services.auth.rpc import accounts, audit, authorization, keys
from services.auth.rpc.tokens import JWKS_PATH, Issuer, provide, public, rpc
from services.auth.settings import AuthSettings
from services.auth.tables import SCHEMA
from services.contracts.openapi import app_document
from services.kit.app import background, create_service, every
from services.kit.clock import utc_now
from services.kit.db import Database
from services.kit.settings import Environment, load_settings

MIGRATIONS: Final = Path(__file__).parent / "migrations"
ROTATION_CHECK_SECONDS: Final = 3600.0


def create_app() -> FastAPI:
    """The auth app, configured by the environment."""
    settings = load_settings(AuthSettings)

    async def lifespan(app: FastAPI, stack: AsyncExitStack) -> None:
        await _open(app, stack, settings)

    app = create_service(
        "auth",
        settings,
        routers=[rpc, keys.rpc, authorization.rpc, audit.rpc, accounts.rpc],
        lifespan=lifespan,
        document=lambda: app_document("auth"),
        public_paths=[JWKS_PATH],
    )
    app.include_router(public)
    return app


async def _open(app: FastAPI, stack: AsyncExitStack, settings: AuthSettings) -> None:
    database = Database(settings.database_url.get_secret_value())
    stack.push_async_callback(database.close)
    await database.migrate(SCHEMA, MIGRATIONS)
    issuer = Issuer(
        keys=PostgresKeyStore(database),
        forge=JoseKeyForge(settings.key_secret.get_secret_value()),
        clock=utc_now,
        issuer=settings.issuer,
        audience=settings.audience,
        max_age=timedelta(days=settings.key_max_age_days),
        issues_local_tokens=settings.environment is not Environment.PRODUCTION,
    )
    await issuer.rotate_when_due()
    provide(app, issuer)
    rotation = every(ROTATION_CHECK_SECONDS, issuer.rotate_when_due, "key rotation")
    await stack.enter_async_context(background(rotation))
