"""Composition root of the auth app."""

from contextlib import suppress
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
from services.auth.domain.firebase import FirebaseProject, FirebaseTokenKind
from services.auth.ports.firebase import SignatureCheck
from services.auth.rpc import accounts, audit, authorization, keys
from services.auth.rpc.authorization import Access
from services.auth.rpc.firebase import Firebase, FirebaseLinks, FirebaseSwitch
from services.auth.rpc.guard import OwnDenials, OwnTuples
from services.auth.rpc.issuer import Issuer
from services.auth.rpc.sessions import SignIns
from services.auth.rpc.tokens import public, rpc
from services.auth.settings import AuthSettings, FirebaseSettings
from services.auth.tables import SCHEMA
from services.contracts.auth.accounts import RECORD_ERASURE
from services.contracts.auth.app import APP
from services.contracts.erasure import eraser_of
from services.kit.access.cache import CHANGED
from services.kit.clock import utc_now
from services.kit.errors import RpcError
from services.kit.outbound.client import OutboundTimeouts, open_outbound
from services.kit.settings import Environment, load_settings
from services.kit.storage.db import Database
from services.platform import Platform, platform_app

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

    async def compose(platform: Platform) -> None:
        stores = await _open_stores(platform, settings)
        issuer = await _open_issuer(platform, settings, stores)
        await platform.control_access(
            OwnTuples(stores.relations, stores.feed), OwnDenials(stores.relations, stores.audit)
        )
        await _open_sharing(platform, settings, stores)
        await _open_tokens(platform, settings, stores, issuer)
        links = await _open_firebase(platform, firebase, stores.revocations)
        await _open_erasure(platform, stores, links)

    app = platform_app(
        APP,
        settings,
        routers=[rpc, keys.rpc, authorization.rpc, audit.rpc, accounts.rpc],
        compose=compose,
    )
    app.include_router(public)
    return app


@dataclass(frozen=True, slots=True)
class Stores:
    """What the parts of the app share."""

    database: Database
    feed: PostgresAccessFeed
    relations: OpenFgaRelations
    outbox: PostgresOutbox
    audit: PostgresAuditLog
    revocations: PostgresRevocations


async def _open_stores(platform: Platform, settings: AuthSettings) -> Stores:
    database = platform.database
    await database.migrate(SCHEMA, MIGRATIONS)
    feed = PostgresAccessFeed(database, lambda: platform.wake_ups.notify(CHANGED))
    relations = OpenFgaRelations(
        settings.openfga_url,
        settings.openfga_token.get_secret_value(),
        alone=lambda: alone(database, "openfga"),
        feed=feed,
    )
    platform.on_close(relations.close)
    with suppress(RpcError):  # else the first call does it
        await relations.prepare()
    return Stores(
        database=database,
        feed=feed,
        relations=relations,
        outbox=PostgresOutbox(database, relations),
        audit=PostgresAuditLog(database, utc_now),
        revocations=PostgresRevocations(database, utc_now),
    )


async def _open_issuer(platform: Platform, settings: AuthSettings, stores: Stores) -> Issuer:
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
    await platform.every(ROTATION_CHECK_SECONDS, issuer.rotate_when_due, "key rotation")
    return issuer


async def _open_sharing(platform: Platform, settings: AuthSettings, stores: Stores) -> None:
    sharing = PostgresSharing(stores.database, stores.outbox, stores.audit)
    digest = KeyedHash(settings.key_secret.get_secret_value(), SHARE_LINKS)
    access = Access(stores.relations, stores.feed, stores.outbox, sharing, digest, utc_now)
    platform.provide(access)

    async def settle() -> None:
        await stores.outbox.relay()
        await sharing.end_expired(utc_now())
        await stores.feed.settle()

    await platform.every(RELAY_SECONDS, settle, "relay tuples")
    await platform.every(FEED_PURGE_SECONDS, stores.feed.purge, "purge access feed")


async def _open_tokens(
    platform: Platform, settings: AuthSettings, stores: Stores, issuer: Issuer
) -> None:
    secret = settings.key_secret.get_secret_value()
    stored = PostgresApiKeys(stores.database, stores.outbox, stores.audit, stores.revocations)
    using = keys.Keys(
        keys=stored,
        counter=WindowCallCounter(platform.windows),
        digest=KeyedHash(secret, API_KEYS),
        draw=random_base62,
        clock=utc_now,
    )
    platform.on_close(using.close)
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
    platform.provide(using, issuer, sign_ins, audit.Audit(stores.audit, stores.relations))

    async def purge() -> None:
        await stored.purge(utc_now())
        await sessions.purge()
        await stores.audit.purge(utc_now() - timedelta(days=settings.audit_days))

    await platform.every(PURGE_SECONDS, purge, "purge")


async def _open_firebase(
    platform: Platform, settings: FirebaseSettings, revocations: PostgresRevocations
) -> FirebaseLinks:
    actors, directory = await platform.open_actors(), _directory(platform, settings)
    believed = timedelta(seconds=settings.revocation_seconds) if directory else None
    await platform.host_actor(
        FirebaseBridgeActor, lambda context: FirebaseBridgeActor(context, utc_now, believed)
    )
    firebase = None
    if settings.project_id:
        skew = timedelta(seconds=settings.clock_skew_seconds)
        firebase = Firebase(
            project=FirebaseProject(settings.project_id, skew),
            signatures=await _signatures(platform, settings),
            directory=directory,
            revocations=revocations,
            actors=actors,
            clock=utc_now,
        )
    platform.provide(FirebaseSwitch(firebase))
    return FirebaseLinks(directory, revocations, actors, utc_now)


async def _open_erasure(platform: Platform, stores: Stores, links: FirebaseLinks) -> None:
    deletions = PostgresDeletions(stores.database)
    own = PostgresUserData(stores.database, stores.relations, stores.outbox, stores.revocations)
    eraser = accounts.Eraser(deletions, own, platform.workflows, stores.audit)
    platform.provide(eraser)
    # The link goes first: who signs in anew while the rest is erased would leave something behind.
    erasure = UserErasure(deletions, [links, own, UserFacts(stores.relations)])
    platform.workflow_host.add_activity(eraser_of(APP.id), erasure.run)
    platform.workflow_host.add_activity(RECORD_ERASURE, erasure.record)
    await platform.every(ERASURE_SECONDS, eraser.drive, "erasures")


def _directory(platform: Platform, settings: FirebaseSettings) -> AdminDirectory | None:
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
    platform.on_close(directory.close)
    return directory


async def _signatures(platform: Platform, settings: FirebaseSettings) -> SignatureCheck:
    if settings.emulator_host:
        return EmulatedSignatures()
    urls = {
        FirebaseTokenKind.ID_TOKEN: settings.certs_url,
        FirebaseTokenKind.SESSION_COOKIE: settings.cookie_certs_url,
    }
    client = await platform.enter(
        open_outbound(
            CERTIFICATE_TIMEOUTS, trusted=urls.values(), max_body_bytes=MAX_CERTIFICATES_BYTES
        )
    )
    return GoogleSignatures({kind: Certificates(client, url) for kind, url in urls.items()})
