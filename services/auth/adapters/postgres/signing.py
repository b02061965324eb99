"""Signing keys in Postgres."""

from collections.abc import Callable, Sequence

from sqlalchemy import insert, select

from services.auth.domain.signing import SigningKey
from services.auth.tables import signing_keys
from services.kit.storage.db import Database


class PostgresSigningKeys:
    """`SigningKeys` in the table `signing_keys`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[SigningKey]:
        rows = await self._database.execute(select(signing_keys))
        return [SigningKey.model_validate(dict(row)) for row in rows.mappings()]

    async def add(self, decide: Callable[[Sequence[SigningKey]], SigningKey | None]) -> None:
        async with self._database.exclusive("auth.signing_keys") as transaction:
            rows = await transaction.execute(select(signing_keys))
            key = decide([SigningKey.model_validate(dict(row)) for row in rows.mappings()])
            if key is not None:
                await transaction.execute(insert(signing_keys).values(key.model_dump()))
