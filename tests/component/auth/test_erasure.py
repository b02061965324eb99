"""Receipts of account deletions, and the erasure of a user's rows, on a real Postgres."""

import secrets
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import insert, select

from services.auth.adapters.hashing import ERASED_USERS, KeyedHash
from services.auth.adapters.postgres.audit import PostgresAuditLog
from services.auth.adapters.postgres.deletions import PostgresDeletionReceipts
from services.auth.adapters.postgres.users import PostgresUserRecords
from services.auth.tables import api_key_charges, api_key_days, api_keys, audit_events
from services.contracts.auth.accounts import DeletionStatus
from services.contracts.auth.audit import AuditAction
from services.kit.clock import utc_now
from services.kit.storage.db import Database
from tests.requirements import requirement


@pytest.fixture
async def database(own_database_url: str) -> AsyncIterator[Database]:
    database = Database(own_database_url)
    yield database
    await database.close()


def open_receipts(database: Database) -> PostgresDeletionReceipts:
    return PostgresDeletionReceipts(database, KeyedHash("secret", ERASED_USERS))


@requirement("access:erasure")
async def test_a_receipt_covers_what_happened_before_its_end(database: Database) -> None:
    receipts = open_receipts(database)
    async with database.transaction() as transaction:
        assert not await receipts.covers(transaction, "ada", utc_now())
        await receipts.begin("ada", "deletion_1")
    async with database.transaction() as transaction:
        assert await receipts.covers(transaction, "ada", utc_now())
        assert not await receipts.covers(transaction, "bob", utc_now())
    await receipts.complete("deletion_1")
    async with database.transaction() as transaction:
        assert await receipts.covers(transaction, "ada", utc_now() - timedelta(minutes=1))
        assert not await receipts.covers(transaction, "ada", utc_now() + timedelta(minutes=1))


@requirement("access:erasure")
async def test_a_receipt_has_each_part_once_and_no_user_when_it_is_complete(
    database: Database,
) -> None:
    receipts = open_receipts(database)
    begun = await receipts.begin("ada", "deletion_1")
    assert (begun.deletion_id, begun.status, begun.parts) == (
        "deletion_1",
        DeletionStatus.RUNNING,
        [],
    )
    assert await receipts.begin("ada", "deletion_2") == begun
    for removed in ({"conversations": 3}, {"conversations": 4}):
        parted = await receipts.add_part("deletion_1", "llm", removed)
    assert parted is not None
    assert [(part.app, part.removed) for part in parted.parts] == [("llm", {"conversations": 3})]
    assert [each.user_id for each in await receipts.unfinished()] == ["ada"]
    assert await receipts.finished() == []
    complete = await receipts.complete("deletion_1")
    assert complete is not None
    assert complete.status is DeletionStatus.COMPLETED
    assert await receipts.complete("deletion_1") == complete == await receipts.read("deletion_1")
    assert await receipts.unfinished() == []
    assert await receipts.finished() == ["deletion_1"]
    await receipts.forget_workflow("deletion_1")
    assert await receipts.finished() == []
    assert (await receipts.begin("ada", "deletion_3")).deletion_id == "deletion_3"
    for unknown in (
        receipts.read("no"),
        receipts.complete("no"),
        receipts.add_part("no", "llm", {}),
    ):
        assert await unknown is None


async def add_key(database: Database, key_id: str, organization: str | None = None) -> None:
    now = utc_now()
    key = {
        "key_id": key_id,
        "user_id": "ada",
        "organization_id": organization,
        "email": "",
        "name": "ci",
        "mode": "LIVE",
        "scopes": [],
        "created_at": now,
        "start": secrets.token_hex(9),
        "digest": b"",
    }
    await database.execute(insert(api_keys).values(key))
    charge = {"key_id": key_id, "reference": "turn", "amount": 1, "at": now}
    await database.execute(insert(api_key_charges).values(charge))
    day = {"key_id": key_id, "day": now.date(), "amount": 1}
    await database.execute(insert(api_key_days).values(day))


@requirement("access:erasure")
async def test_a_user_s_own_rows_are_erased_and_the_name_in_the_logs_of_others(
    database: Database,
) -> None:
    records, log = PostgresUserRecords(database), PostgresAuditLog(database, utc_now)
    await add_key(database, "own")
    await add_key(database, "organizations", "acme")
    await log.record(AuditAction.KEY_CREATED, actor="ada", owner="user:ada")
    shared = {"change": "shared", "subject": "user:ada", "by": "ada", "note": "adam"}
    for actor, details in (
        ("ada", {"change": "opened"}),
        ("bob", shared),
        ("eve", {"who": "adam"}),
    ):
        await log.record(
            AuditAction.SHARING_CHANGED, actor=actor, owner="user:bob", details=details
        )
    assert await records.count("ada", "user:ada") == {"apiKeys": 1, "sessions": 0, "auditEvents": 1}

    await records.revoke_keys("ada")
    revoked = select(api_keys.c.key_id).where(api_keys.c.revoked_at.is_not(None))
    assert list((await database.execute(revoked)).scalars()) == ["own"]
    assert await records.key_ids("ada") == ["own"]
    for _ in range(2):
        await records.erase_key("own")
        await records.erase("ada", "user:ada", "erased")

    for table in (api_keys, api_key_charges, api_key_days):
        kept = await database.execute(select(table.c.key_id))
        assert list(kept.scalars()) == ["organizations"]
    rows = await database.execute(
        select(audit_events.c.actor, audit_events.c.details).order_by(audit_events.c.number)
    )
    assert [tuple(row) for row in rows] == [
        ("erased", {"change": "opened"}),
        ("bob", {**shared, "subject": "user:erased", "by": "erased"}),
        ("eve", {"who": "adam"}),
    ]
