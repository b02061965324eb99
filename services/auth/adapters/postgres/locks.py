"""What one replica at a time may do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.storage.db import Database

LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtext(:name))")


@asynccontextmanager
async def alone(database: Database, name: str) -> AsyncIterator[AsyncConnection]:
    """A transaction that one replica at a time has under this name."""
    async with database.transaction() as connection:
        await connection.execute(LOCK, {"name": f"auth.{name}"})
        yield connection
