"""Time limits of handlers, in a transaction of a real Postgres."""

import asyncio

import pytest
from sqlalchemy import text

from services.kit.bindings import InputBinding
from services.kit.dapr import bindings as kit
from services.kit.dapr.bindings import BindingMessage, Bindings
from services.kit.dapr.sidecar import Sidecar
from services.kit.errors import ErrorCode, RpcError
from services.kit.storage.db import Database, Transaction
from tests.requirements import requirement

BELL = InputBinding("doorbell", "Rings.")


@requirement("kit:bindings:input", "kit:database")
async def test_a_binding_that_is_handled_too_slowly_is_answered_so_and_changes_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit, "HANDLER_SECONDS", 0.1)
    database, sidecar = Database(database_url), Sidecar("127.0.0.1:1")
    bindings = Bindings("llm", [BELL], database, sidecar)

    async def ring(_: BindingMessage, transaction: Transaction) -> None:
        await transaction.execute(text("CREATE TABLE rung ()"))
        await asyncio.Event().wait()

    bindings.add(BELL, ring)
    with pytest.raises(RpcError) as late:
        await bindings.deliver(BELL, BindingMessage(b"", {}, None))
    assert late.value.code is ErrorCode.DEADLINE_EXCEEDED
    assert (await database.fetch_one("SELECT to_regclass('rung')"))[0] is None
    await sidecar.close()
    await database.close()
