"""Signing keys in Postgres."""

from collections.abc import Callable, Sequence

from sqlalchemy import insert, select

from services.auth.adapters.postgres.locks import alone
from services.auth.domain.signing import SigningKey
from services.auth.tables import signing_keys
from services.kit.storage.db import Database


class PostgresKeyStore:
    """`KeyStore` in the schema `auth`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[SigningKey]:
        """Every key."""
        rows = await self._database.execute(select(signing_keys))
        return [SigningKey.model_validate(dict(row)) for row in rows.mappings()]

    async def add(self, decide: Callable[[Sequence[SigningKey]], SigningKey | None]) -> None:
        """Decide and add in one transaction, under a lock that replicas share."""
        async with alone(self._database, "signing_keys") as connection:
            rows = await connection.execute(select(signing_keys))
            key = decide([SigningKey.model_validate(dict(row)) for row in rows.mappings()])
            if key is not None:
                await connection.execute(insert(signing_keys).values(key.model_dump()))
