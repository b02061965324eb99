"""What erasing an account needs of the outside world."""

from collections.abc import Sequence
from typing import Protocol

from services.contracts.auth.accounts import AccountDeletion, DeleteAccountInput


class Deletions(Protocol):
    """Keeps the receipts. A user's name is on one only while it is not complete."""

    async def begin(self, user_id: str, deletion_id: str) -> AccountDeletion:
        """A receipt for this user: a new one, or the one that is being worked on."""
        ...

    async def read(self, deletion_id: str) -> AccountDeletion | None:
        """A receipt."""
        ...

    async def add_part(
        self, deletion_id: str, app: str, removed: dict[str, int]
    ) -> AccountDeletion:
        """Write what an app removed, once per app."""
        ...

    async def complete(self, deletion_id: str) -> AccountDeletion:
        """Complete it, and take the user's name off; repeatable."""
        ...

    async def finished(self) -> Sequence[str]:
        """Those that are complete, and whose workflow still has its history."""
        ...

    async def forget_workflow(self, deletion_id: str) -> None:
        """The workflow's history is gone."""
        ...

    async def unfinished(self) -> Sequence[DeleteAccountInput]:
        """What is being worked on."""
        ...


class Credentials(Protocol):
    """The keys and sessions by which a user comes in."""

    async def revoke_user(self, user_id: str) -> None:
        """End them all; repeatable."""
        ...


class UserData(Protocol):
    """Something that auth has of users."""

    async def count(self, user_id: str) -> dict[str, int]:
        """How many of each kind."""
        ...

    async def erase(self, user_id: str) -> None:
        """Remove them; repeatable."""
        ...
