"""Account deletion: `yocaso.auth.v1.AccountService`, its workflow and its receipt."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, Field

from services.kit.contract import Empty, Int64, Message, RpcService, Timestamp
from services.kit.errors import ErrorCode
from services.kit.references import ActivityRef, WorkflowRef

ACCOUNT_WRITE: Final = "account:write"

DeletionId = Annotated[
    str,
    Field(pattern=r"^deletion_[0-9a-z]{26,32}$", examples=["deletion_01k9x2m4q7r8s5t6v0w1y2z3e8"]),
]


class DeletionStatus(StrEnum):
    """RUNNING until every app has erased its part."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"


class ErasedPart(Message):
    """What one app removed: number of objects by kind."""

    app: str
    removed: dict[str, Int64] = Field(default_factory=dict)
    erased_at: Timestamp


class AccountDeletion(Message):
    """The receipt of an account deletion. It holds no personal data; anyone with its id can read it."""

    deletion_id: str
    status: DeletionStatus
    parts: list[ErasedPart] = Field(default_factory=list[ErasedPart])
    requested_at: Timestamp
    completed_at: Timestamp | None = None


class GetAccountDeletionRequest(Message):
    """Identifies an account deletion."""

    deletion_id: DeletionId


class DeleteAccountInput(BaseModel):
    """The account to delete and the id of its receipt."""

    user_id: str
    deletion_id: str


class EraseAppInput(DeleteAccountInput):
    """What is left of one app's part: count if `found` is absent, then erase unless `erased`, then record."""

    app: str
    found: dict[str, int] | None = None
    erased: bool = False
    polls: int = 0
    failures: int = 0


class RecordErasureInput(BaseModel):
    """Adds an app's part to the receipt; without `app`, completes the receipt."""

    deletion_id: str
    app: str | None = None
    removed: dict[str, int] = Field(default_factory=dict[str, int])


DELETE_ACCOUNT_WORKFLOW: Final = WorkflowRef(
    "DeleteAccountWorkflow",
    app_id="workflows",
    input=DeleteAccountInput,
    output=AccountDeletion,
)
ERASE_APP_WORKFLOW: Final = WorkflowRef(
    "EraseAppWorkflow", app_id="workflows", input=EraseAppInput, output=AccountDeletion
)
RECORD_ERASURE: Final = ActivityRef(
    "RecordErasure", app_id="auth", input=RecordErasureInput, output=AccountDeletion
)


ACCOUNT_SERVICE: Final = RpcService("yocaso.auth.v1.AccountService", "Account deletion.")
DELETE_ACCOUNT: Final = ACCOUNT_SERVICE.unary(
    "DeleteAccount",
    Empty,
    AccountDeletion,
    "Erase the caller's account and all its data; cannot be undone",
    raises=(
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.PERMISSION_DENIED,
        ErrorCode.UNAVAILABLE,
    ),
    scope=ACCOUNT_WRITE,
)
GET_ACCOUNT_DELETION: Final = ACCOUNT_SERVICE.unary(
    "GetAccountDeletion",
    GetAccountDeletionRequest,
    AccountDeletion,
    "Read the receipt of an account deletion",
    raises=(ErrorCode.INVALID_ARGUMENT, ErrorCode.NOT_FOUND, ErrorCode.UNAVAILABLE),
    public=True,
)
