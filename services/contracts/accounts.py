"""The right to erasure: `yocaso.auth.v1.AccountService`, its workflow, and what each app has to offer it."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, Field, StringConstraints

from services.contracts.scopes import ACCOUNT_WRITE
from services.kit.contract import Empty, Int64, Message, RpcMethod, RpcService, Timestamp
from services.kit.dapr.workflows import ActivityRef, WorkflowRef
from services.kit.errors import ErrorCode

DeletionId = Annotated[str, StringConstraints(pattern=r"^deletion_[0-9a-z]{26,32}$")]


class DeletionStatus(StrEnum):
    """RUNNING until every part is done."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"


class ErasedPart(Message):
    """What one app removed: the number of objects by kind."""

    app: str
    removed: dict[str, Int64] = Field(default_factory=dict)
    erased_at: Timestamp


class AccountDeletion(Message):
    """The receipt of a deletion. It names nobody; whoever has its id may read it."""

    deletion_id: str
    status: DeletionStatus
    parts: list[ErasedPart] = Field(default_factory=list[ErasedPart])
    requested_at: Timestamp
    completed_at: Timestamp | None = None


class GetAccountDeletionRequest(Message):
    """Names a deletion."""

    deletion_id: DeletionId


class DeleteAccountInput(BaseModel):
    """Whose account, and under which receipt."""

    user_id: str
    deletion_id: str


class EraseUserInput(DeleteAccountInput):
    """Erase all that an app has of a user, or with `survey` only count it; repeatable.

    The survey comes first and is kept by the workflow, so the receipt is right whatever dies in between.
    """

    survey: bool = False


class ErasedUser(BaseModel):
    """`done` is false where some is left, and the workflow comes back; `found` is what a survey counted, by kind."""

    done: bool
    found: dict[str, int] = Field(default_factory=dict[str, int])


class RecordErasureInput(BaseModel):
    """Adds a part to the receipt; `app` absent completes it."""

    deletion_id: str
    app: str | None = None
    removed: dict[str, int] = Field(default_factory=dict[str, int])


DELETE_ACCOUNT: Final = WorkflowRef(
    "DeleteAccountWorkflow", app_id="workflows", input=DeleteAccountInput
)
RECORD_ERASURE: Final = ActivityRef(
    "RecordErasure", app_id="auth", input=RecordErasureInput, output=AccountDeletion
)


def _eraser(app_id: str) -> "ActivityRef[EraseUserInput, ErasedUser]":
    return ActivityRef("EraseUser", app_id=app_id, input=EraseUserInput, output=ErasedUser)


def eraser_of(app_id: str) -> "ActivityRef[EraseUserInput, ErasedUser]":
    """What an app hosts to take part."""
    return next(eraser for eraser in ERASERS if eraser.app_id == app_id)


ERASERS: Final = (_eraser("llm"), _eraser("auth"))
"""Every app that holds something of a user, in the order of erasing; auth is last, as the others ask it."""

ACCOUNT_SERVICE: Final = RpcService(
    "yocaso.auth.v1.AccountService",
    app_id="auth",
    summary="Ending an account.",
    methods=(
        RpcMethod(
            "DeleteAccount",
            Empty,
            AccountDeletion,
            "Erase the caller's account and all that belongs to it; cannot be undone",
            raises=(
                ErrorCode.UNAUTHENTICATED,
                ErrorCode.PERMISSION_DENIED,
                ErrorCode.UNAVAILABLE,
            ),
            scope=ACCOUNT_WRITE,
        ),
        RpcMethod(
            "GetAccountDeletion",
            GetAccountDeletionRequest,
            AccountDeletion,
            "Read the receipt of a deletion",
            raises=(ErrorCode.INVALID_ARGUMENT, ErrorCode.NOT_FOUND, ErrorCode.UNAVAILABLE),
            public=True,
        ),
    ),
)
