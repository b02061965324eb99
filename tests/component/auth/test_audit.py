"""The audit log of the real app: what is in it, and who reads it."""

import asyncio
import secrets
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg

from services.auth.adapters.postgres.audit import PostgresAuditLog
from services.cli.stack import Stack
from services.contracts.auth.audit import AuditAction
from services.kit.clock import utc_now
from services.kit.storage.db import Database
from tests.component.auth.conftest import AuthApp, AuthApps, Person, administer, by_app
from tests.requirements import requirement
from tests.support.wait import wait_until


def somebody(app: AuthApp) -> Person:
    return Person(app, f"user_{secrets.token_hex(8)}")


async def events(person: Person, **fields: Any) -> list[dict[str, Any]]:
    status, log = await person.call("AuditService", "ListAuditEvents", **fields)
    assert status == 200, log
    return log["events"]


async def record(app: AuthApp, **fields: Any) -> None:
    body = {"reference": secrets.token_hex(8), "action": "ACCESS_DENIED", **fields}
    status, answer = await by_app(app, "llm", "AuditService", "RecordAuditEvent", **body)
    assert (status, answer) == (200, {})


@requirement("access:audit:own")
async def test_what_happens_to_a_key_is_in_its_owners_log_and_in_no_other(
    replicas: list[AuthApp],
) -> None:
    ada, eve = somebody(replicas[0]), somebody(replicas[1])
    made = await ada.key()
    key_id, secret = made["apiKey"]["keyId"], made["secret"]
    for method in ("UpdateApiKey", "RotateApiKey", "RevokeApiKey", "RevokeApiKey"):
        status, _ = await ada.call("ApiKeyService", method, keyId=key_id)
        assert status == 200
    log = await events(Person(replicas[1], ada.user_id))
    assert [event["action"] for event in log] == [
        "KEY_REVOKED",
        "KEY_ROTATED",
        "KEY_UPDATED",
        "KEY_CREATED",
    ]
    for event in log:
        assert event["object"] == f"api_key:{key_id}"
        assert (event["actor"], event["owner"]) == (ada.user_id, f"user:{ada.user_id}")
    assert secret[20:] not in str(log)
    assert await events(eve) == []


@requirement("access:trusted-apps")
async def test_what_a_trusted_back_end_does_for_a_user_names_it(auth_apps: AuthApps) -> None:
    app = await auth_apps.start({"YOCASO_TRUSTED_APPS": "backend"}).until_ready()
    ada = somebody(app)
    by_back_end = replace(ada, calling_app="backend")
    run, ada_s = f"run:run_{secrets.token_hex(8)}", f"user:{ada.user_id}"
    owned = {"subject": ada_s, "relation": "owner", "object": run}
    await by_app(app, "llm", "AuthorizationService", "WriteTuples", writes=[owned])
    foreign = (await somebody(app).key())["apiKey"]["keyId"]
    for person in (ada, by_back_end):
        await person.key()
        shared = {"object": run, "subject": f"user:{somebody(app).user_id}"}
        assert (await person.call("AuthorizationService", "Share", **shared))[0] == 200
        assert (await person.call("ApiKeyService", "GetApiKey", keyId=foreign))[0] == 404
    assert (await by_back_end.call("AccountService", "DeleteAccount"))[0] in (200, 503)
    for action, wanted in (
        ("KEY_CREATED", ["backend", None]),
        ("SHARING_CHANGED", ["backend", None]),
        ("ACCOUNT_DELETED", ["backend"]),
    ):
        log = await events(ada, action=action)
        assert [event["details"].get("app") for event in log] == wanted
    for unnamed in ("stranger", "", "llm"):
        status, refused = await replace(ada, calling_app=unnamed).call(
            "ApiKeyService", "ListApiKeys"
        )
        assert (status, refused["error"]["code"]) == (401, "UNAUTHENTICATED")
    status, refused = await by_app(app, "backend", "AuditService", "RecordAuditEvent")
    assert (status, refused["error"]["code"]) == (403, "PERMISSION_DENIED")


@requirement("access:audit:own")
async def test_an_organizations_log_is_read_by_its_admins(replicas: list[AuthApp]) -> None:
    app, acme = replicas[0], f"org-{secrets.token_hex(6)}"
    admin, stranger = somebody(app), somebody(app)
    await administer(app, admin.user_id, acme)
    key_id = (await admin.key(organizationId=acme))["apiKey"]["keyId"]
    [event] = await events(admin, organizationId=acme)
    assert (event["actor"], event["owner"]) == (admin.user_id, f"organization:{acme}")
    assert await events(admin) == []
    for organization in (acme, "org-that-is-not"):
        status, refused = await stranger.call(
            "AuditService", "ListAuditEvents", organizationId=organization
        )
        assert (status, refused["error"]["message"]) == (404, "No such organization.")
    service_user = Person(app, f"organization.{acme}", key_id=key_id)
    assert await events(service_user) == []


@requirement("access:audit:own")
async def test_a_denied_access_is_in_the_log_of_whose_object_it_was(
    replicas: list[AuthApp],
) -> None:
    ada, eve = somebody(replicas[0]), somebody(replicas[1])
    key_id = (await ada.key())["apiKey"]["keyId"]
    status, _ = await eve.call("ApiKeyService", "RevokeApiKey", keyId=key_id)
    assert status == 404

    async def recorded() -> list[dict[str, Any]]:
        return await events(ada, action="ACCESS_DENIED")

    await wait_until(recorded, what="the event")
    [denied] = await recorded()
    assert (denied["actor"], denied["object"]) == (eve.user_id, f"api_key:{key_id}")
    assert denied["details"] == {"wanted": "manager"}
    assert await events(eve) == []


@requirement("access:audit:once")
async def test_an_event_of_an_app_is_recorded_once_per_reference(replicas: list[AuthApp]) -> None:
    ada, eve = somebody(replicas[0]), somebody(replicas[0])
    target = f"conversation:conv_{secrets.token_hex(16)}"
    a_tuple = {"subject": f"user:{ada.user_id}", "relation": "owner", "object": target}
    await by_app(replicas[0], "llm", "AuthorizationService", "WriteTuples", writes=[a_tuple])
    event = {"reference": secrets.token_hex(8), "actor": eve.user_id, "object": target}
    await asyncio.gather(*(record(replicas[n % 2], **event) for n in range(6)))
    assert [each["object"] for each in await events(ada)] == [target]
    await record(replicas[0], actor=eve.user_id, object=f"conversation:conv_{'0' * 32}")
    await record(replicas[0], actor=eve.user_id)
    await record(replicas[0], actor="somebody", owner=f"user:{eve.user_id}")
    assert len(await events(eve)) == 3
    assert len(await events(ada)) == 1


async def test_a_log_is_read_in_pages_newest_first_and_by_action(replicas: list[AuthApp]) -> None:
    ada, eve = somebody(replicas[0]), somebody(replicas[0])
    for number in range(5):
        action = ("ACCESS_DENIED", "SHARING_CHANGED")[number % 2]
        await record(replicas[0], actor=ada.user_id, action=action, details={"number": str(number)})
    numbers, cursor = [], {}
    for _ in range(3):
        _, page = await ada.call("AuditService", "ListAuditEvents", limit=2, **cursor)
        numbers += [event["details"]["number"] for event in page["events"]]
        cursor = {"cursor": page["nextCursor"]} if "nextCursor" in page else {}
    assert (numbers, cursor) == (["4", "3", "2", "1", "0"], {})
    assert len(await events(ada, action="SHARING_CHANGED")) == 2
    _, first = await ada.call("AuditService", "ListAuditEvents", limit=2)
    status, refused = await eve.call("AuditService", "ListAuditEvents", cursor=first["nextCursor"])
    assert (status, refused["error"]["code"]) == (400, "INVALID_ARGUMENT")


async def test_only_apps_that_may_record_events(replicas: list[AuthApp]) -> None:
    ada = somebody(replicas[0])
    body = {"reference": "1", "action": "ACCESS_DENIED", "actor": ada.user_id}
    status, refused = await ada.call("AuditService", "RecordAuditEvent", **body)
    assert (status, refused["error"]["code"]) == (403, "PERMISSION_DENIED")
    assert await events(ada) == []


async def test_old_events_are_forgotten_and_young_ones_stay(
    replicas: list[AuthApp], servers: Stack
) -> None:
    ada = somebody(replicas[0])
    database = Database(servers.database_url())
    log = PostgresAuditLog(database, lambda: utc_now() - timedelta(days=400))
    await log.record(AuditAction.KEY_CREATED, actor=ada.user_id, owner=f"user:{ada.user_id}")
    await record(replicas[0], actor=ada.user_id)
    assert len(await events(ada)) == 2
    await log.purge(utc_now() - timedelta(days=400))
    assert [event["action"] for event in await events(ada)] == ["ACCESS_DENIED"]
    await database.close()


async def test_a_page_of_a_log_is_read_by_its_index(
    replicas: list[AuthApp], servers: Stack
) -> None:
    connection = await asyncpg.connect(servers.database_url())
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(
        "INSERT INTO auth.audit_events (at, action, actor, owner, details) "
        "SELECT now(), 'ACCESS_DENIED', 'ada', 'user:' || n % 500, '{}' "
        "FROM generate_series(1, 50000) AS n"
    )
    # The planner's choice hangs on its figures.
    await connection.execute("ANALYZE auth.audit_events")
    plan = await connection.fetch(
        "EXPLAIN SELECT * FROM auth.audit_events WHERE owner = 'user:7' ORDER BY number DESC LIMIT 50"
    )
    await transaction.rollback()
    await connection.close()
    text = "\n".join(row[0] for row in plan)
    assert "audit_events_owner" in text
    assert "Sort" not in text
