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

KeyId = Annotated[str, StringConstraints(pattern=r"^key_[0-9a-z]{26,32}$")]
OrganizationId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
KeyName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=32)]
MAX_GRACE_SECONDS: Final = 7 * 86_400


class KeyMode(StrEnum):
    """LIVE keys begin with `yk_live_`, TEST keys with `yk_test_`."""

    LIVE = "LIVE"
    TEST = "TEST"


class KeyStatus(StrEnum):
    """Whether a key works."""

    ACTIVE = "ACTIVE"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"


class BudgetPeriod(StrEnum):
    """When what was spent begins again at nothing: each UTC day, each UTC month, or never."""

    DAY = "DAY"
    MONTH = "MONTH"
    TOTAL = "TOTAL"


class KeyRateLimit(Message):
    """At most `limit` calls in any window of `windowSeconds`."""

    limit: Annotated[int, Field(ge=1, le=1_000_000)]
    window_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60


class KeyBudget(Message):
    """At most `amount` US dollars of model cost in a period."""

    amount: Annotated[float, Field(gt=0, le=1_000_000)]
    period: BudgetPeriod = BudgetPeriod.MONTH


class ApiKey(Message):
    """A key as its owner sees it; `start` is its first characters. `organizationId` is absent for a user's own key."""

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
    """Makes a key of the caller, or of an organization that the caller administers."""

    name: KeyName
    mode: KeyMode = KeyMode.LIVE
    organization_id: OrganizationId | None = None
    scopes: Scopes
    expires_at: Timestamp | None = None
    rate_limit: KeyRateLimit | None = None
    budget: KeyBudget | None = None


class ApiKeySecret(Message):
    """A key and its secret, which is shown this once."""

    api_key: ApiKey
    secret: str


class ListApiKeysRequest(Message):
    """A page of the caller's keys, or of an organization's that the caller administers, newest first."""

    organization_id: OrganizationId | None = None
    limit: PageSize = 20
    cursor: Cursor | None = None


class ListApiKeysResponse(Message):
    """`nextCursor` is absent on the last page."""

    api_keys: list[ApiKey]
    next_cursor: str | None = None


class ApiKeyRequest(Message):
    """Names a key."""

    key_id: KeyId


class UpdateApiKeyRequest(ApiKeyRequest):
    """Changes the fields that are present; an explicit null lifts a limit or an expiry."""

    name: KeyName | None = None
    scopes: Scopes | None = None
    expires_at: Timestamp | None = None
    rate_limit: KeyRateLimit | None = None
    budget: KeyBudget | None = None


class RotateApiKeyRequest(ApiKeyRequest):
    """Gives the key a new secret; the old one works for `graceSeconds` more."""

    grace_seconds: Annotated[int, Field(ge=0, le=MAX_GRACE_SECONDS)] = 86_400


class VerifyCode(StrEnum):
    """What a verification found."""

    VALID = "VALID"
    NOT_FOUND = "NOT_FOUND"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    INSUFFICIENT_SCOPE = "INSUFFICIENT_SCOPE"
    RATE_LIMITED = "RATE_LIMITED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"


class VerifyApiKeyRequest(Message):
    """Asks whether a secret is good. `cost` counts against the rate limit; the edge counts itself and sends 0."""

    secret: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    scope: Scope | None = None
    cost: Annotated[int, Field(ge=0, le=1000)] = 1


class VerifyApiKeyResponse(Message):
    """`keyId` and what follows are present where the key is known; `remainingCalls` where it has a rate limit."""

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
    """Books a cost in US dollars on a key; a repeated `reference` is booked once."""

    key_id: KeyId
    reference: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    amount: Annotated[float, Field(ge=0, le=1_000_000)]


_COMMON = (ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAUTHENTICATED, ErrorCode.PERMISSION_DENIED)
_NAMED = (*_COMMON, ErrorCode.NOT_FOUND, ErrorCode.UNAVAILABLE)

API_KEY_SERVICE: Final = RpcService(
    "yocaso.auth.v1.ApiKeyService", "API keys for servers and scripts."
)
CREATE_API_KEY: Final = API_KEY_SERVICE.unary(
    "CreateApiKey",
    CreateApiKeyRequest,
    ApiKeySecret,
    "Make a key; its secret is shown once",
    raises=_NAMED,
    scope=KEYS_WRITE,
)
LIST_API_KEYS: Final = API_KEY_SERVICE.unary(
    "ListApiKeys",
    ListApiKeysRequest,
    ListApiKeysResponse,
    "List keys",
    raises=_NAMED,
    scope=KEYS_READ,
)
GET_API_KEY: Final = API_KEY_SERVICE.unary(
    "GetApiKey", ApiKeyRequest, ApiKey, "Read a key", raises=_NAMED, scope=KEYS_READ
)
UPDATE_API_KEY: Final = API_KEY_SERVICE.unary(
    "UpdateApiKey",
    UpdateApiKeyRequest,
    ApiKey,
    "Change a key's name, scopes, expiry or limits",
    raises=_NAMED,
    scope=KEYS_WRITE,
)
ROTATE_API_KEY: Final = API_KEY_SERVICE.unary(
    "RotateApiKey",
    RotateApiKeyRequest,
    ApiKeySecret,
    "Give a key a new secret; the old one works for a while",
    raises=(*_NAMED, ErrorCode.FAILED_PRECONDITION),
    scope=KEYS_WRITE,
)
REVOKE_API_KEY: Final = API_KEY_SERVICE.unary(
    "RevokeApiKey",
    ApiKeyRequest,
    ApiKey,
    "End a key, everywhere within 5 s",
    raises=_NAMED,
    scope=KEYS_WRITE,
)
VERIFY_API_KEY: Final = API_KEY_SERVICE.unary(
    "VerifyApiKey",
    VerifyApiKeyRequest,
    VerifyApiKeyResponse,
    "Say whether a secret is good, whose it is, and what is left of its limits",
    raises=(ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAVAILABLE),
    internal=True,
)
CHARGE_API_KEY: Final = API_KEY_SERVICE.unary(
    "ChargeApiKey",
    ChargeApiKeyRequest,
    Empty,
    "Book a cost on a key",
    raises=(ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAVAILABLE),
    internal=True,
)
