"""Composition root of the auth app."""

import functools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from fastapi import FastAPI

from services.auth.actors import FirebaseBridgeActor
from services.auth.adapters import hashing
from services.auth.adapters.firebase.directory import open_directory
from services.auth.adapters.firebase.signatures import open_signatures
from services.auth.adapters.jose import JoseTokenSigner
from services.auth.adapters.limits import WindowCallCounter
from services.auth.adapters.openfga import OpenFgaRelations
from services.auth.adapters.postgres.audit import PostgresAuditLog
from services.auth.adapters.postgres.deletions import PostgresDeletionReceipts
from services.auth.adapters.postgres.feed import PostgresAccessFeed
from services.auth.adapters.postgres.keys import PostgresApiKeys
from services.auth.adapters.postgres.links import PostgresShareLinks
from services.auth.adapters.postgres.outbox import PostgresOutbox
from services.auth.adapters.postgres.sessions import PostgresRevocations, PostgresSessions
from services.auth.adapters.postgres.signing import PostgresSigningKeys
from services.auth.adapters.postgres.users import PostgresUserRecords
from services.auth.domain.firebase import FirebaseProject
from services.auth.events import events
from services.auth.rpc import routers, tokens
from services.auth.service.accounts import (
    AccountService,
    UserDeadLetters,
    UserErasure,
    UserRows,
    UserTuples,
)
from services.auth.service.audit import AuditService, LocalDenialAudit
from services.auth.service.authorization import AuthorizationService, LocalAccessSource
from services.auth.service.firebase import FirebaseService, FirebaseTokens
from services.auth.service.keys import ApiKeyService
from services.auth.service.outbox import TupleOutbox
from services.auth.service.sharing import SharingService
from services.auth.service.tokens import TokenIssuer, TokenService
from services.auth.settings import AuthSettings, FirebaseSettings
from services.auth.tables import SCHEMA
from services.contracts.auth.accounts import RECORD_ERASURE
from services.contracts.auth.app import APP
from services.contracts.auth.jobs import PURGE, PURGE_ACCESS_FEED
from services.contracts.erasure import eraser_of
from services.kit.access.cache import CHANGED
from services.kit.clock import utc_now
from services.kit.contract import Empty
from services.kit.dapr.jobs.runs import JobRun
from services.kit.dapr.pubsub.inbox import Inbox
from services.kit.errors import RpcError
from services.kit.eventlog import ROWS_PER_BATCH, Purge
from services.kit.settings import Environment, load_settings
from services.platform import Platform, platform_app

MIGRATIONS: Final = Path(__file__).parent / "migrations"
ROTATION_CHECK_SECONDS: Final = 3600.0
RELAY_SECONDS: Final = 2.0
RECOVERY_SECONDS: Final = 10.0


def create_app() -> FastAPI:
    """The auth app, configured by the environment."""
    settings, firebase = load_settings(AuthSettings), load_settings(FirebaseSettings)
    compose = functools.partial(_compose, settings, firebase)
    app = platform_app(APP, settings, routers=routers, events=[events], compose=compose)
    app.include_router(tokens.public)
    return app


async def _compose(
    settings: AuthSettings, firebase_settings: FirebaseSettings, platform: Platform
) -> None:
    database = platform.database
    await database.migrate(SCHEMA, MIGRATIONS)
    secret = settings.key_secret.get_secret_value()
    audit, revocations = PostgresAuditLog(database, utc_now), PostgresRevocations(database, utc_now)
    links = PostgresShareLinks(database)
    feed = PostgresAccessFeed(database, lambda: platform.wake_ups.wake(CHANGED), platform.outbox)
    relations = await _open_relations(platform, settings, feed)
    outbox = TupleOutbox(database, PostgresOutbox(), relations)
    await platform.control_access(
        LocalAccessSource(relations, feed), LocalDenialAudit(relations, audit)
    )

    issuer = await _open_issuer(platform, settings)
    firebase = await _open_firebase(platform, firebase_settings, revocations)
    keys = ApiKeyService(
        database=database,
        keys=PostgresApiKeys(database),
        outbox=outbox,
        audit=audit,
        revocations=revocations,
        counter=WindowCallCounter(platform.windows),
        digest=hashing.KeyedHash(secret, hashing.API_KEYS),
        random_text=hashing.random_base62,
        clock=utc_now,
    )
    platform.on_close(keys.close)
    sign_ins = TokenService(
        database=database,
        sessions=PostgresSessions(database),
        revocations=revocations,
        audit=audit,
        keys=keys,
        firebase=firebase,
        issuer=issuer,
        digest=hashing.KeyedHash(secret, hashing.REFRESH_TOKENS),
        random_text=hashing.random_base62,
        clock=utc_now,
        access_token_life=timedelta(seconds=settings.access_token_seconds),
    )
    digest = hashing.KeyedHash(secret, hashing.SHARE_LINKS)
    sharing = SharingService(database, relations, links, outbox, audit, digest, utc_now)
    authorization = AuthorizationService(relations, feed, links, outbox)
    audit_service = AuditService(audit, relations, timedelta(days=settings.audit_days), utc_now)
    platform.provide(keys, sign_ins, issuer, firebase, sharing, authorization, audit_service)

    records = PostgresUserRecords(database)
    receipts = PostgresDeletionReceipts(database, hashing.KeyedHash(secret, hashing.ERASED_USERS))
    accounts = AccountService(receipts, records, revocations, platform.workflows, audit)
    rows, letters = UserRows(records, relations, outbox), UserDeadLetters(_inbox(platform))
    # Firebase first: a sign-in during the erasure would leave new data behind.
    data = [firebase, rows, UserTuples(relations), letters]
    await _open_accounts(platform, accounts, UserErasure(receipts, data))

    await _begin_relays(platform, outbox, sharing, feed)
    await _add_jobs(platform, feed, keys.purge, sign_ins.purge, audit_service.purge)


async def _begin_relays(
    platform: Platform, outbox: TupleOutbox, sharing: SharingService, feed: PostgresAccessFeed
) -> None:
    await platform.every(RELAY_SECONDS, outbox.relay, "relay tuples")
    await platform.every(RELAY_SECONDS, sharing.end_expired, "end expired links")
    await platform.every(RELAY_SECONDS, feed.publish_abandoned, "publish abandoned removals")


async def _add_jobs(
    platform: Platform, feed: PostgresAccessFeed, *purges: Callable[[], Awaitable[None]]
) -> None:
    inbox, jobs = _inbox(platform), await platform.open_jobs()

    async def purge(_: JobRun[Empty]) -> None:
        for each in purges:
            await each()
        await Purge(platform.database, [], [functools.partial(inbox.purge, ROWS_PER_BATCH)]).run()

    jobs.add(PURGE, purge)
    jobs.add(PURGE_ACCESS_FEED, lambda _: feed.purge())


def _inbox(platform: Platform) -> Inbox:
    assert platform.inbox is not None  # the manifest subscribes
    return platform.inbox


async def _open_accounts(
    platform: Platform, accounts: AccountService, erasure: UserErasure
) -> None:
    platform.provide(accounts)
    platform.workflow_host.add_activity(eraser_of(APP.id), erasure.erase)
    platform.workflow_host.add_activity(RECORD_ERASURE, erasure.record)
    await platform.every(RECOVERY_SECONDS, accounts.recover, "recover account deletions")


async def _open_relations(
    platform: Platform, settings: AuthSettings, feed: PostgresAccessFeed
) -> OpenFgaRelations:
    relations = OpenFgaRelations(
        settings.openfga_url,
        settings.openfga_token.get_secret_value(),
        exclusive=lambda: platform.database.exclusive("auth.openfga"),
        feed=feed,
    )
    platform.on_close(relations.close)
    with suppress(RpcError):  # while OpenFGA does not answer, the first call prepares
        await relations.prepare()
    return relations


async def _open_issuer(platform: Platform, settings: AuthSettings) -> TokenIssuer:
    issuer = TokenIssuer(
        keys=PostgresSigningKeys(platform.database),
        signer=JoseTokenSigner(settings.key_secret.get_secret_value()),
        clock=utc_now,
        issuer=settings.issuer,
        audience=settings.audience,
        max_age=timedelta(days=settings.key_max_age_days),
        issues_local_tokens=settings.environment is not Environment.PRODUCTION,
    )
    await issuer.rotate_when_due()
    await platform.every(ROTATION_CHECK_SECONDS, issuer.rotate_when_due, "key rotation")
    return issuer


async def _open_firebase(
    platform: Platform, settings: FirebaseSettings, revocations: PostgresRevocations
) -> FirebaseService:
    actors = await platform.open_actors()
    directory = open_directory(settings)
    if directory is not None:
        platform.on_close(directory.close)
    tokens = None
    if settings.project_id:
        skew = timedelta(seconds=settings.clock_skew_seconds)
        signatures = await platform.enter(open_signatures(settings))
        tokens = FirebaseTokens(FirebaseProject(settings.project_id, skew), signatures)
    max_age = timedelta(seconds=settings.revocation_seconds) if directory else None
    await platform.host_actor(
        FirebaseBridgeActor, lambda context: FirebaseBridgeActor(context, utc_now, max_age)
    )
    return FirebaseService(tokens, directory, revocations, actors, utc_now)
