"""Records a history of every workflow from a real run: `uv run python -m tests.support.record_histories`.

Only when no instance of a changed workflow can be in flight; CONTRIBUTING says what to do otherwise.
"""

import asyncio
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Final

from services.contracts.auth.accounts import ACCOUNT_SERVICE
from services.kit.storage.db import Database
from tests.support.model_server import script_text
from tests.support.platform import SHORT_RETENTION, Client, Platform
from tests.support.port_offsets import offset_of
from tests.support.wait import wait_until
from tests.support.workflow_histories import HISTORIES, History

OFFSET: Final = offset_of("upgrade")
ROWS: Final = "SELECT value FROM dapr.state WHERE key LIKE $1 ORDER BY key"


class Recorder:
    """Plays what runs workflows, and saves their histories."""

    def __init__(self, platform: Platform, database: Database) -> None:
        self._platform = platform
        self._database = database

    async def record(self) -> None:
        """A turn that ends at its third attempt, one that never succeeds, and the deletion of an account."""
        async with self._platform.client(f"user-{uuid.uuid4().hex[:8]}") as client:
            busy = {"status": 429, "retry_after": "1"}
            await self._save(await self._turn(client, [busy, busy, {}]), "generation")
            await self._save(await self._turn(client, [busy]), "generation-failed")
            deletion = await client.must_of(ACCOUNT_SERVICE, "DeleteAccount")
        root = deletion["deletionId"]
        names = {root: "delete-account", f"{root}:llm": "erase-app", f"{root}:auth": "erase-auth"}
        await asyncio.gather(*(self._save(each, name) for each, name in names.items()))

    async def _turn(self, client: Client, attempts: list[dict[str, str | int]]) -> str:
        text = f"{script_text(attempts=attempts)} {uuid.uuid4().hex}"
        body = {"conversationId": await client.conversation(), "text": text}
        fold = await client.reader("StreamMessage", body).run(timeout=120)
        return fold.events[0]["data"]["turnId"]

    async def _save(self, instance_id: str, name: str) -> None:
        async def ended() -> History | None:
            rows = await self._database.fetch(ROWS, f"%||{instance_id}||history-%")
            history = History.parse(instance_id, [row[0] for row in rows]) if rows else None
            return history if history and history.has_ended else None

        history = await wait_until(ended, 120, f"the end of {instance_id}")
        history.save(HISTORIES / f"{name}.json")
        print(f"{name}: {len(history.events)} events of {history.workflow}")


async def record(platform: Platform) -> None:
    database = Database(platform.stack.database_url())
    try:
        await Recorder(platform, database).record()
    finally:
        await database.close()


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="yocaso-histories-"))
    platform = Platform(folder, OFFSET, env=SHORT_RETENTION).start()
    try:
        asyncio.run(record(platform))
    finally:
        platform.stop()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
