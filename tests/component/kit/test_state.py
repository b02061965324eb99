"""What one message of the sidecar cannot hold is read all the same."""

import uuid
from collections.abc import AsyncIterator

import pytest

from services.cli.stack import Stack
from services.kit.sidecar import Sidecar, SidecarError, StateWrite
from tests.requirements import requirement

ROWS = 120
TEXT_BYTES = 64 * 1024
ROWS_AT_ONCE = 20


@pytest.fixture
async def sidecar(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sidecar]:
    """The sidecar of the tests' app."""
    monkeypatch.setenv("DAPR_API_TOKEN", stack.api_token("workflows"))
    ports = stack.spec("workflows-daprd").ports
    opened = Sidecar(f"127.0.0.1:{ports['gRPC of the sidecar of workflows']}")
    yield opened
    await opened.close()


@requirement("kit:large-reads")
async def test_rows_that_no_message_could_hold_are_read_in_order(sidecar: Sidecar) -> None:
    prefix = f"Large/{uuid.uuid4().hex}"
    keys = [f"{prefix}/{number}" for number in range(ROWS)]
    rows = [StateWrite(key, f'"{key[-3:]:x<{TEXT_BYTES}}"'.encode()) for key in keys]
    for first in range(0, ROWS, ROWS_AT_ONCE):
        await sidecar.write(rows[first : first + ROWS_AT_ONCE])
    wanted = [*keys[:50], f"{prefix}/missing", *keys[50:]]
    found = await sidecar.read_many(wanted)
    assert [row.key for row in found] == wanted
    assert [row.data for row in found if row.data] == [row.data for row in rows]
    assert all(row.etag for row in found if row.data)
    assert found[50].data == b""


async def test_a_transaction_that_no_message_could_hold_is_refused_whole(
    sidecar: Sidecar,
) -> None:
    key = f"Large/{uuid.uuid4().hex}"
    with pytest.raises(SidecarError):
        await sidecar.write([StateWrite(key, b"1"), StateWrite(f"{key}/b", b"1" * 5 * 1024 * 1024)])
    assert (await sidecar.read(key)).data == b""
