"""The lease of this process: one row and one session of Postgres, whatever the number of streams it works on.

The lease is renewed by a thread with a connection of its own, so a busy event loop is not taken for a dead process.
Its session holds an advisory lock, which the server releases when the process dies. A host counts as dead when its
row is older than LEASE_SECONDS *and* its lock is free, or when the row is older than FROZEN_SECONDS whatever the
lock: a stopped process keeps its connections, and does not answer.
"""

import asyncio
import threading
import time
import uuid
from typing import Any, Final

import asyncpg
import structlog

from services.kit.eventlog import statements as sql

BEAT_SECONDS: Final = 1.0
LEASE_SECONDS: Final = 3.0
FROZEN_SECONDS: Final = 15.0
RECONNECT_SECONDS: Final = 0.2
JOIN_SECONDS: Final = 3.0

log = structlog.get_logger()


class HostLease:
    """This process among the hosts of durable work. `host_id` is new at each start, so nothing is inherited."""

    def __init__(self, url: str) -> None:
        self.host_id = uuid.uuid4().hex
        self._url = url
        self._lock_key = int(self.host_id[:15], 16)
        self._thread = threading.Thread(target=self._run, name="host lease", daemon=True)
        self._entered = threading.Event()
        self._leaving = threading.Event()
        self._held_since: float | None = None
        self._renewed_at = 0.0
        self._was_lost = False

    async def start(self) -> None:
        """Begin to hold the lease; returns once it is held for the first time."""
        self._thread.start()
        await asyncio.to_thread(self._entered.wait)

    async def close(self) -> None:
        """Give the lease up."""
        self._leaving.set()
        await asyncio.to_thread(self._thread.join, JOIN_SECONDS)

    @property
    def may_judge(self) -> bool:
        """Whether this process may declare others dead.

        After a break of its own lease it waits for a lease's time, since what broke it may have broken theirs.
        """
        since, now = self._held_since, time.monotonic()
        if since is None or now - self._renewed_at > LEASE_SECONDS:
            return False
        return not self._was_lost or now - since >= LEASE_SECONDS

    def _run(self) -> None:
        asyncio.run(self._hold())

    async def _hold(self) -> None:
        while not self._leaving.is_set():
            try:
                await self._session()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                self._held_since, self._was_lost = None, True
                log.warning("host.lease_interrupted", error=type(error).__name__)
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _session(self) -> None:
        postgres: Any = asyncpg  # ships no types
        connection = await postgres.connect(
            self._url,
            timeout=5,
            command_timeout=LEASE_SECONDS,
            server_settings={"application_name": "yocaso-host", "synchronous_commit": "off"},
        )
        try:
            # A recoverer that judges this host holds the lock for the moment of its statement.
            await connection.execute("SELECT pg_advisory_lock($1)", self._lock_key)
            await connection.execute(sql.ENTER, self.host_id, self._lock_key)
            self._renew()
            self._entered.set()
            await self._beat(connection)
            await connection.execute(sql.LEAVE, self.host_id)
        finally:
            connection.terminate()

    async def _beat(self, connection: Any) -> None:
        while not self._leaving.is_set():
            await asyncio.sleep(BEAT_SECONDS)
            if await connection.execute(sql.BEAT, self.host_id) == "UPDATE 0":  # declared dead
                self._held_since, self._was_lost = None, True
                await connection.execute(sql.ENTER, self.host_id, self._lock_key)
            self._renew()

    def _renew(self) -> None:
        now = time.monotonic()
        if self._held_since is None:
            self._held_since = now
        elif now - self._renewed_at > LEASE_SECONDS:
            self._held_since, self._was_lost = now, True
        self._renewed_at = now
