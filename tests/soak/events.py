"""Checks of events and jobs after the faults: each event was published and took effect once, and jobs run again."""

import contextlib
import json
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
from valkey.asyncio import Valkey

from services.contracts.apps import APPS
from services.contracts.auth.audit import AuditAction
from services.contracts.llm.topics import TURN_COMPLETED
from services.kit.jobs import CronJob
from tests.soak.ledger import Ledger
from tests.soak.load import User
from tests.support.checkers import check_ledger, check_set
from tests.support.history import Operation
from tests.support.platform import Platform
from tests.support.wait import wait_until

EMPTY_SECONDS: Final = 90.0
"""Timeout of the last publications, and of the subscribers' effects."""
FREQUENT: Final = timedelta(minutes=1)
JOB_SECONDS: Final = 90.0
"""Timeout of the next run of a job that is due every minute."""
OUTBOX: Final = "SELECT count(*) FROM events.outbox"
LEFT: Final = "SELECT app, topic, published_at, left(body, 300) AS body FROM events.outbox LIMIT 20"
DEAD: Final = "SELECT app, topic, error FROM events.dead_letters"
RECORDED: Final = "SELECT object FROM auth.audit_events WHERE action = $1 AND actor = $2"
RUNS: Final = "SELECT app, name, last_run, error FROM events.jobs"


async def check_events(platform: Platform, users: list[User], ledger: Ledger) -> None:
    """After all conversations are deleted: the outbox is empty, no event was given up, each took effect once."""
    connection = await asyncpg.connect(platform.stack.database_url())
    try:

        async def is_empty() -> bool:
            return not await connection.fetchval(OUTBOX)

        with contextlib.suppress(AssertionError):  # what is left is recorded below
            await wait_until(is_empty, EMPTY_SECONDS, every=0.5)
        for row in await connection.fetch(LEFT):
            ledger.problem("an event that is left in the outbox", str(dict(row)))
        for row in await connection.fetch(DEAD):
            ledger.problem("a dead letter", str(dict(row)))
        for user in users:
            await _check_audit_log(connection, user)
    finally:
        await connection.close()
    _check_published(await _published_turns(platform), users, ledger)


async def _check_audit_log(connection: asyncpg.Connection, user: User) -> None:
    """Each deletion of a user is recorded once."""
    name = user.caller.user
    rows = await connection.fetch(RECORDED, AuditAction.CONVERSATION_DELETED, name)
    deletions = [
        Operation(name, "delete", each, f"conversation:{each}", 0, end)
        for each, end in (
            *((each, 1) for each in user.deleted),
            *((each, None) for each in user.unknown),
        )
    ]
    for each in check_set([row["object"] for row in rows], deletions):
        user.caller.ledger.problem("an audit log that is wrong", f"{name}: {each}")
    user.caller.ledger.done["deletions recorded"] += len(rows)


async def _published_turns(platform: Platform) -> dict[str, dict[str, dict[str, Any]]]:
    """By turn and event id the data of what the broker has; a relay that dies may publish an event twice."""
    found: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    valkey = Valkey.from_url(platform.stack.environment.valkey_url)
    try:
        for _, fields in await valkey.xrange(TURN_COMPLETED.name):
            event = json.loads(fields[b"data"])
            found[event["data"]["turnId"]][event["id"]] = event["data"]
    finally:
        await valkey.aclose()
    return found


def _check_published(
    published: dict[str, dict[str, dict[str, Any]]], users: list[User], ledger: Ledger
) -> None:
    """Each turn that ended before its conversation's deletion is published by one event, with its usage."""
    for turn, events in published.items():
        if len(events) > 1:
            ledger.problem("a turn that was published twice", f"{turn}: {events}")
    for user in users:
        ended = [
            (turn.ref["turnId"], turn.usage) for owned in user.conversations for turn in owned.turns
        ]
        for turn, usage in ended:
            if turn not in published:
                ledger.problem("a turn that was not published", turn)
                continue
            shown = [_usage(each) for each in published[turn].values()]
            for each in check_ledger({turn: usage}, {turn: shown}):
                ledger.problem("an event with another usage", each)
    ledger.done["turns published"] += len(published)


def _usage(turn: dict[str, Any]) -> int:
    """The tokens of a completed turn, as `SoakTurn.usage` counts them."""
    return int(turn.get("usage", {}).get("totalTokens", 0)) if turn["status"] == "COMPLETED" else 0


async def check_jobs(platform: Platform, ledger: Ledger) -> None:
    """Every job that is due each minute has run since the faults ended, without an error."""
    since = datetime.now(UTC)
    wanted = {
        (app.id, job.name)
        for app in APPS
        for job in app.jobs
        if isinstance(job, CronJob) and _runs_each_minute(job.due.due)
    }
    connection = await asyncpg.connect(platform.stack.database_url())
    try:

        async def late() -> dict[tuple[str, str], str]:
            rows = {(row["app"], row["name"]): row for row in await connection.fetch(RUNS)}
            return {
                job: str(dict(rows[job])) if job in rows else "it is not registered"
                for job in wanted
                if job not in rows
                or rows[job]["error"]
                or not rows[job]["last_run"]
                or datetime.fromisoformat(rows[job]["last_run"]) < since
            }

        async def all_ran() -> bool:
            return not await late()

        with contextlib.suppress(AssertionError):  # late ones are recorded below
            await wait_until(all_ran, JOB_SECONDS, every=1)
        for job, row in (await late()).items():
            ledger.problem("a job that did not run", f"{job}: {row}")
    finally:
        await connection.close()
    ledger.done["jobs run after the faults"] += len(wanted)


def _runs_each_minute(due: Callable[[datetime, datetime | None], datetime | None]) -> bool:
    now = datetime.now(UTC)
    return due(now, now - FREQUENT) is not None
