"""The access matrix: a row per operation of the OpenAPI document and kind of object, and the code of each cell.

A cell is a principal that calls the operation for a target. Its code follows from the operation's security in the
document and from the role that the row requires on the object.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import Any, Final

from services.contracts.auth.tokens import SubjectTokenType

DOCUMENT: Final = Path(__file__).parents[2] / "services/contracts/openapi/yocaso.json"
OK: Final = "OK"
VERBS: Final = ("get", "post")


class CredentialState(StrEnum):
    """Whether a principal's credential passes before any object is looked up."""

    VALID = "valid"
    LOW_SCOPE = "low scope"
    INVALID = "invalid"


class Principal(StrEnum):
    """Who calls. Credentials other than people's are those of the owner."""

    OWNER = "owner"
    COLLEAGUE = "member of the same organization"
    STRANGER = "member of another organization"
    API_KEY = "API key of the owner"
    LOW_KEY = "API key with low scope"
    LOW_TOKEN = "token with low scope"
    ANONYMOUS = "anonymous"
    SIGNED_OUT = "token of a session that was signed out"
    REVOKED_KEY = "revoked API key"
    REVOKED_KEY_TOKEN = "token of a revoked API key"

    @property
    def credential(self) -> CredentialState:
        if self in (Principal.LOW_KEY, Principal.LOW_TOKEN):
            return CredentialState.LOW_SCOPE
        valid = self in (*PEOPLE, Principal.API_KEY)
        return CredentialState.VALID if valid else CredentialState.INVALID


PEOPLE: Final = (Principal.OWNER, Principal.COLLEAGUE, Principal.STRANGER)


class Target(StrEnum):
    """Whose object is named. VIEWED and EDITED are another's, shared with the principal by that role."""

    NONE = "none"
    OWN = "own"
    FOREIGN = "foreign"
    MISSING = "missing"
    VIEWED = "viewed"
    EDITED = "edited"


PLAIN: Final = (Target.OWN, Target.FOREIGN, Target.MISSING)
Combination = tuple[str, str, Principal, Target]
"""An operation, the field that names the object, the principal, and the target."""


class Kind(StrEnum):
    """The kind of object that is named."""

    NOTHING = "nothing"
    CONVERSATION = "conversation"
    TURN = "turn"
    LINK = "link"
    API_KEY = "api key"
    ORGANIZATION_KEY = "organization's api key"
    ORGANIZATION = "organization"
    LINK_TOKEN = "link token"
    KEY_SECRET = "key secret"
    REFRESH_TOKEN = "refresh token"
    ACCESS_TOKEN = "access token"
    ID_TOKEN = "id token"
    DELETION = "deletion"


BEARER_KINDS: Final = frozenset(
    {
        Kind.LINK_TOKEN,
        Kind.KEY_SECRET,
        Kind.REFRESH_TOKEN,
        Kind.ACCESS_TOKEN,
        Kind.ID_TOKEN,
        Kind.DELETION,
    }
)
"""Knowing the value is enough to use it: it is a secret, or holds no personal data."""


class Needs(StrEnum):
    """The role on the object that the operation requires."""

    VIEWER = "viewer"
    EDITOR = "editor"
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Operation:
    """A path and verb of the document. `scope` is None if public; `ids` are the fields that name an object.

    `by_key`: an API key may call it.
    """

    id: str
    verb: str
    path: str
    scope: str | None
    by_key: bool
    ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Row:
    """An operation on a kind of object, named by the fields `names`; the fields `own` name the caller's own object.

    `answer` is the code for a permitted caller, `unknown` the one for a secret that was never issued. `consumes`: the
    call ends or renames the object or the caller.
    """

    operation: str
    kind: Kind = Kind.NOTHING
    names: tuple[str, ...] = ()
    needs: Needs = Needs.OWNER
    own: tuple[str, ...] = ()
    rest: dict[str, Any] = field(default_factory=dict[str, Any])
    answer: str = OK
    unknown: str = "NOT_FOUND"
    consumes: bool = False

    @property
    def name(self) -> str:
        return f"{self.operation}-{self.kind}"


@dataclass(frozen=True, slots=True)
class Cell:
    """A principal, a target, and the expected code."""

    principal: Principal
    target: Target
    expected: str


def operations() -> dict[str, Operation]:
    """The operations of the document by id."""
    document = json.loads(DOCUMENT.read_text())
    found = [
        _operation(path, verb, entry, document)
        for path, verbs in document["paths"].items()
        for verb, entry in verbs.items()
        if verb in VERBS
    ]
    return {each.id: each for each in found}


def _operation(path: str, verb: str, entry: dict[str, Any], document: dict[str, Any]) -> Operation:
    security: list[dict[str, list[str]]] = entry["security"]
    scopes = {scope for way in security for scoped in way.values() for scope in scoped}
    assert len(scopes) == bool(security), (
        f"{entry['operationId']} needs one scope or none: {scopes}"
    )
    fields = {each["name"] for each in entry.get("parameters", ()) if each["in"] == "query"}
    if "requestBody" in entry:
        reference = entry["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        fields |= document["components"]["schemas"][reference.rsplit("/", 1)[1]][
            "properties"
        ].keys()
    ids = frozenset(name for name in fields if names_an_object(name))
    by_key = not security or any("apiKey" in way for way in security)
    return Operation(entry["operationId"], verb, path, next(iter(scopes), None), by_key, ids)


def names_an_object(name: str) -> bool:
    """Whether a request field names an object that has an owner."""
    return name == "object" or name.endswith(("Id", "Token", "token"))


def cells(row: Row, operation: Operation) -> Iterator[Cell]:
    """The row's cells: every principal with each of its targets."""
    for principal in Principal:
        refused = refusal(operation, principal)
        for target in targets(row, principal):
            yield Cell(principal, target, refused or expected(row, target))


def targets(row: Row, principal: Principal) -> tuple[Target, ...]:
    if row.kind is Kind.NOTHING:
        return (Target.NONE,)
    shared = row.kind is Kind.CONVERSATION and principal in (
        Principal.COLLEAGUE,
        Principal.STRANGER,
    )
    return (*PLAIN, Target.VIEWED, Target.EDITED) if shared else PLAIN


def refusal(operation: Operation, principal: Principal) -> str | None:
    """The code if the call is refused before the target is looked up."""
    if operation.scope is not None and principal.credential is CredentialState.INVALID:
        return "UNAUTHENTICATED"
    low_scope = principal.credential is CredentialState.LOW_SCOPE
    refused_key = principal is Principal.API_KEY and not operation.by_key
    if operation.scope is not None and (refused_key or low_scope):
        return "PERMISSION_DENIED"
    return None


def expected(row: Row, target: Target) -> str:
    """The code after the target was looked up."""
    if row.kind in BEARER_KINDS:
        return row.unknown if target is Target.MISSING else row.answer
    denied = {
        Target.FOREIGN: "NOT_FOUND",
        Target.MISSING: "NOT_FOUND",
        Target.VIEWED: OK if row.needs is Needs.VIEWER else "PERMISSION_DENIED",
        Target.EDITED: "PERMISSION_DENIED" if row.needs is Needs.OWNER else OK,
    }.get(target, OK)
    return row.answer if denied == OK else denied


def required_combinations(found: dict[str, Operation]) -> set[Combination]:
    """Every operation with every principal and each of its ids with every plain target."""
    return {
        (each.id, name, principal, target)
        for each in found.values()
        for name, target in (product(each.ids, PLAIN) if each.ids else [("", Target.NONE)])
        for principal in Principal
    }


def covered_combinations(found: dict[str, Operation]) -> set[Combination]:
    """The combinations in the rows, without shared objects and absent optional ids."""
    return {
        (row.operation, name, cell.principal, cell.target)
        for row in ROWS
        for cell in cells(row, found[row.operation])
        for name in row.names or ("",)
        if cell.target in PLAIN or not found[row.operation].ids
    }


def _conversation(method: str, needs: Needs, *, consumes: bool = False, **rest: Any) -> Row:
    return Row(
        f"ConversationService.{method}",
        Kind.CONVERSATION,
        ("conversationId",),
        needs,
        rest=rest,
        consumes=consumes,
    )


def _turn(method: str, needs: Needs) -> tuple[Row, Row]:
    operation = f"ConversationService.{method}"
    return (
        Row(operation, Kind.CONVERSATION, ("conversationId", "turnId"), needs),
        Row(operation, Kind.TURN, ("turnId",), needs, own=("conversationId",)),
    )


def _key(method: str, *, consumes: bool = False, **rest: Any) -> tuple[Row, Row]:
    operation = f"ApiKeyService.{method}"
    kinds = (Kind.API_KEY, Kind.ORGANIZATION_KEY)
    mine, theirs = (
        Row(operation, kind, ("keyId",), rest=rest, consumes=consumes) for kind in kinds
    )
    return mine, theirs


def _organization(operation: str, **rest: Any) -> tuple[Row, Row]:
    return (
        Row(operation, rest=rest),
        Row(operation, Kind.ORGANIZATION, ("organizationId",), rest=rest),
    )


def _sharing(method: str, **rest: Any) -> Row:
    return Row(f"AuthorizationService.{method}", Kind.CONVERSATION, ("object",), rest=rest)


def _bearer(operation: str, kind: Kind, name: str, **fields: Any) -> Row:
    return Row(operation, kind, (name,), **fields)


_TEXT: Final[dict[str, Any]] = {"text": "hello"}
_KEY: Final = {"name": "of the matrix", "scopes": ["conversations:read"]}
_GUEST: Final = {"subject": "user:guest-of-the-matrix"}

ROWS: Final[tuple[Row, ...]] = (
    Row("ConversationService.CreateConversation", rest={"title": "of the matrix"}),
    Row("ConversationService.ListConversations"),
    _conversation("GetConversation", Needs.VIEWER),
    _conversation("UpdateConversation", Needs.EDITOR, consumes=True, title="of the matrix"),
    _conversation("DeleteConversation", Needs.OWNER, consumes=True),
    _conversation("ListMessages", Needs.VIEWER),
    _conversation("AppendMessage", Needs.EDITOR, **_TEXT),
    _conversation("SendMessage", Needs.EDITOR, **_TEXT),
    _conversation("StreamMessage", Needs.EDITOR, **_TEXT),
    _conversation("StreamMessage.Get", Needs.EDITOR, **_TEXT),
    *_turn("GetTurn", Needs.VIEWER),
    *_turn("CancelTurn", Needs.EDITOR),
    *_turn("ListEvents", Needs.VIEWER),
    *_turn("StreamEvents", Needs.VIEWER),
    *_turn("StreamEvents.Get", Needs.VIEWER),
    *_organization("ApiKeyService.CreateApiKey", **_KEY),
    *_organization("ApiKeyService.ListApiKeys"),
    *_key("GetApiKey"),
    *_key("UpdateApiKey", consumes=True, name="of the matrix"),
    *_key("RotateApiKey"),
    *_key("RevokeApiKey", consumes=True),
    _bearer(
        "TokenService.ExchangeToken",
        Kind.KEY_SECRET,
        "subjectToken",
        rest={"subjectTokenType": SubjectTokenType.API_KEY},
        unknown="UNAUTHENTICATED",
    ),
    _bearer(
        "TokenService.RefreshToken",
        Kind.REFRESH_TOKEN,
        "refreshToken",
        unknown="UNAUTHENTICATED",
        consumes=True,
    ),
    _bearer("TokenService.RevokeToken", Kind.ACCESS_TOKEN, "token", unknown=OK, consumes=True),
    _bearer(
        "TokenService.CreateSessionCookie", Kind.ID_TOKEN, "idToken", unknown="UNAUTHENTICATED"
    ),
    # The principals did not sign in by Firebase.
    Row("TokenService.CreateCustomToken", answer="FAILED_PRECONDITION"),
    _sharing("Share", **_GUEST),
    _sharing("Unshare", **_GUEST),
    _sharing("ListShares"),
    _sharing("CreateShareLink"),
    Row(
        "AuthorizationService.RevokeShareLink",
        Kind.CONVERSATION,
        ("object", "linkId"),
        consumes=True,
    ),
    Row(
        "AuthorizationService.RevokeShareLink",
        Kind.LINK,
        ("linkId",),
        own=("object",),
        consumes=True,
    ),
    _bearer("AuthorizationService.OpenShareLink", Kind.LINK_TOKEN, "token"),
    Row("AuthorizationService.ListSharedWithMe"),
    *_organization("AuditService.ListAuditEvents"),
    Row("AccountService.DeleteAccount", consumes=True),
    _bearer("AccountService.GetAccountDeletion", Kind.DELETION, "deletionId"),
)
