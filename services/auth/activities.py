"""Workflow activities of auth: its part of erasing an account, and the receipt."""

from collections.abc import Sequence

from services.auth.ports.deletions import Deletions, UserData
from services.contracts.auth.accounts import AccountDeletion, RecordErasureInput
from services.contracts.erasure import ErasedUser, EraseUserInput
from services.kit.failpoints import failpoint


class UserErasure:
    """Hosts `EraseUser` and `RecordErasure`; both may run twice."""

    def __init__(self, deletions: Deletions, data: Sequence[UserData]) -> None:
        self._deletions = deletions
        self._data = data

    async def run(self, request: EraseUserInput) -> ErasedUser:
        """Count, or remove."""
        if request.count_only:
            found: dict[str, int] = {}
            for each in self._data:
                found |= await each.count(request.user_id)
            return ErasedUser(done=True, found=found)
        for each in self._data:
            await each.erase(request.user_id)
            await failpoint("erasure.after_part")
        return ErasedUser(done=True)

    async def record(self, request: RecordErasureInput) -> AccountDeletion:
        """Write a part into the receipt, or complete it."""
        if request.app is None:
            return await self._deletions.complete(request.deletion_id)
        return await self._deletions.add_part(request.deletion_id, request.app, request.removed)
