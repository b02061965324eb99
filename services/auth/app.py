"""Composition root of the auth app."""

from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from fastapi import FastAPI

from services.auth.activities import UserErasure
from services.auth.actors import FirebaseBridgeActor
from services.auth.adapters.firebase import (
    AdminDirectory,
    Certificates,
    EmulatedSignatures,
    GoogleSignatures,
    open_emulated_admin,
    open_service_account_admin,
)
from services.auth.adapters.hashing import (
    API_KEYS,
    REFRESH_TOKENS,
    SHARE_LINKS,
    KeyedHash,
    random_base62,
)
from services.auth.adapters.jose import JoseKeyForge
from services.auth.adapters.limits import WindowCallCounter
from services.auth.adapters.openfga import OpenFgaRelations
from services.auth.adapters.postgres.audit import PostgresAuditLog
from services.auth.adapters.postgres.deletions import PostgresDeletions
from services.auth.adapters.postgres.erasure import PostgresUserData, UserFacts
from services.auth.adapters.postgres.feed import PostgresAccessFeed
from services.auth.adapters.postgres.keys import PostgresApiKeys
from services.auth.adapters.postgres.links import PostgresSharing
from services.auth.adapters.postgres.locks import alone
from services.auth.adapters.postgres.outbox import PostgresOutbox
from services.auth.adapters.postgres.sessions import PostgresRevocations, PostgresSessions
from services.auth.adapters.postgres.signing import PostgresKeyStore
from services.auth.adapters.workflows import WorkflowErasures
from services.auth.domain.firebase import FirebaseProject, FirebaseTokenKind
from services.auth.ports.firebase import SignatureCheck
from services.auth.rpc import accounts, audit, authorization, keys
from services.auth.rpc.authorization import Access, provide_access
from services.auth.rpc.firebase import Firebase, FirebaseLinks, provide_firebase
from services.auth.rpc.guard import OwnDenials, OwnTuples
from services.auth.rpc.issuer import Issuer
from services.auth.rpc.sessions import SignIns
from services.auth.rpc.tokens import JWKS_PATH, provide, public, rpc
from services.auth.settings import AuthSettings, FirebaseSettings
from services.auth.tables import SCHEMA
from services.contracts.accounts import RECORD_ERASURE, eraser_of
from services.contracts.openapi import app_document
from services.kit.access.cache import CHANGED
from services.kit.access.control import open_guard
from services.kit.access.limits import SlidingWindows
from services.kit.background import background, every
from services.kit.clock import utc_now
from services.kit.dapr.actors import (
    ActorId,
    ActorRuntimeContext,
    Actors,
    host_actors,
    register_actor,
)
from services.kit.dapr.client import RpcClient
from services.kit.dapr.placement_watch import open_sidecar
from services.kit.dapr.state_store import state_store
from services.kit.dapr.workflows import WorkflowHost
from services.kit.errors import RpcError
from services.kit.http.app import create_service
from services.kit.outbound.client import OutboundTimeouts, open_outbound
from services.kit.settings import Environment, load_settings
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import Signals

MIGRATIONS: Final = Path(__file__).parent / "migrations"
ROTATION_CHECK_SECONDS: Final = 3600.0
RELAY_SECONDS: Final = 2.0
PURGE_SECONDS: Final = 3600.0
FEED_PURGE_SECONDS: Final = 60.0
ERASURE_SECONDS: Final = 10.0
CERTIFICATE_TIMEOUTS: Final = OutboundTimeouts(
    connect=3.0, first_byte=5.0, between_chunks=5.0, total=8.0
)
MAX_CERTIFICATES_BYTES: Final = 256 * 1024


def create_app() -> FastAPI:
    """The auth app, configured by the environment."""
    settings, firebase = load_settings(AuthSettings), load_settings(FirebaseSettings)

    async def lifespan(app: FastAPI, stack: AsyncExitStack) -> None:
        stores = await _open_stores(stack, settings)
        issuer = await _open_issuer(stack, settings, stores)
        await open_guard(
            app,
            stack,
            settings,
            name="auth",
            source=OwnTuples(stores.relations, stores.feed),
            denials=OwnDenials(stores.relations, stores.audit),
            signals=stores.signals,
            windows=stores.windows,
        )
        await _open_sharing(app, stack, settings, stores)
        await _open_tokens(app, stack, settings, stores, issuer)
        links = await _open_firebase(app, stack, firebase, stores.database, stores.revocations)
        await _open_erasure(app, stack, settings, stores, links)

    app = create_service(
        "auth",
        settings,
        routers=[rpc, keys.rpc, authorization.rpc, audit.rpc, accounts.rpc],
        lifespan=lifespan,
        document=lambda: app_document("auth"),
        public_paths=[JWKS_PATH],
    )
    app.include_router(public)
    host_actors(app)
    return app


@dataclass(frozen=True, slots=True)
class Stores:
    """What the parts of the app share."""

    database: Database
    signals: Signals
    windows: SlidingWindows
    feed: PostgresAccessFeed
    relations: OpenFgaRelations
    outbox: PostgresOutbox
    audit: PostgresAuditLog
    revocations: PostgresRevocations


async def _open_stores(stack: AsyncExitStack, settings: AuthSettings) -> Stores:
    database = Database(settings.database_url.get_secret_value())
    stack.push_async_callback(database.close)
    await database.migrate(SCHEMA, MIGRATIONS)
    valkey_url = settings.valkey_url.get_secret_value()
    signals, windows = Signals(valkey_url), SlidingWindows(valkey_url)
    stack.push_async_callback(windows.close)
    stack.push_async_callback(signals.close)
    await signals.start()
    feed = PostgresAccessFeed(database, lambda: signals.notify(CHANGED))
    relations = OpenFgaRelations(
        settings.openfga_url,
        settings.openfga_token.get_secret_value(),
        alone=lambda: alone(database, "openfga"),
        feed=feed,
    )
    stack.push_async_callback(relations.close)
    with suppress(RpcError):  # else the first call does it
        await relations.prepare()
    return Stores(
        database=database,
        signals=signals,
        windows=windows,
        feed=feed,
        relations=relations,
        outbox=PostgresOutbox(database, relations),
        audit=PostgresAuditLog(database, utc_now),
        revocations=PostgresRevocations(database, utc_now),
    )


async def _open_issuer(stack: AsyncExitStack, settings: AuthSettings, stores: Stores) -> Issuer:
    issuer = Issuer(
        keys=PostgresKeyStore(stores.database),
        forge=JoseKeyForge(settings.key_secret.get_secret_value()),
        clock=utc_now,
        issuer=settings.issuer,
        audience=settings.audience,
        max_age=timedelta(days=settings.key_max_age_days),
        issues_local_tokens=settings.environment is not Environment.PRODUCTION,
    )
    await issuer.rotate_when_due()
    rotation = every(ROTATION_CHECK_SECONDS, issuer.rotate_when_due, "key rotation")
    await stack.enter_async_context(background(rotation))
    return issuer


async def _open_sharing(
    app: FastAPI, stack: AsyncExitStack, settings: AuthSettings, stores: Stores
) -> None:
    sharing = PostgresSharing(stores.database, stores.outbox, stores.audit)
    digest = KeyedHash(settings.key_secret.get_secret_value(), SHARE_LINKS)
    access = Access(stores.relations, stores.feed, stores.outbox, sharing, digest, utc_now)
    provide_access(app, access)

    async def settle() -> None:
        await stores.outbox.relay()
        await sharing.end_expired(utc_now())
        await stores.feed.settle()

    await stack.enter_async_context(background(every(RELAY_SECONDS, settle, "relay tuples")))
    purging = every(FEED_PURGE_SECONDS, stores.feed.purge, "purge access feed")
    await stack.enter_async_context(background(purging))


async def _open_tokens(
    app: FastAPI,
    stack: AsyncExitStack,
    settings: AuthSettings,
    stores: Stores,
    issuer: Issuer,
) -> None:
    secret = settings.key_secret.get_secret_value()
    stored = PostgresApiKeys(stores.database, stores.outbox, stores.audit, stores.revocations)
    using = keys.Keys(
        keys=stored,
        counter=WindowCallCounter(stores.windows),
        digest=KeyedHash(secret, API_KEYS),
        draw=random_base62,
        clock=utc_now,
    )
    stack.push_async_callback(using.close)
    keys.provide(app, using)
    sessions = PostgresSessions(stores.database, stores.revocations, stores.audit, utc_now)
    sign_ins = SignIns(
        sessions=sessions,
        revocations=stores.revocations,
        audit=stores.audit,
        keys=using,
        issuer=issuer,
        digest=KeyedHash(secret, REFRESH_TOKENS),
        draw=random_base62,
        clock=utc_now,
        access_token_life=timedelta(seconds=settings.access_token_seconds),
    )
    provide(app, issuer, sign_ins)
    audit.provide(app, audit.Audit(stores.audit, stores.relations))

    async def purge() -> None:
        await stored.purge(utc_now())
        await sessions.purge()
        await stores.audit.purge(utc_now() - timedelta(days=settings.audit_days))

    await stack.enter_async_context(background(every(PURGE_SECONDS, purge, "purge")))


async def _open_firebase(
    app: FastAPI,
    stack: AsyncExitStack,
    settings: FirebaseSettings,
    database: Database,
    revocations: PostgresRevocations,
) -> FirebaseLinks:
    sidecar = await stack.enter_async_context(open_sidecar())
    store = state_store(settings, "auth", sidecar, database)
    actors, directory = Actors(sidecar), _directory(stack, settings)
    believed = timedelta(seconds=settings.revocation_seconds) if directory else None

    def bridge(ctx: ActorRuntimeContext, actor_id: ActorId) -> FirebaseBridgeActor:
        return FirebaseBridgeActor(ctx, actor_id, store, utc_now, believed)

    await register_actor(FirebaseBridgeActor, sidecar, bridge)
    firebase = None
    if settings.project_id:
        skew = timedelta(seconds=settings.clock_skew_seconds)
        firebase = Firebase(
            project=FirebaseProject(settings.project_id, skew),
            signatures=await _signatures(stack, settings),
            directory=directory,
            revocations=revocations,
            actors=actors,
            clock=utc_now,
        )
    provide_firebase(app, firebase)
    return FirebaseLinks(directory, revocations, actors, utc_now)


async def _open_erasure(
    app: FastAPI,
    stack: AsyncExitStack,
    settings: AuthSettings,
    stores: Stores,
    links: FirebaseLinks,
) -> None:
    client = RpcClient()
    stack.push_async_callback(client.close)
    deletions = PostgresDeletions(stores.database)
    own = PostgresUserData(stores.database, stores.relations, stores.outbox, stores.revocations)
    eraser = accounts.Eraser(deletions, own, WorkflowErasures(client), stores.audit)
    accounts.provide(app, eraser)
    given = UserFacts(stores.relations)
    # The link goes first: who signs in anew while the rest is erased would leave something behind.
    erasure = UserErasure(deletions, [links, own, given])
    host = WorkflowHost()
    host.add_activity(eraser_of("auth"), erasure.run)
    host.add_activity(RECORD_ERASURE, erasure.record)
    await host.start()
    stack.push_async_callback(host.stop, timedelta(seconds=settings.drain_seconds))
    driving = every(ERASURE_SECONDS, eraser.drive, "erasures")
    await stack.enter_async_context(background(driving))


def _directory(stack: AsyncExitStack, settings: FirebaseSettings) -> AdminDirectory | None:
    project, account = settings.project_id, settings.service_account()
    if settings.emulator_host:
        host = settings.emulator_host
        directory = AdminDirectory(lambda: open_emulated_admin(project, host), utc_now)
    elif account is not None:
        directory = AdminDirectory(
            lambda: open_service_account_admin(project, account, settings.api_url), utc_now
        )
    else:
        return None
    stack.callback(directory.close)
    return directory


async def _signatures(stack: AsyncExitStack, settings: FirebaseSettings) -> SignatureCheck:
    if settings.emulator_host:
        return EmulatedSignatures()
    urls = {
        FirebaseTokenKind.ID_TOKEN: settings.certs_url,
        FirebaseTokenKind.SESSION_COOKIE: settings.cookie_certs_url,
    }
    client = await stack.enter_async_context(
        open_outbound(
            CERTIFICATE_TIMEOUTS, trusted=urls.values(), max_body_bytes=MAX_CERTIFICATES_BYTES
        )
    )
    return GoogleSignatures({kind: Certificates(client, url) for kind, url in urls.items()})
