"""Checks that no store has data of conversations after all are deleted."""

import asyncio
import contextlib
from typing import Final

from tests.soak.caller import new_key
from tests.soak.ledger import Abandoned, Ledger
from tests.soak.load import User
from tests.support.platform import Platform
from tests.support.residual_data import residual_rows, tombstones
from tests.support.wait import wait_until

STORES: Final = frozenset({"state", "rows", "tuple", "scheduler"})
EMPTY_SECONDS: Final = 120.0
"""Timeout of the background removal after the last deletion."""


async def check_visibility(platform: Platform, ledger: Ledger) -> None:
    """During the load each store must have data of conversations; otherwise the check of residual data is broken."""
    seen = {kind.split()[0] for kind in await residual_rows(platform)}
    if missing := STORES - seen:
        ledger.problem("vacuous", f"no data seen in {sorted(missing)}")


async def delete_all(users: list[User]) -> None:
    """Delete every conversation that the users can list."""
    for user in users:
        rows = await user.caller.pages("ListConversations", "conversations")
        for start in range(0, len(rows), 8):
            batch = [row["conversationId"] for row in rows[start : start + 8]]
            results = await asyncio.gather(
                *(
                    user.caller.must("DeleteConversation", new_key(), conversationId=each)
                    for each in batch
                ),
                return_exceptions=True,
            )
            for deleted, result in zip(batch, results, strict=True):
                if not isinstance(result, BaseException):
                    user.unknown.discard(deleted)
                    user.deleted.add(deleted)
                elif not isinstance(result, Abandoned):
                    raise result


async def check_residual_data(platform: Platform, ledger: Ledger) -> None:
    """Wait until the stores are empty, and record what remains."""

    async def empty() -> bool:
        return not await residual_rows(platform)

    with contextlib.suppress(AssertionError):  # what remains is recorded below
        await wait_until(empty, EMPTY_SECONDS, every=2)
    for what, count in sorted((await residual_rows(platform)).items()):
        ledger.problem("residual data", f"{count} × {what}")
    ledger.done["tombstones"] = await tombstones(platform)
