"""Tables of the schema `auth`."""

from typing import Final

from sqlalchemy import Column, DateTime, LargeBinary, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA: Final = "auth"
metadata = MetaData(schema=SCHEMA)

signing_keys: Final = Table(
    "signing_keys",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("public", JSONB, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("signs_from", DateTime(timezone=True), nullable=False),
)
