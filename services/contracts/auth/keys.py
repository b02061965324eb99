"""API keys: `yocaso.auth.v1.ApiKeyService`."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from services.contracts.auth.tokens import Scope
from services.contracts.paging import Cursor, PageSize
from services.kit.contract import Empty, Message, RpcService, Timestamp
from services.kit.errors import ErrorCode

KEYS_READ: Final = "keys:read"
KEYS_WRITE: Final = "keys:write"

KeyId = Annotated[
    str, Field(pattern=r"^key_[0-9a-z]{26,32}$", examples=["key_01k9x2m4q7r8s5t6v0w1y2z3c6"])
]
OrganizationId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
KeyName = Annotated[str, Field(min_length=1, max_length=100, examples=["nightly import"])]
Scopes = Annotated[
    list[Scope], Field(min_length=1, max_length=32, examples=[["conversations:read"]])
]
MAX_GRACE_SECONDS: Final = 7 * 86_400


class KeyMode(StrEnum):
    """LIVE keys begin with `yk_live_`, TEST keys with `yk_test_`."""

    LIVE = "LIVE"
    TEST = "TEST"


class KeyStatus(StrEnum):
    """Only an ACTIVE key authenticates."""

    ACTIVE = "ACTIVE"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"


class BudgetPeriod(StrEnum):
    """When `spent` resets to 0: each UTC day, each UTC month, or never (TOTAL)."""

    DAY = "DAY"
    MONTH = "MONTH"
    TOTAL = "TOTAL"


class KeyRateLimit(Message):
    """At most `limit` calls in any window of `windowSeconds`."""

    limit: Annotated[int, Field(ge=1, le=1_000_000)]
    window_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60


class KeyBudget(Message):
    """At most `amount` US dollars of model cost per period."""

    amount: Annotated[float, Field(gt=0, le=1_000_000)]
    period: BudgetPeriod = BudgetPeriod.MONTH


class ApiKey(Message):
    """An API key; `start` begins its secret, `spent` is in US dollars. A user's own key has no `organizationId`."""

    key_id: str
    name: str
    mode: KeyMode
    start: str
    status: KeyStatus
    user_id: str
    organization_id: str | None = None
    scopes: list[str]
    rate_limit: KeyRateLimit | None = None
    budget: KeyBudget | None = None
    spent: float = 0.0
    created_at: Timestamp
    expires_at: Timestamp | None = None
    last_used_at: Timestamp | None = None
    revoked_at: Timestamp | None = None
    previous_expires_at: Timestamp | None = None


class CreateApiKeyRequest(Message):
    """Creates a key for the caller, or for an organization the caller administers."""

    name: KeyName
    mode: KeyMode = KeyMode.LIVE
    organization_id: OrganizationId | None = None
    scopes: Scopes
    expires_at: Timestamp | None = None
    rate_limit: KeyRateLimit | None = None
    budget: KeyBudget | None = None


class ApiKeySecret(Message):
    """A key and its secret, which is returned only here."""

    api_key: ApiKey
    secret: str


class ListApiKeysRequest(Message):
    """Lists the caller's keys, or those of an organization the caller administers, newest first."""

    organization_id: OrganizationId | None = None
    limit: PageSize = 20
    cursor: Cursor | None = None


class ListApiKeysResponse(Message):
    """`nextCursor` is absent on the last page."""

    api_keys: list[ApiKey]
    next_cursor: str | None = None


class ApiKeyRequest(Message):
    """Identifies a key."""

    key_id: KeyId


class UpdateApiKeyRequest(ApiKeyRequest):
    """Changes the fields that are present; an explicit null removes a limit or the expiry."""

    name: KeyName | None = None
    scopes: Scopes | None = None
    expires_at: Timestamp | None = None
    rate_limit: KeyRateLimit | None = None
    budget: KeyBudget | None = None


class RotateApiKeyRequest(ApiKeyRequest):
    """Issues a new secret; the old one stays valid for `graceSeconds`."""

    grace_seconds: Annotated[int, Field(ge=0, le=MAX_GRACE_SECONDS)] = 86_400


class VerifyCode(StrEnum):
    """Result of a verification."""

    VALID = "VALID"
    NOT_FOUND = "NOT_FOUND"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    INSUFFICIENT_SCOPE = "INSUFFICIENT_SCOPE"
    RATE_LIMITED = "RATE_LIMITED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"


class VerifyApiKeyRequest(Message):
    """Verifies a secret. `cost` counts against its rate limit; the edge counts calls itself and sends 0."""

    secret: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    scope: Scope | None = None
    cost: Annotated[int, Field(ge=0, le=1000)] = 1


class VerifyApiKeyResponse(Message):
    """`keyId` and the fields after it describe a known key; `remainingCalls` and `remainingBudget` its limits."""

    valid: bool
    code: VerifyCode
    key_id: str | None = None
    user_id: str | None = None
    email: str | None = None
    scopes: list[str] = Field(default_factory=list)
    rate_limit: KeyRateLimit | None = None
    remaining_calls: int | None = None
    remaining_budget: float | None = None
    expires_at: Timestamp | None = None


class ChargeApiKeyRequest(Message):
    """Charges a cost in US dollars to a key; idempotent by `reference`."""

    key_id: KeyId
    reference: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    amount: Annotated[float, Field(ge=0, le=1_000_000)]


_ERRORS = (
    ErrorCode.INVALID_ARGUMENT,
    ErrorCode.UNAUTHENTICATED,
    ErrorCode.PERMISSION_DENIED,
    ErrorCode.NOT_FOUND,
    ErrorCode.UNAVAILABLE,
)
API_KEY_SERVICE: Final = RpcService(
    "yocaso.auth.v1.ApiKeyService", "API keys for servers and scripts."
)
CREATE_API_KEY: Final = API_KEY_SERVICE.unary(
    "CreateApiKey",
    CreateApiKeyRequest,
    ApiKeySecret,
    "Create a key; its secret is returned once",
    raises=_ERRORS,
    scope=KEYS_WRITE,
)
LIST_API_KEYS: Final = API_KEY_SERVICE.unary(
    "ListApiKeys",
    ListApiKeysRequest,
    ListApiKeysResponse,
    "List keys",
    raises=_ERRORS,
    scope=KEYS_READ,
)
GET_API_KEY: Final = API_KEY_SERVICE.unary(
    "GetApiKey", ApiKeyRequest, ApiKey, "Read a key", raises=_ERRORS, scope=KEYS_READ
)
UPDATE_API_KEY: Final = API_KEY_SERVICE.unary(
    "UpdateApiKey",
    UpdateApiKeyRequest,
    ApiKey,
    "Change a key's name, scopes, expiry or limits",
    raises=_ERRORS,
    scope=KEYS_WRITE,
)
ROTATE_API_KEY: Final = API_KEY_SERVICE.unary(
    "RotateApiKey",
    RotateApiKeyRequest,
    ApiKeySecret,
    "Issue a new secret; the old one stays valid for a grace period",
    raises=(*_ERRORS, ErrorCode.FAILED_PRECONDITION),
    scope=KEYS_WRITE,
)
REVOKE_API_KEY: Final = API_KEY_SERVICE.unary(
    "RevokeApiKey",
    ApiKeyRequest,
    ApiKey,
    "Revoke a key; effective everywhere within 5 s",
    raises=_ERRORS,
    scope=KEYS_WRITE,
)
VERIFY_API_KEY: Final = API_KEY_SERVICE.unary(
    "VerifyApiKey",
    VerifyApiKeyRequest,
    VerifyApiKeyResponse,
    "Verify a secret; returns its user, scopes and remaining limits",
    raises=(ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAVAILABLE),
    internal=True,
)
CHARGE_API_KEY: Final = API_KEY_SERVICE.unary(
    "ChargeApiKey",
    ChargeApiKeyRequest,
    Empty,
    "Charge a cost to a key",
    raises=(ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAVAILABLE),
    internal=True,
)
