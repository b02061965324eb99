"""When every conversation is deleted: does any store still hold a row or a key of one?"""

import asyncio
import contextlib
from typing import Final

from tests.soak.caller import new_key
from tests.soak.ledger import GaveUp, Ledger
from tests.soak.load import User
from tests.support.leftovers import left_over, tombstones
from tests.support.platform import Platform
from tests.support.wait import wait_until

STORES: Final = frozenset({"state", "rows", "tuple", "scheduler"})
EMPTY_SECONDS: Final = 120.0
"""How long the removal in the background may take after the last deletion was answered."""


async def require_sight(platform: Platform, ledger: Ledger) -> None:
    """While users are busy each store names their conversations; one that seems not to is not read right."""
    seen = {kind.split()[0] for kind in await left_over(platform)}
    if blind := STORES - seen:
        ledger.problem("vacuous", f"nothing is seen of {sorted(blind)}")


async def delete_all(users: list[User]) -> None:
    """Delete whatever the users still see."""
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
            bugs = [each for each in results if isinstance(each, BaseException)]
            for each in bugs:
                if not isinstance(each, GaveUp):
                    raise each


async def judge_remains(platform: Platform, ledger: Ledger) -> None:
    """Wait for the stores to be empty, and note what stays."""

    async def empty() -> bool:
        return not await left_over(platform)

    with contextlib.suppress(AssertionError):  # what stays is noted one by one
        await wait_until(empty, EMPTY_SECONDS, every=2)
    for what, count in sorted((await left_over(platform)).items()):
        ledger.problem("left over", f"{count} × {what}")
    ledger.done["tombstones"] = await tombstones(platform)
