"""Expired rows are deleted by jobs, of which the scheduler runs each in one replica."""

import aiohttp
import asyncpg
import pytest

from tests.requirements import requirement
from tests.support.platform import Platform
from tests.support.wait import wait_until


async def deleted_record(own_platform: Platform) -> int:
    """Insert an expired record and wait until the job of llm has deleted it; the number of records left."""
    database = await asyncpg.connect(own_platform.stack.database_url())
    await database.execute(
        "INSERT INTO events.idempotency"
        " (caller, operation, key, fingerprint, owner, lease_until, status, created_at)"
        " VALUES ('retention', 'o', 'k', '', gen_random_uuid(), now(), 200, now() - interval '25 h')"
    )

    async def left() -> int:
        row = "SELECT count(*) FROM events.idempotency WHERE caller = 'retention'"
        return await database.fetchval(row)

    async def is_deleted() -> bool:
        return await left() == 0

    assert await left() == 1
    await wait_until(is_deleted, 100, "the record to be deleted", every=0.5)
    await database.close()
    return 0


@requirement("kit:retention")
@pytest.mark.waits(begin=deleted_record)
async def test_the_scheduled_job_deletes_expired_records(waited: int) -> None:
    assert waited == 0


@requirement("kit:retention")
async def test_auths_job_deletes_what_has_expired_and_nothing_else(
    own_platform: Platform, database: asyncpg.Connection
) -> None:
    for name, age in (("retention-old", "9 days"), ("retention-new", "7 days")):
        await database.execute(
            "INSERT INTO events.inbox (app, topic, event_id, at)"
            f" VALUES ('auth', 'retention', $1, now() - interval '{age}')",
            name,
        )
        await database.execute(
            "INSERT INTO auth.revocations (claim, value, issued_until, expires_at)"
            f" VALUES ('sid', $1, now(), now() + interval '8 days' - interval '{age}')",
            name,
        )
    await database.execute(
        "UPDATE events.jobs SET last_run = NULL WHERE (app, name) = ('auth', 'purge')"
    )
    await deliver(own_platform, "auth", "purge")
    inbox = await database.fetch("SELECT event_id FROM events.inbox WHERE topic = 'retention'")
    assert [row[0] for row in inbox] == ["retention-new"]
    revoked = await database.fetch(
        "SELECT value FROM auth.revocations WHERE value LIKE 'retention-%'"
    )
    assert [row[0] for row in revoked] == ["retention-new"]


async def deliver(platform: Platform, app: str, job: str) -> None:
    """Deliver a job as the sidecar does."""
    headers = {"dapr-api-token": platform.stack.app_token(app)}
    url = f"{platform.stack.url(app)}/job/{job}"
    async with aiohttp.ClientSession() as session, session.post(url, headers=headers) as reply:
        assert reply.status == 200, await reply.text()
