"""The lease of this process on all streams that it works on: a heartbeat row and an advisory lock in Postgres.

A thread with its own connection renews it, so that a busy event loop does not look like a dead process. Postgres
releases the session's advisory lock when the process dies. A host counts as dead when its heartbeat is older than
LEASE_SECONDS and its lock is free, or older than FROZEN_SECONDS: a stopped process keeps its connections and lock.
"""

import asyncio
import threading
import time
import uuid
from typing import Any, Final

import asyncpg
import structlog

from services.kit.eventlog import statements as sql
from services.kit.storage.db import KEEPALIVE

HEARTBEAT_SECONDS: Final = 1.0
LEASE_SECONDS: Final = 3.0
FROZEN_SECONDS: Final = 15.0
RECONNECT_SECONDS: Final = 0.2
JOIN_SECONDS: Final = 3.0

log = structlog.get_logger()


class HostLease:
    """The lease of this process; `host_id` is new at each start."""

    def __init__(self, url: str) -> None:
        self.host_id = uuid.uuid4().hex
        self._url = url
        self._lock_key = int(self.host_id[:15], 16)
        self._thread = threading.Thread(target=self._run, name="host lease", daemon=True)
        self._acquired = threading.Event()
        self._closing = threading.Event()
        self._held_since: float | None = None
        self._renewed_at = 0.0
        self._was_lost = False

    async def start(self) -> None:
        """Start the thread, and wait until the lease is first held."""
        self._thread.start()
        await asyncio.to_thread(self._acquired.wait)

    async def close(self) -> None:
        self._closing.set()
        await asyncio.to_thread(self._thread.join, JOIN_SECONDS)

    @property
    def is_stable(self) -> bool:
        """Whether the lease is held, and has been for LEASE_SECONDS if it was ever interrupted.

        Only then may this process declare other hosts dead: the same outage may have interrupted their leases.
        """
        since, now = self._held_since, time.monotonic()
        if since is None or now - self._renewed_at > LEASE_SECONDS:
            return False
        return not self._was_lost or now - since >= LEASE_SECONDS

    def _run(self) -> None:
        asyncio.run(self._hold())

    async def _hold(self) -> None:
        while not self._closing.is_set():
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
            server_settings={
                **KEEPALIVE,  # without it a session whose client has vanished keeps the lock for hours
                "application_name": "yocaso-host",
                "synchronous_commit": "off",
            },
        )
        try:
            # Waits, as another host's DEAD_HOSTS statement may hold the lock for a moment.
            await connection.execute("SELECT pg_advisory_lock($1)", self._lock_key)
            await connection.execute(sql.ENTER, self.host_id, self._lock_key)
            self._renew()
            self._acquired.set()
            await self._send_heartbeats(connection)
            await connection.execute(sql.LEAVE, self.host_id)
        finally:
            connection.terminate()

    async def _send_heartbeats(self, connection: Any) -> None:
        while not self._closing.is_set():
            await asyncio.sleep(HEARTBEAT_SECONDS)
            if await connection.execute(sql.HEARTBEAT, self.host_id) == "UPDATE 0":  # declared dead
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
