"""Receipts of account deletions, and the user data that a deletion erases."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from services.contracts.auth.accounts import AccountDeletion, DeleteAccountInput

if TYPE_CHECKING:
    from services.kit.storage.db import Transaction


class DeletionReceipts(Protocol):
    """Receipts of account deletions.

    A receipt has the user's id only until it is complete, and a keyed hash of it afterwards.
    """

    async def begin(self, user_id: str, deletion_id: str) -> AccountDeletion:
        """The user's unfinished receipt, or a new one under this id."""
        ...

    async def read(self, deletion_id: str) -> AccountDeletion | None:
        """The receipt, or None."""
        ...

    async def add_part(
        self, deletion_id: str, app: str, removed: dict[str, int]
    ) -> AccountDeletion | None:
        """Add what an app removed, once per app; None without such a receipt."""
        ...

    async def complete(self, deletion_id: str) -> AccountDeletion | None:
        """Complete it and remove the user's id, repeatable; None without such a receipt."""
        ...

    async def covers(self, transaction: "Transaction", user_id: str, at: datetime) -> bool:
        """Whether a deletion of this user is unfinished, or was completed after this time."""
        ...

    async def unfinished(self) -> Sequence[DeleteAccountInput]:
        """Deletions that are not complete."""
        ...

    async def finished(self) -> Sequence[str]:
        """Complete deletions whose workflow history is not purged yet."""
        ...

    async def forget_workflow(self, deletion_id: str) -> None:
        """Record that the workflow's history is purged."""
        ...


class UserRecords(Protocol):
    """The rows of a user in all tables: API keys, sessions and audit events."""

    async def revoke_keys(self, user_id: str) -> None:
        """Revoke the user's own API keys; repeatable."""
        ...

    async def count(self, user_id: str, audit_owner: str) -> dict[str, int]:
        """The number of rows by kind."""
        ...

    async def key_ids(self, user_id: str) -> list[str]:
        """The user's own API keys."""
        ...

    async def erase_key(self, key_id: str) -> None:
        """Delete an API key with its charges; repeatable."""
        ...

    async def erase(self, user_id: str, audit_owner: str, pseudonym: str) -> None:
        """Delete sessions and the audit log, and put the pseudonym for the user into the logs of others; repeatable."""
        ...


class UserData(Protocol):
    """One kind of user data that an account deletion erases."""

    async def count(self, user_id: str) -> dict[str, int]:
        """The number of objects by kind."""
        ...

    async def erase(self, user_id: str) -> None:
        """Erase them; repeatable."""
        ...
